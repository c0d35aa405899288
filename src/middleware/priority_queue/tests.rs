//! The order, against a model that looks at everything each time, and what it costs.

use std::collections::HashMap;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;

use super::schedule::{QueuePosition, QueuedCall, Schedule, comparisons};
use super::service_times::ServiceRate;
use super::shared::Settings;
use crate::request::{Priority, Share};

const PRIORITIES: [Priority; 3] = [Priority::Low, Priority::Normal, Priority::High];

/// The weights of tenants 1, 2 and 3; 0 is no tenant.
const WEIGHTS: [u16; 4] = [1, 1, 2, 5];

fn tenant(number: usize) -> Option<Arc<str>> {
    (number > 0).then(|| number.to_string().into())
}

fn settings() -> Settings {
    let weights = (1..WEIGHTS.len()).filter_map(|n| Some((tenant(n)?, NonZeroU16::new(WEIGHTS[n])?))).collect();
    Settings { weights, ..Settings::new(0) }
}

/// What waits, in no order at all.
struct Model {
    max_passed_over: Option<u32>,
    waiting: Vec<Waiting>,
    tags: HashMap<usize, f64>,
    virtual_time: f64,
    passed_over: HashMap<(usize, Priority), u32>,
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
    fn of(&self, tenant: usize, priority: Priority) -> Vec<Waiting> {
        let all = self.waiting.iter().copied();
        all.filter(|waiting| waiting.tenant == tenant && waiting.priority == priority).collect()
    }

    /// The most urgent of a tenant and a priority.
    fn first(&self, tenant: usize, priority: Priority) -> Option<Waiting> {
        self.of(tenant, priority).into_iter().min_by_key(Waiting::urgency)
    }

    fn insert(&mut self, new: Waiting) {
        if !self.waiting.iter().any(|waiting| waiting.tenant == new.tenant) {
            let tag = self.tags.get(&new.tenant).copied().unwrap_or(0.0);
            self.tags.insert(new.tenant, tag.max(self.virtual_time));
        }
        self.waiting.push(new);
    }

    fn pop(&mut self) -> Option<u64> {
        // Each tenant's most urgent, by the tenant's tag.
        let from_high = || PRIORITIES.into_iter().rev();
        let heads = (0..WEIGHTS.len()).filter_map(|tenant| from_high().find_map(|p| self.first(tenant, p)));
        let tag = |head: &Waiting| self.tags[&head.tenant];
        let tenant = heads
            .min_by(|one, other| tag(one).total_cmp(&tag(other)).then(one.urgency().cmp(&other.urgency())))?
            .tenant;
        self.virtual_time = self.tags[&tenant];

        // Of its requests, by priority.
        let mut some = from_high().filter(|&priority| !self.of(tenant, priority).is_empty());
        let first = some.next()?;
        let passed_over = |priority| self.passed_over.get(&(tenant, priority)).copied().unwrap_or(0);
        let due =
            self.max_passed_over.and_then(|max_passed_over| some.find(|&lower| passed_over(lower) >= max_passed_over));
        let priority = due.unwrap_or(first);
        let next = self.first(tenant, priority)?;
        // Weights that divide the unit, so that the model's fractions and the order's whole numbers agree.
        let step = (f64::from(1 << 16) / f64::from(WEIGHTS[tenant])).floor();
        *self.tags.get_mut(&tenant)? += step;
        for lower in PRIORITIES {
            if lower < priority && !self.of(tenant, lower).is_empty() {
                *self.passed_over.entry((tenant, lower)).or_default() += 1;
            }
        }
        self.passed_over.insert((tenant, priority), 0);
        self.remove(next.arrival);
        Some(next.arrival)
    }

    fn remove(&mut self, arrival: u64) {
        self.waiting.retain(|waiting| waiting.arrival != arrival);
        if self.waiting.is_empty() {
            self.tags.clear();
            self.virtual_time = 0.0;
        }
        let left = std::mem::take(&mut self.passed_over);
        self.passed_over = left.into_iter().filter(|((tenant, p), _)| !self.of(*tenant, *p).is_empty()).collect();
    }

    /// The call displaced by one of a tenant with nothing waiting: the least urgent of the tenant with the most waiting
    /// for its weight, if there is one such tenant.
    fn least(&self) -> Option<u64> {
        let load = |tenant: usize| {
            let waiting = self.waiting.iter().filter(|waiting| waiting.tenant == tenant).count() as u64;
            waiting * (1 << 16) / u64::from(WEIGHTS[tenant])
        };
        let most = (0..WEIGHTS.len()).map(load).max()?;
        let mut heaviest = (0..WEIGHTS.len()).filter(|&tenant| load(tenant) == most && most > 1 << 16);
        let tenant = heaviest.next().filter(|_| heaviest.next().is_none())?;
        let its = PRIORITIES.into_iter().map(|priority| self.of(tenant, priority)).find(|its| !its.is_empty())?;
        its.into_iter().max_by_key(Waiting::urgency).map(|waiting| waiting.arrival)
    }
}

fn call(deadline: Option<Instant>, arrival: u64) -> QueuedCall {
    QueuedCall::new(deadline, arrival, None, 0)
}

fn schedule(max_passed_over: Option<u32>) -> Schedule<()> {
    Schedule::new(max_passed_over.and_then(NonZeroU32::new))
}

/// The position of a call in a queue with the given settings.
fn position(settings: &Settings, tenant: Option<&Arc<str>>, priority: Priority, call: QueuedCall) -> QueuePosition {
    let (tenant, weight) = settings.tenant(tenant, None);
    QueuePosition { tenant, weight, priority, call }
}

/// Returns the arrival of the next call.
fn pop(schedule: &mut Schedule<()>) -> Option<u64> {
    schedule.pop().map(|(position, ())| position.call.arrival())
}

#[derive(Clone, Debug)]
enum Step {
    Insert {
        priority: usize,
        tenant: usize,
        deadline: Option<u64>,
    },
    Pop,
    /// A waiting call is cancelled.
    Cancel {
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
        1 => (0..1000_usize).prop_map(|which| Step::Cancel { which }),
        1 => (0..40_u64).prop_map(|until| Step::Expire { until }),
    ]
}

proptest! {
    #[test]
    fn the_order_is_the_models(
        max_passed_over in proptest::option::of(1..4_u32),
        steps in vec(step(), 1..200),
    ) {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let (settings, mut schedule) = (settings(), schedule(max_passed_over));
        let mut model = Model {
            max_passed_over,
            waiting: Vec::new(),
            tags: HashMap::new(),
            virtual_time: 0.0,
            passed_over: HashMap::new(),
        };
        for (arrival, step) in (0..).zip(steps) {
            match step {
                Step::Insert { priority, tenant: number, deadline } => {
                    let (priority, deadline) = (PRIORITIES[priority], deadline.map(at));
                    schedule.insert(position(&settings, tenant(number).as_ref(), priority, call(deadline, arrival)), ());
                    model.insert(Waiting { priority, tenant: number, deadline, arrival });
                }
                Step::Pop => prop_assert_eq!(pop(&mut schedule), model.pop()),
                Step::Cancel { which } => if !model.waiting.is_empty() {
                    let left = model.waiting[which % model.waiting.len()].arrival;
                    prop_assert!(schedule.remove(left).is_some());
                    model.remove(left);
                }
                Step::Expire { until } => while let Some(late) = schedule.expired(at(until)) {
                    let (position, ()) = schedule.remove(late).unwrap();
                    prop_assert!(position.call.deadline().unwrap() <= at(until));
                    model.remove(late);
                }
            }
            prop_assert_eq!(schedule.is_empty(), model.waiting.is_empty());
            prop_assert_eq!(schedule.first_deadline(), model.waiting.iter().filter_map(|waiting| waiting.deadline).min());
            for priority in PRIORITIES {
                let more = model.waiting.iter().filter(|waiting| waiting.priority >= priority).count();
                prop_assert_eq!(schedule.len_from(priority), more);
            }
            if let Some(least) = model.least() {
                let stranger = "stranger".into();
                let new = position(&settings, Some(&stranger), Priority::Low, call(None, u64::MAX));
                prop_assert_eq!(schedule.displaceable(&new).map(|(least, _)| least), Some(least));
            }
        }
        // And to the end.
        while let Some(next) = pop(&mut schedule) {
            prop_assert_eq!(Some(next), model.pop());
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
        let mut settings = settings();
        for (name, weight) in names.iter().zip([weights.0, weights.1]) {
            settings.weights.insert(Arc::clone(name), NonZeroU16::new(weight).unwrap());
        }
        let mut schedule = schedule(None);
        let mut owners = HashMap::new();
        let mut arrivals = 0..;
        let mut insert = |schedule: &mut Schedule<()>, owners: &mut HashMap<u64, usize>, owner: usize, name: &Arc<str>| {
            let arrival = arrivals.next().unwrap();
            owners.insert(arrival, owner);
            schedule.insert(position(&settings, Some(name), Priority::Normal, call(None, arrival)), ());
        };
        // The first has been served for a while before the second comes.
        for _ in 0..lead + 400 {
            insert(&mut schedule, &mut owners, 0, &names[0]);
        }
        for _ in 0..lead {
            schedule.pop();
        }
        for _ in 0..400 {
            insert(&mut schedule, &mut owners, 1, &names[1]);
        }
        let mut served = [0.0_f64; 2];
        for other in others {
            // Some that come and go beside them.
            if other > 0 {
                insert(&mut schedule, &mut owners, 2, &other.to_string().into());
            }
            let owner = owners[&pop(&mut schedule).unwrap()];
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
    let mut schedule = self::schedule(Some(4));
    let settings = settings();
    let mut arrival = 0;
    let mut insert = |schedule: &mut Schedule<()>, priority| {
        schedule.insert(position(&settings, None, priority, call(None, arrival)), ());
        arrival += 1;
    };
    for priority in [Priority::High, Priority::Normal, Priority::Low] {
        (0..30).for_each(|_| insert(&mut schedule, priority));
    }
    let turns: String = (0..24).map(|_| ["H", "N", "L"][pop(&mut schedule).unwrap() as usize / 30]).collect();
    // While Normal has its turn, Low waits for its own, which is due just after.
    assert_eq!(turns, "HHHHNLHHHHNLHHHHNLHHHHNL");

    let mut schedule = self::schedule(None);
    (0..100).for_each(|_| insert(&mut schedule, Priority::High));
    insert(&mut schedule, Priority::Low);
    let last = (0..101).map(|_| pop(&mut schedule).unwrap()).last();
    assert_eq!(last, Some(190));
}

#[test]
fn a_tenants_priority_takes_nothing_from_another_tenant() {
    let (settings, mut schedule) = (settings(), schedule(None));
    let [urgent, patient]: [Arc<str>; 2] = ["urgent".into(), "patient".into()];
    for arrival in 0..20 {
        schedule.insert(position(&settings, Some(&urgent), Priority::High, call(None, arrival)), ());
        schedule.insert(position(&settings, Some(&patient), Priority::Low, call(None, 100 + arrival)), ());
    }
    let turns: Vec<_> = (0..20).map(|_| pop(&mut schedule).unwrap()).collect();
    assert_eq!(turns.iter().filter(|&&arrival| arrival >= 100).count(), 10, "{turns:?}");
    // Nor does it displace a call of a tenant that has less waiting.
    let new = position(&settings, Some(&urgent), Priority::High, call(None, u64::MAX));
    assert_eq!(schedule.displaceable(&new), None);
}

#[test]
fn shares_are_of_time_where_it_is_known_how_long_requests_take() {
    let (settings, mut schedule) = (settings(), schedule(None));
    let costs = [(1_u32, 1_u16, 50), (2, 1, 1), (3, 2, 5)];
    for arrival in 0..3000 {
        for (number, weight, millis) in costs {
            let share = Share::new(number, NonZeroU16::new(weight).unwrap());
            let arrival = 10 * arrival + u64::from(number);
            let call = QueuedCall::new(None, arrival, Some(Duration::from_millis(millis)), 0);
            let (tenant, weight) = settings.tenant(None, Some(share));
            schedule.insert(QueuePosition { tenant, weight, priority: Priority::Normal, call }, ());
        }
    }
    let mut served = [0; 4];
    let mut time = 0;
    while time < 4000 {
        let key = pop(&mut schedule).unwrap() % 10;
        let millis = costs[key as usize - 1].2;
        served[key as usize] += millis;
        time += millis;
    }
    for (key, expected) in [(1, 1000_u64), (2, 1000), (3, 2000)] {
        assert!(served[key].abs_diff(expected) <= 60, "{served:?}");
    }
}

#[test]
fn each_operation_takes_a_logarithm_of_what_waits() {
    /// Comparisons for each operation, with so many waiting.
    fn costs(waiting: u64) -> [u64; 5] {
        let begin = Instant::now();
        let (settings, mut schedule) = (settings(), schedule(Some(16)));
        // A pattern that visits deadlines, tenants and priorities in no schedule.
        let scatter = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let call = |arrival: u64| {
            let deadline = (!arrival.is_multiple_of(5)).then(|| begin + Duration::from_micros(scatter(arrival)));
            call(deadline, arrival)
        };
        let tenants: Vec<Option<Arc<str>>> = (0..1000).map(tenant).collect();
        let insert = |schedule: &mut Schedule<()>, n: u64| {
            let priority = PRIORITIES[(scatter(n) / 7 % 3) as usize];
            let tenant = tenants[(scatter(n) / 3 % 1000) as usize].as_ref();
            schedule.insert(position(&settings, tenant, priority, call(n)), ());
        };
        (0..waiting).for_each(|n| insert(&mut schedule, n));

        let (many, stranger) = (1000, "stranger".into());
        let new = position(&settings, Some(&stranger), Priority::High, call(u64::MAX));
        let begun = comparisons::total();
        let each = |from: u64| (comparisons::total() - from) / many;
        let mut at = begun;
        let next = |at: &mut u64| std::mem::replace(at, comparisons::total());
        (waiting..waiting + many).for_each(|n| insert(&mut schedule, n));
        let inserted = each(next(&mut at));
        for n in 0..many {
            schedule.remove(n * (waiting / many)).unwrap();
        }
        let removed = each(next(&mut at));
        for _ in 0..many {
            schedule.pop().unwrap();
        }
        let popped = each(next(&mut at));
        for _ in 0..many {
            assert_eq!(schedule.expired(begin), None);
        }
        let looked = each(next(&mut at));
        for _ in 0..many {
            schedule.displaceable(&new).unwrap();
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
    let (settings, mut schedule) = (settings(), schedule(None));
    // One that always waits, so that there is always something waiting.
    let insert = |schedule: &mut Schedule<()>, name: &str, arrival| {
        schedule.insert(position(&settings, Some(&name.into()), Priority::Normal, call(None, arrival)), ());
    };
    for n in 0..20_000 {
        insert(&mut schedule, "always", 2 * n);
        insert(&mut schedule, &format!("invented {n}"), 2 * n + 1);
        schedule.pop();
    }
    let known = schedule.known_tenants();
    assert!(known <= schedule.len_from(Priority::Low) + 4096, "{known} tenants are known");
}

#[test]
fn the_service_rate_is_that_of_the_turns_while_calls_wait() {
    let mut rate = ServiceRate::default();
    let begin = Instant::now();
    let at = |millis| begin + Duration::from_millis(millis);
    assert_eq!(rate.time_for(3), None);
    rate.observe(at(0), false);
    assert_eq!(rate.time_for(3), None, "one turn is no rate");
    rate.observe(at(10), false);
    assert_eq!(rate.time_for(3), Some(Duration::from_millis(40)));
    rate.observe(at(20), true);
    // A pause in which no call waited says nothing about the inner service.
    rate.observe(at(5000), false);
    assert_eq!(rate.time_for(0), Some(Duration::from_millis(10)));
    for n in 1..100 {
        rate.observe(at(5000 + 30 * n), false);
    }
    let slower = rate.time_for(0).unwrap();
    assert!(slower > Duration::from_millis(29) && slower <= Duration::from_millis(30), "{slower:?}");
}
