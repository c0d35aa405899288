//! Fair shares of the places, by tenant.
//!
//! Who asks is not known before `call`, so that is where the place is taken. A call for which there is none waits in its
//! own future, and lets go what the inner service has reserved for it meanwhile; the service waits for readiness again
//! once it has its place. `poll_ready` is the inner service's alone: put what has places of its own, such as a
//! [`KernelService`](crate::service::KernelService), inside with no fewer of them than this layer has, or calls queue there, and
//! not fairly.
//!
//! * **While nobody waits, anyone takes what is free**: a tenant that is alone has the whole machine.
//! * **A place that becomes free goes to the waiting tenant that holds the fewest**; of several to the one whose last
//!   turn was longest ago, and within a tenant to who came first. So while others wait no tenant is given more than its
//!   share, and those that hold more come down to it as their calls end. Nothing is taken away from a call that runs.
//! * **The waiting room is shared out, too**: a tenant may have as many calls waiting as there are places left in the
//!   room. One alone fills half of it, two a third each, and there is always room for another tenant's first call. (It is
//!   the dynamic threshold of switches with shared memory: Choudhury and Hahne, IEEE/ACM Transactions on Networking 6,
//!   1998.) A call beyond that is refused as [`Overloaded`](crate::error::ErrorKind::Overloaded).
//!
//! Requests without a tenant are one tenant together, so that leaving it out gains nothing. Only tenants that have calls
//! here are known, so their number needs no bound of its own.
//!
//! ```
//! use std::time::Duration;
//! use tower::{Layer, ServiceExt, service_fn};
//! use tower_kernels::error::{Classify, ErrorKind};
//! use tower_kernels::layers::ConcurrencyLayer;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let layer = ConcurrencyLayer::new(1).per_tenant(Duration::from_secs(5), 2);
//! let slow = service_fn(|_: http::Request<()>| async {
//!     tokio::time::sleep(Duration::from_secs(1)).await;
//!     Ok::<_, std::convert::Infallible>(http::Response::new(()))
//! });
//! let service = layer.layer(slow);
//!
//! let calls = [(); 3].map(|()| tokio::spawn(service.clone().oneshot(http::Request::new(()))));
//! let [first, second, third] = calls;
//! assert!(first.await.unwrap().is_ok() && second.await.unwrap().is_ok());
//! // The room for two is half full, and the other half is for others.
//! assert_eq!(third.await.unwrap().unwrap_err().kind(), ErrorKind::Overloaded);
//! # }
//! ```
//!
//! # Cancel safety
//!
//! A call that is dropped while it waits leaves the queue; a place that was handed to it meanwhile goes to the next.

mod error;
mod future;
mod layer;
mod service;
mod shares;

use std::time::Duration;

use super::shared::Shared;
use shares::Shares;

pub use self::error::FairError;
pub use self::future::ResponseFuture;
pub use self::layer::FairLayer;
pub use self::service::Fair;

/// What all services of one layer share.
#[derive(Debug)]
struct Line<L> {
    shared: std::sync::Arc<Shared<L, Shares>>,
    max_wait: Duration,
}

// By hand: a clone needs no `L: Clone`.
impl<L> Clone for Line<L> {
    fn clone(&self) -> Self {
        Self { shared: std::sync::Arc::clone(&self.shared), max_wait: self.max_wait }
    }
}
