//! The bytes of a request's body, as far as both of its forms read them alike.

use std::error::Error;
use std::future::Future;
use std::time::Instant;

use bytes::Bytes;
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::Problem;
use crate::error::{ErrorKind, find};
use crate::service::KernelError;

/// The whole body in one piece.
pub(super) async fn whole<B>(body: B, max: usize, deadline: Instant) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    announced(&body, max)?;
    let collect = async {
        let body = Limited::new(body, max).collect().await;
        body.map_err(|error| broken(&*error, max))
    };
    Ok(within(deadline, collect).await?.to_bytes())
}

/// Refuses a body that is too large by its own account, before the client is told to go on and send it.
pub(super) fn announced(body: &impl Body, max: usize) -> Result<(), Problem> {
    if body.size_hint().lower() > max as u64 { Err(too_large(max)) } else { Ok(()) }
}

pub(super) fn too_large(max: usize) -> Problem {
    Problem::new(ErrorKind::TooLarge, format!("the body is of more than {max} bytes")).closing()
}

/// Why there is no more of a body: this limit, one that a layer in front has set, or the client.
pub(super) fn broken(error: &(dyn Error + 'static), max: usize) -> Problem {
    if find::<LengthLimitError>(error).is_some() {
        return too_large(max);
    }
    Problem::new(ErrorKind::InvalidArgument, format!("the body broke off: {error}"))
}

/// Ends work on a request that has come whole, by its deadline.
pub(super) async fn in_time<T>(deadline: Instant, work: impl Future<Output = T>) -> Result<T, Problem> {
    let timed = tokio::time::timeout_at(deadline.into(), work).await;
    timed.map_err(|_| Problem::of(&KernelError::DeadlineExceeded { started: false }))
}

pub(super) async fn within<T>(
    deadline: Instant,
    reading: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    match tokio::time::timeout_at(deadline.into(), reading).await {
        Ok(result) => result,
        Err(_) => Err(Problem::request_timeout("the body did not come within the deadline")),
    }
}
