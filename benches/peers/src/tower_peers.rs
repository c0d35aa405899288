//! tower's own layers.

use std::time::Duration;

use tower::limit::{ConcurrencyLimit, RateLimit, rate::Rate};
use tower::load_shed::LoadShed;
use tower::timeout::Timeout;

use crate::inner::{PLAIN, Plain, job};
use crate::{Calls, Case, drive, in_runtime};

pub(crate) const CASES: &[Case] = &[
    Case { name: "tower Timeout", over: Some(PLAIN), build: timeout },
    Case { name: "tower RateLimit", over: Some(PLAIN), build: rate_limit },
    Case { name: "tower ConcurrencyLimit", over: Some(PLAIN), build: concurrency_limit },
    Case { name: "tower LoadShed", over: Some(PLAIN), build: load_shed },
];

fn timeout() -> Calls {
    in_runtime(|| drive(Timeout::new(Plain, Duration::from_secs(30)), job))
}

fn rate_limit() -> Calls {
    in_runtime(|| {
        let rate = Rate::new(u64::MAX, Duration::from_secs(3600));
        drive(RateLimit::new(Plain, rate), job)
    })
}

fn concurrency_limit() -> Calls {
    drive(ConcurrencyLimit::new(Plain, 64), job)
}

fn load_shed() -> Calls {
    drive(LoadShed::new(Plain), job)
}
