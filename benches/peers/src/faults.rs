//! Layers for services that fail or are slow, beside those of tower and of tower-resilience.

use std::time::Duration;

use tower::hedge::Hedge;
use tower::retry::Retry;
use tower::retry::budget::{Budget as _, TpsBudget};
use tower::{Layer, service_fn};
use tower_kernels::layers::{CircuitBreakerLayer, FallbackLayer, HedgeLayer, RetryLayer};
use tower_kernels::middleware::circuit_breaker::CircuitBreakerConfig;
use tower_kernels::request::RequestContext;
use tower_kernels::service::KernelRequest;
use tower_resilience_circuitbreaker::CircuitBreakerLayer as Resilience;

use crate::inner::{Job, KERNEL, Kernel, PLAIN, Plain, job, kernel_request};
use crate::{Calls, Case, drive, in_runtime};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "CircuitBreakerLayer, plain request",
        over: Some(PLAIN),
        build: || breaker(CircuitBreakerLayer::new()),
    },
    Case {
        name: "CircuitBreakerLayer with slow calls, plain request",
        over: Some(PLAIN),
        build: || {
            breaker(CircuitBreakerLayer::with_config(CircuitBreakerConfig {
                slow_call_duration: Some(Duration::from_secs(1)),
                slow_call_rate: 0.5,
                ..Default::default()
            }))
        },
    },
    Case {
        name: "CircuitBreakerLayer::per_operation, plain request",
        over: Some(PLAIN),
        build: || drive(CircuitBreakerLayer::new().per_operation().layer(Plain), job),
    },
    Case { name: "tower-resilience circuit breaker", over: Some(PLAIN), build: resilience },
    Case { name: "RetryLayer, plain request", over: Some(PLAIN), build: || retry(true) },
    Case { name: "RetryLayer, plain request that may not run twice", over: Some(PLAIN), build: || retry(false) },
    Case {
        name: "RetryLayer, kernel request",
        over: Some(KERNEL),
        build: || drive(RetryLayer::new(|_: &KernelRequest| true).layer(Kernel), kernel_request),
    },
    Case { name: "tower Retry", over: Some(PLAIN), build: tower_retry },
    Case { name: "FallbackLayer, plain request", over: Some(PLAIN), build: fallback },
    Case {
        name: "HedgeLayer, learned, plain request",
        over: Some(PLAIN),
        build: || drive(HedgeLayer::new(|_: &Job| true).layer(Plain), job),
    },
    Case {
        name: "HedgeLayer, fixed, plain request",
        over: Some(PLAIN),
        build: || drive(HedgeLayer::new(|_: &Job| true).after(Duration::from_secs(1)).layer(Plain), job),
    },
    Case { name: "tower Hedge", over: Some(PLAIN), build: tower_hedge },
];

fn breaker(layer: CircuitBreakerLayer) -> Calls {
    drive(layer.layer(Plain), job)
}

/// Of the same settings as ours.
fn resilience() -> Calls {
    in_runtime(|| {
        let layer = Resilience::builder()
            .failure_rate_threshold(0.5)
            .sliding_window_size(100)
            .minimum_number_of_calls(20)
            .wait_duration_in_open(Duration::from_secs(1))
            .build()
            .expect("a circuit breaker");
        drive(layer.layer(Plain), job)
    })
}

fn retry(twice: bool) -> Calls {
    drive(RetryLayer::new(move |job: &Job| twice && job.deadline().is_none()).layer(Plain), job)
}

/// Tries again whatever fails, within tower's own budget.
#[derive(Clone)]
struct Policy(std::sync::Arc<TpsBudget>);

impl<T, E> tower::retry::Policy<Job, T, E> for Policy {
    type Future = std::future::Ready<()>;

    fn retry(&mut self, _: &mut Job, result: &mut Result<T, E>) -> Option<Self::Future> {
        match result {
            Ok(_) => {
                self.0.deposit();
                None
            }
            Err(_) => self.0.withdraw().then(|| std::future::ready(())),
        }
    }

    fn clone_request(&mut self, job: &Job) -> Option<Job> {
        Some(job.clone())
    }
}

impl tower::hedge::Policy<Job> for Policy {
    fn clone_request(&self, job: &Job) -> Option<Job> {
        Some(job.clone())
    }

    fn can_retry(&self, _: &Job) -> bool {
        true
    }
}

fn policy() -> Policy {
    Policy(TpsBudget::default().into())
}

fn tower_retry() -> Calls {
    drive(Retry::new(policy(), Plain), job)
}

fn tower_hedge() -> Calls {
    in_runtime(|| drive(Hedge::new(Plain, policy(), 100, 0.95, Duration::from_secs(10)), job))
}

fn fallback() -> Calls {
    let other = service_fn(|_: Job| std::future::ready(Err(std::io::Error::other("not asked"))));
    drive(FallbackLayer::new(other).layer(Plain), job)
}
