//! The order, against a model that looks at everything each time, and what it costs.

use std::collections::HashMap;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;

use super::order::{Order, Rules, Spot};
use super::pace::Pace;
use super::tenants::{Urgency, count};
use crate::service::Priority;

const PRIORITIES: [Priority; 3] = [Priority::Low, Priority::Normal, Priority::High];

/// The weights of tenants 1, 2 and 3; 0 is no tenant.
const WEIGHTS: [u16; 4] = [1, 1, 2, 5];

fn tenant(number: usize) -> Option<Arc<str>> {
    (number > 0).then(|| number.to_string().into())
}

fn rules(patience: Option<u32>) -> Rules {
    let weights = (1..WEIGHTS.len()).filter_map(|n| Some((tenant(n)?, NonZeroU16::new(WEIGHTS[n])?))).collect();
    Rules { patience: patience.and_then(NonZeroU32::new), weights, time_to_answer: Duration::ZERO, learns: false }
}

/// What waits, in no order at all.
struct Model {
    patience: Option<u32>,
    waiting: Vec<Waiting>,
    tags: HashMap<(Priority, usize), f64>,
    virtual_time: HashMap<Priority, f64>,
    passed_over: HashMap<Priority, u32>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    priority: Priority,
    tenant: usize,
    deadline: Option<Instant>,
    arrival: u64,
}

impl Waiting {
    /// Least is most urgent.
    fn urgency(&self) -> (bool, Option<Instant>, u64) {
        (self.deadline.is_none(), self.deadline, self.arrival)
    }
}

impl Model {
    fn of(&self, priority: Priority) -> Vec<Waiting> {
        self.waiting.iter().copied().filter(|waiting| waiting.priority == priority).collect()
    }

    fn virtual_time(&self, priority: Priority) -> f64 {
        self.virtual_time.get(&priority).copied().unwrap_or(0.0)
    }

    fn insert(&mut self, new: Waiting) {
        let key = (new.priority, new.tenant);
        if !self.of(new.priority).iter().any(|waiting| waiting.tenant == new.tenant) {
            let now = self.virtual_time(new.priority);
            let tag = self.tags.get(&key).copied().unwrap_or(now);
            self.tags.insert(key, tag.max(now));
        }
        self.waiting.push(new);
    }

    fn pop(&mut self) -> Option<u64> {
        let mut some = PRIORITIES.into_iter().rev().filter(|&priority| !self.of(priority).is_empty());
        let first = some.next()?;
        let passed_over = |priority| self.passed_over.get(&priority).copied().unwrap_or(0);
        let due = self.patience.and_then(|patience| some.find(|&lower| passed_over(lower) >= patience));
        let priority = due.unwrap_or(first);

        // The tenants' heads, by tag.
        let of = self.of(priority);
        let heads = (0..WEIGHTS.len()).filter_map(|tenant| {
            let its = of.iter().filter(|waiting| waiting.tenant == tenant);
            its.min_by_key(|waiting| waiting.urgency()).copied()
        });
        let tag = |head: &Waiting| self.tags[&(priority, head.tenant)];
        let next =
            heads.min_by(|one, other| tag(one).total_cmp(&tag(other)).then(one.urgency().cmp(&other.urgency())))?;
        let tag = tag(&next);
        self.virtual_time.insert(priority, tag);
        // Weights that divide the unit, so that the model's fractions and the order's whole numbers agree.
        let step = (f64::from(1 << 16) / f64::from(WEIGHTS[next.tenant])).floor();
        self.tags.insert((priority, next.tenant), tag + step);
        for lower in PRIORITIES {
            if lower < priority && !self.of(lower).is_empty() {
                *self.passed_over.entry(lower).or_default() += 1;
            }
        }
        self.passed_over.insert(priority, 0);
        self.remove(next.arrival);
        Some(next.arrival)
    }

    fn remove(&mut self, arrival: u64) {
        self.waiting.retain(|waiting| waiting.arrival != arrival);
        for priority in PRIORITIES {
            if self.of(priority).is_empty() {
                self.tags.retain(|key, _| key.0 != priority);
                self.virtual_time.remove(&priority);
                self.passed_over.remove(&priority);
            }
        }
    }

    /// The last of the tenant with the most waiting for its weight, if there is one such tenant.
    fn least(&self, priority: Priority) -> Option<u64> {
        let of = self.of(priority);
        let load = |tenant: usize| {
            let waiting = of.iter().filter(|waiting| waiting.tenant == tenant).count() as u64;
            waiting * (1 << 16) / u64::from(WEIGHTS[tenant])
        };
        let most = (0..WEIGHTS.len()).map(load).max()?;
        let mut heaviest = (0..WEIGHTS.len()).filter(|&tenant| load(tenant) == most && most > 0);
        let tenant = heaviest.next().filter(|_| heaviest.next().is_none())?;
        let its = of.iter().filter(|waiting| waiting.tenant == tenant);
        its.max_by_key(|waiting| waiting.urgency()).map(|waiting| waiting.arrival)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert {
        priority: usize,
        tenant: usize,
        deadline: Option<u64>,
    },
    Pop,
    /// One of those that wait leaves.
    Leave {
        which: usize,
    },
    Expire {
        until: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..3_usize, 0..4_usize, proptest::option::of(0..40_u64))
            .prop_map(|(priority, tenant, deadline)| Step::Insert { priority, tenant, deadline }),
        3 => Just(Step::Pop),
        1 => (0..1000_usize).prop_map(|which| Step::Leave { which }),
        1 => (0..40_u64).prop_map(|until| Step::Expire { until }),
    ]
}

proptest! {
    #[test]
    fn the_order_is_the_models(
        patience in proptest::option::of(1..4_u32),
        steps in vec(step(), 1..200),
    ) {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut order = Order::new(rules(patience));
        let mut model = Model {
            patience,
            waiting: Vec::new(),
            tags: HashMap::new(),
            virtual_time: HashMap::new(),
            passed_over: HashMap::new(),
        };
        let mut spots: HashMap<u64, Spot> = HashMap::new();
        for (arrival, step) in (0..).zip(steps) {
            match step {
                Step::Insert { priority, tenant: number, deadline } => {
                    let (priority, deadline) = (PRIORITIES[priority], deadline.map(at));
                    let urgency = Urgency { deadline, arrival };
                    spots.insert(arrival, order.insert(priority, tenant(number).as_ref(), urgency));
                    model.insert(Waiting { priority, tenant: number, deadline, arrival });
                }
                Step::Pop => prop_assert_eq!(order.pop().map(|next| next.arrival), model.pop()),
                Step::Leave { which } => if !model.waiting.is_empty() {
                    let left = model.waiting[which % model.waiting.len()].arrival;
                    order.remove(spots[&left]);
                    model.remove(left);
                }
                Step::Expire { until } => while let Some(late) = order.expired(at(until)) {
                    prop_assert!(late.deadline.unwrap() <= at(until));
                    order.remove(spots[&late.arrival]);
                    model.remove(late.arrival);
                }
            }
            prop_assert_eq!(order.len(), model.waiting.len());
            prop_assert_eq!(order.first_deadline(), model.waiting.iter().filter_map(|waiting| waiting.deadline).min());
            let lowest = PRIORITIES.into_iter().find(|&priority| !model.of(priority).is_empty());
            if let Some(lowest) = lowest.filter(|&lowest| lowest < Priority::High)
                && let Some(least) = model.least(lowest)
            {
                prop_assert_eq!(order.least_below(Priority::High).map(|least| least.arrival), Some(least));
            }
        }
        // And to the end.
        while let Some(next) = order.pop() {
            prop_assert_eq!(Some(next.arrival), model.pop());
        }
        prop_assert!(model.waiting.is_empty());
    }

    /// The paper's theorem: while both have requests waiting, what two tenants are served, each over its weight, differs by
    /// no more than one request of each over its weight.
    #[test]
    fn two_tenants_that_wait_are_served_by_their_weights(
        weights in (1..50_u16, 1..50_u16),
        lead in 0..100_u64,
        others in vec(0..5_usize, 300),
    ) {
        let names: [Arc<str>; 2] = ["one".into(), "other".into()];
        let mut rules = rules(None);
        for (name, weight) in names.iter().zip([weights.0, weights.1]) {
            rules.weights.insert(Arc::clone(name), NonZeroU16::new(weight).unwrap());
        }
        let mut order = Order::new(rules);
        let mut owners = HashMap::new();
        let mut arrivals = 0..;
        let mut insert = |order: &mut Order, owners: &mut HashMap<u64, usize>, owner: usize, name: &Arc<str>| {
            let arrival = arrivals.next().unwrap();
            owners.insert(arrival, owner);
            order.insert(Priority::Normal, Some(name), Urgency { deadline: None, arrival });
        };
        // The first has been served for a while before the second comes.
        for _ in 0..lead + 400 {
            insert(&mut order, &mut owners, 0, &names[0]);
        }
        for _ in 0..lead {
            order.pop();
        }
        for _ in 0..400 {
            insert(&mut order, &mut owners, 1, &names[1]);
        }
        let mut served = [0.0_f64; 2];
        for other in others {
            // Some that come and go beside them.
            if other > 0 {
                insert(&mut order, &mut owners, 2, &other.to_string().into());
            }
            let next = order.pop().unwrap();
            let owner = owners[&next.arrival];
            if owner < 2 {
                served[owner] += 1.0 / f64::from([weights.0, weights.1][owner]);
            }
            let apart = (served[0] - served[1]).abs();
            let bound = 1.0 / f64::from(weights.0) + 1.0 / f64::from(weights.1);
            // Virtual time is counted in 65536ths.
            prop_assert!(apart <= bound + 300.0 / 65536.0, "{served:?} at weights {weights:?}");
        }
    }
}

#[test]
fn a_lower_priority_has_its_turn_after_so_many_and_not_before() {
    let mut order = Order::new(rules(Some(4)));
    let mut arrival = 0;
    let mut insert = |order: &mut Order, priority| {
        order.insert(priority, None, Urgency { deadline: None, arrival });
        arrival += 1;
    };
    for priority in [Priority::High, Priority::Normal, Priority::Low] {
        (0..30).for_each(|_| insert(&mut order, priority));
    }
    let turns: String = (0..24).map(|_| ["H", "N", "L"][order.pop().unwrap().arrival as usize / 30]).collect();
    // While Normal has its turn, Low waits for its own, which is due just after.
    assert_eq!(turns, "HHHHNLHHHHNLHHHHNLHHHHNL");

    let mut order = Order::new(rules(None));
    (0..100).for_each(|_| insert(&mut order, Priority::High));
    insert(&mut order, Priority::Low);
    let last = (0..101).map(|_| order.pop().unwrap().arrival).last();
    assert_eq!(last, Some(190));
}

#[test]
fn each_operation_takes_a_logarithm_of_what_waits() {
    /// Comparisons for each operation, with so many waiting.
    fn costs(waiting: u64) -> [u64; 5] {
        let begin = Instant::now();
        let mut order = Order::new(rules(Some(16)));
        // A pattern that visits deadlines, tenants and priorities in no order.
        let scatter = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let urgency = |arrival: u64| {
            let deadline = (!arrival.is_multiple_of(5)).then(|| begin + Duration::from_micros(scatter(arrival)));
            Urgency { deadline, arrival }
        };
        let tenants: Vec<Option<Arc<str>>> = (0..1000).map(tenant).collect();
        let insert = |order: &mut Order, n: u64| {
            let priority = PRIORITIES[(scatter(n) / 7 % 3) as usize];
            order.insert(priority, tenants[(scatter(n) / 3 % 1000) as usize].as_ref(), urgency(n))
        };
        let mut spots: Vec<Spot> = (0..waiting).map(|n| insert(&mut order, n)).collect();

        let many = 1000;
        let begun = count::total();
        let each = |from: u64| (count::total() - from) / many;
        let mut at = begun;
        let next = |at: &mut u64| std::mem::replace(at, count::total());
        spots.extend((waiting..waiting + many).map(|n| insert(&mut order, n)));
        let inserted = each(next(&mut at));
        for n in 0..many {
            order.remove(spots[(n * (waiting / many)) as usize]);
        }
        let removed = each(next(&mut at));
        for _ in 0..many {
            order.pop().unwrap();
        }
        let popped = each(next(&mut at));
        for _ in 0..many {
            assert_eq!(order.expired(begin), None);
        }
        let looked = each(next(&mut at));
        for _ in 0..many {
            order.least_below(Priority::High).unwrap();
        }
        [inserted, removed, popped, looked, each(at)]
    }

    let (few, many) = (costs(10_000), costs(100_000));
    // Ten times as many are one level more of the trees, in which up to eleven are looked at, of the six that an operation
    // changes at the most.
    for (few, many) in few.into_iter().zip(many) {
        assert!(many <= few + 6 * 11, "{few} comparisons with 10 000 waiting, {many} with 100 000");
        assert!(many <= 300, "{many} comparisons with 100 000 waiting");
    }
}

#[test]
fn tenants_that_come_once_are_forgotten() {
    let mut order = Order::new(rules(None));
    // One that always waits, so that there is always something waiting.
    let insert = |order: &mut Order, name: &str, arrival| {
        order.insert(Priority::Normal, Some(&name.into()), Urgency { deadline: None, arrival })
    };
    for n in 0..20_000 {
        insert(&mut order, "always", 2 * n);
        insert(&mut order, &format!("invented {n}"), 2 * n + 1);
        order.pop();
    }
    let known = order.known_tenants();
    assert!(known <= order.len() + 4096, "{known} tenants are known");
}

#[test]
fn the_pace_is_that_of_the_turns_while_somebody_waits() {
    let mut pace = Pace::default();
    let begin = Instant::now();
    let at = |millis| begin + Duration::from_millis(millis);
    assert_eq!(pace.time(3), None);
    pace.turn(at(0), false);
    assert_eq!(pace.time(3), None, "one turn is no pace");
    pace.turn(at(10), false);
    assert_eq!(pace.time(3), Some(Duration::from_millis(40)));
    pace.turn(at(20), true);
    // A pause in which nobody waited is none of the inner service's.
    pace.turn(at(5000), false);
    assert_eq!(pace.time(0), Some(Duration::from_millis(10)));
    for n in 1..100 {
        pace.turn(at(5000 + 30 * n), false);
    }
    let slower = pace.time(0).unwrap();
    assert!(slower > Duration::from_millis(29) && slower <= Duration::from_millis(30), "{slower:?}");
}
