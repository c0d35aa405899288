//! The contract over the layer that authenticates, which takes HTTP only: each request comes with its API key.

use std::task::{Context, Poll};

use tower::load::Load;
use tower::{Layer, Service};
use tower_kernels::layers::AuthenticateLayer;
use tower_kernels::middleware::authenticate::{ApiKey, ApiKeys, Authenticate, AuthenticateError};

use super::contract;
use crate::contract::layers::{
    Answered, OfHttp, adds_at_most, around, errors_keep_their_meaning, load_is_passed_on, of_each_layer,
};
use crate::support::probe::{Probe, ProbeError, Request};

const KEY: &str = "the-one-key-of-acme";

contract!(authenticate_layer, around(keyed()));

of_each_layer! {
    authenticate_as_a_layer: around(keyed()), 24;
}

fn keyed() -> impl Layer<Probe, Service = Keyed> {
    let layer = AuthenticateLayer::new(ApiKeys::new([ApiKey::new("acme", KEY).unwrap()]).unwrap());
    tower::layer::layer_fn(move |probe| Keyed(layer.layer(OfHttp(probe))))
}

/// Brings the key.
#[derive(Clone, Debug)]
struct Keyed(Authenticate<OfHttp>);

impl Service<Request> for Keyed {
    type Response = Answered;
    type Error = AuthenticateError<ProbeError>;
    type Future = <Authenticate<OfHttp> as Service<http::Request<Request>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        self.0.call(http::Request::get("/").header("x-api-key", KEY).body(request).unwrap())
    }
}

impl Load for Keyed {
    type Metric = usize;

    fn load(&self) -> usize {
        self.0.load()
    }
}
