//! The contract of `tests/support/checks.rs` over one CUDA device with one worker and no queue.

use tower_kernels::backends::cuda::CudaBackend;
use tower_kernels::service::{Buffer, KernelError, KernelRequest, KernelService, LaunchContext};

use crate::probe::{Bench, in_flight, request};
use crate::stopping::{one, until_cancelled};
use crate::support::checks::{self, Subject};

struct OneLane {
    service: KernelService<CudaBackend>,
    backend: CudaBackend,
}

impl Subject for OneLane {
    type Request = KernelRequest;
    type Service = KernelService<CudaBackend>;

    fn service(&self) -> Self::Service {
        self.service.clone()
    }
    fn quick(&self) -> KernelRequest {
        request("test/one")
    }
    fn endless(&self) -> KernelRequest {
        request("test/until-cancelled")
    }
    fn failing(&self) -> KernelRequest {
        request("test/fails")
    }
    fn in_use(&self) -> usize {
        in_flight(&self.backend)
    }
}

fn fails(_: &mut LaunchContext<'_>) -> Result<Buffer<f64>, KernelError> {
    Err(KernelError::kernel("as the test demands"))
}

fn subject() -> OneLane {
    let bench = Bench::with_queue(1, 0).with("test/one", one).with("test/until-cancelled", until_cancelled);
    let bench = bench.with("test/fails", fails);
    OneLane { service: bench.service(), backend: bench.backend.clone() }
}

macro_rules! contract {
    ($($check:ident)*) => {
        crate::tests! { $($check)* }

        $(fn $check() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let subject = subject();
            runtime.block_on(checks::$check(subject));
        })*
    };
}

contract! {
    polled_ready_twice_it_reserves_once
    a_clone_starts_without_readiness
    ready_and_dropped_uncalled_gives_the_place_back
    a_future_dropped_unpolled_gives_the_place_back
    a_future_dropped_after_one_poll_gives_the_place_back
    an_answer_gives_the_place_back_before_the_future_is_dropped
    a_failure_gives_the_place_back
    the_service_that_was_polled_ready_is_the_one_that_is_called
    full_is_pending_with_a_waker_and_without_waking_itself
    waiting_for_an_answer_does_not_wake_itself
    it_serves_after_everything_was_dropped
    it_crosses_threads
}
