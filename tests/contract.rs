//! What every service in this crate keeps: the items of Tower's contract that toy middleware gets wrong.
//!
//! [`checks`] holds one function for each item, over a [`Subject`]: a factory of services that share one place to run.
//! `contract!` makes a test of each, for each subject.

#[cfg(feature = "auth")]
#[path = "contract/authenticate.rs"]
mod authenticate;
#[path = "contract/backends.rs"]
mod backends;
#[path = "contract/batch.rs"]
mod batch;
#[path = "contract/boxed.rs"]
mod boxed;
#[path = "contract/checks.rs"]
mod checks;
#[path = "contract/circuit_breaker.rs"]
mod circuit_breaker;
#[path = "contract/concurrency.rs"]
mod concurrency;
#[path = "contract/custom_backends.rs"]
mod custom_backends;
#[path = "contract/fallback.rs"]
mod fallback;
#[path = "contract/hedge.rs"]
mod hedge;
#[path = "contract/layers.rs"]
mod layers;
#[path = "contract/load_shed.rs"]
mod load_shed;
#[path = "contract/pipeline.rs"]
mod pipeline;
#[path = "contract/priority_queue.rs"]
mod priority_queue;
#[path = "probe/mod.rs"]
mod probe;
#[path = "contract/repeats.rs"]
mod repeats;
#[path = "contract/retry.rs"]
mod retry;

/// A test for each check, over the subject that `$subject` makes.
macro_rules! contract {
    ($name:ident, $subject:expr) => {
        mod $name {
            #[allow(unused_imports, reason = "not every subject is built from what its file has in scope")]
            use super::*;

            contract!(@tests $subject;
                polled_ready_twice_it_reserves_once,
                a_clone_starts_without_readiness,
                ready_and_dropped_uncalled_gives_the_place_back,
                a_future_dropped_unpolled_gives_the_place_back,
                a_future_dropped_after_one_poll_gives_the_place_back,
                an_answer_gives_the_place_back_before_the_future_is_dropped,
                a_failure_gives_the_place_back,
                the_service_that_was_polled_ready_is_the_one_that_is_called,
                full_is_pending_with_a_waker_and_without_waking_itself,
                waiting_for_an_answer_does_not_wake_itself,
                it_serves_after_everything_was_dropped,
                it_crosses_threads,
            );
        }
    };
    (@tests $subject:expr; $($check:ident,)*) => {
        $(
            #[tokio::test(start_paused = true)]
            async fn $check() {
                crate::checks::$check($subject).await;
            }
        )*
    };
}
pub(crate) use contract;
