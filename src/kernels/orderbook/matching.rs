//! `orderbook/matching`: a limit order book that matches by price, then by time.
//!
//! A ring kernel: the book stays on the device between messages. It is listed and described with the messages that it
//! exchanges; a request to execute it fails, as it needs a ring runtime.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernels::authoring::{Cases, Expected, Random};
use crate::service::{Cost, InvalidInput, Kernel, KernelInfo};

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct Matching;

/// Which side of the book an order is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Wants to buy.
    Buy,
    /// Wants to sell.
    Sell,
}

/// A message to the book: a new limit order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The sender's id of the order.
    pub id: u64,
    /// Which side it is on.
    pub side: Side,
    /// The worst price that it takes, in ticks.
    pub price: u64,
    /// How much it is for, in lots, at least 1.
    pub quantity: u64,
}

/// One match with an order that was resting in the book.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fill {
    /// Id of the order that rested.
    pub resting: u64,
    /// The price of the match, that of the resting order, in ticks.
    pub price: u64,
    /// How much was matched, in lots.
    pub quantity: u64,
}

/// A message from the book: the outcome of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Outcome {
    /// The order's id.
    pub id: u64,
    /// The matches, best price first.
    pub fills: Vec<Fill>,
    /// How much rests in the book now, in lots.
    pub resting: u64,
}

impl Kernel for Matching {
    type Input = Order;
    type Output = Outcome;

    fn info(&self) -> KernelInfo {
        let description = "Matches limit orders by price, then by time, in a book that stays on the device.";
        KernelInfo::new("orderbook/matching", "1.0.0", description).alias("orderbook/matching-engine").ring()
    }

    fn validate(&self, order: &Order) -> Result<(), InvalidInput> {
        if order.quantity == 0 {
            Err(InvalidInput::new("quantity", "0, and an order is for 1 lot or more"))
        } else {
            Ok(())
        }
    }

    fn cost(&self, _: &Order) -> Cost {
        Cost { bytes: size_of::<Order>() as u64, ..Cost::default() }
    }
}

/// A ring kernel has no runs to test.
impl Cases for Matching {
    fn case(&self, _: usize, _: &mut Random) -> Option<Order> {
        None
    }

    fn share(&self, _: &mut Order, _: &Order) {}

    fn put_nan(&self, _: &mut Order, _: usize) {}

    fn reference(&self, _: &Order) -> Vec<Expected> {
        Vec::new()
    }

    fn values(&self, _: &Outcome) -> Vec<Vec<f64>> {
        Vec::new()
    }
}
