//! `PutOperand`: receives an operand in chunks, and stores it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_util::Stream;
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout_at};
use tonic::Status;
use tracing::Instrument;

use super::call_context::CallContext;
use super::operands::{operand, put_options, rejection};
use super::proto::put_operand_request::Part;
use super::proto::put_operand_response::Outcome;
use super::proto::{Operand, PutOperandPhase, PutOperandProgress, PutOperandRequest, PutOperandResponse};
use super::received_value::ReceivedValue;
use super::shutdown::{StreamShutdown, unavailable};
use super::status::Rejection;
use super::wire::Requests;
use crate::error::ErrorKind;
use crate::panics::Panicked;
use crate::servers::body_memory::BodyMemory;
use crate::servers::operands::{NewOperand, store_operand};
use crate::servers::slow_body::SlowBody;
use crate::service::{HostReservation, InvalidInput, KernelError, Operands};
use crate::sync::Mutex;

/// Minimum time between two messages of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Bytes that are copied before other tasks may run: about 100 µs.
const PIECE: usize = 1 << 20;

/// Limits of one upload.
#[derive(Clone, Copy, Debug)]
pub(super) struct UploadLimits {
    /// Maximum size of an operand, in bytes.
    pub(super) max_size: usize,
    /// Maximum time of an upload.
    pub(super) timeout: Duration,
}

/// The response stream of one call of `PutOperand`.
///
/// The upload runs in a task of its own, so that it does not wait for a client that does not read. Progress that was not
/// read is replaced by newer progress. Dropping the stream cancels the upload.
#[derive(Debug)]
pub(super) struct PutResponses {
    progress: Arc<Mutex<PutOperandProgress>>,
    /// The progress that was sent last.
    sent: Option<PutOperandProgress>,
    interval: Interval,
    /// The task; aborted on drop. Empty once its result has been sent.
    upload: JoinSet<Result<Operand, Status>>,
}

impl PutResponses {
    /// Starts to receive the operand.
    pub(super) fn new(
        operands: Operands,
        limits: UploadLimits,
        mut context: CallContext,
        requests: Requests<PutOperandRequest>,
        shutdown: &StreamShutdown,
    ) -> Self {
        let phase = PutOperandPhase::Receiving.into();
        let progress = Arc::new(Mutex::new(PutOperandProgress { received_bytes: 0, phase }));
        let deadline = context.metadata.limit_timeout(limits.timeout);
        let memory = context.memory.of_upload();
        let (slow, max_size) = (SlowBody::default(), limits.max_size);
        let upload =
            Upload { operands, context, requests, max_size, deadline, memory, slow, progress: Arc::clone(&progress) };
        let mut interval = interval(PROGRESS_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut task = JoinSet::new();
        task.spawn(upload.run(shutdown.clone()).in_current_span());
        Self { progress, sent: None, interval, upload: task }
    }
}

impl Stream for PutResponses {
    type Item = Result<PutOperandResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let respond = |outcome| PutOperandResponse { outcome: Some(outcome) };
        if let Poll::Ready(ended) = this.upload.poll_join_next(cx) {
            return Poll::Ready(ended.map(|ended| {
                match ended {
                    Ok(stored) => stored.map(Outcome::Operand).map(respond),
                    // `Panicked` drops the payload where a panic in its `drop` does no harm.
                    Err(error) => Err(match error.try_into_panic() {
                        Ok(payload) => Rejection::panicked(&Panicked::new(payload)),
                        Err(_) => Rejection::new(ErrorKind::Internal, "the task of this upload ended"),
                    }
                    .into_status(None)),
                }
            }));
        }
        loop {
            ready!(this.interval.poll_tick(cx));
            let progress = *this.progress.lock();
            if this.sent.as_ref() != Some(&progress) {
                this.sent = Some(progress);
                return Poll::Ready(Some(Ok(respond(Outcome::Progress(progress)))));
            }
        }
    }
}

/// An upload that is being received.
struct Upload {
    operands: Operands,
    context: CallContext,
    requests: Requests<PutOperandRequest>,
    max_size: usize,
    deadline: Instant,
    /// Memory of what is temporary: JSON.
    memory: HostReservation,
    slow: SlowBody,
    progress: Arc<Mutex<PutOperandProgress>>,
}

impl Upload {
    /// Receives and stores the operand. Once it has arrived, it is stored even if the server stops.
    async fn run(mut self, shutdown: StreamShutdown) -> Result<Operand, Status> {
        let request_id = self.context.request_id.clone();
        let reject = |rejection: Rejection| rejection.into_status(Some(request_id.as_str()));
        let late = |_| reject(Rejection::of(&KernelError::DeadlineExceeded { started: false }));
        let deadline = self.deadline;
        let received = tokio::select! {
            received = timeout_at(deadline.into(), self.receive()) => received.map_err(late)??,
            () = shutdown.ended() => return Err(unavailable(Some(request_id.as_str()))),
        };
        self.progress.lock().phase = PutOperandPhase::Building.into();
        let Self { operands, memory, .. } = self;
        let stored = store_operand(operands, received, Some(deadline), Some(memory)).await;
        let stored = stored.map_err(rejection).map_err(reject)?;
        operand(stored.info()).map_err(reject)
    }

    async fn receive(&mut self) -> Result<NewOperand, Status> {
        let request_id = self.context.request_id.clone();
        let reject = |rejection: Rejection| rejection.into_status(Some(request_id.as_str()));
        let invalid = |field, reason: &str| reject(InvalidInput::new(field, reason).into());
        let Some((first, held)) = self.next(&BodyMemory::of_request(&self.memory)).await? else {
            return Err(invalid("start", "the request stream ended before its first message"));
        };
        let Part::Start(mut start) = first else {
            return Err(invalid("start", "it is missing in the first message"));
        };
        let mut options = put_options(&mut start).map_err(reject)?;
        options.tenant = self.context.metadata.tenant.clone();
        // Before the bytes are read.
        self.operands.check_put(&start.name, &start.r#type, &options).map_err(rejection).map_err(reject)?;
        let Some(value) = start.value else { return Err(invalid("value", "neither `json` nor `tensors` is set")) };
        let reservation = self.operands.reservation(&options);
        let memory = BodyMemory::of_upload(&self.memory, &reservation);
        let (mut value, received) = ReceivedValue::begin(value, self.max_size, &memory).map_err(reject)?;
        self.received(received);
        drop(held);
        while let Some((part, held)) = self.next(&memory).await? {
            let Part::Chunk(chunk) = part else {
                return Err(invalid("start", "it is set in a message after the first"));
            };
            for piece in chunk.chunks(PIECE) {
                value.push(piece, &memory).map_err(reject)?;
                self.received(piece.len());
                tokio::task::yield_now().await;
            }
            drop(held);
        }
        let payload = value.finish().map_err(reject)?;
        Ok(NewOperand { name: start.name, type_name: start.r#type, options, payload, reservation })
    }

    /// Reads the next message, with the memory that it holds. Gives up an upload that arrives slowly while others lack the
    /// memory that it holds.
    async fn next(&mut self, memory: &BodyMemory) -> Result<Option<(Part, HostReservation)>, Status> {
        let Self { requests, slow, .. } = self;
        let message = poll_fn(|cx| match Pin::new(&mut *requests).poll_next(cx) {
            Poll::Ready(message) => Poll::Ready(message.transpose()),
            Poll::Pending => slow.poll_given_up(memory, cx).map(|()| {
                let text = "the operand arrived too slowly while other requests needed the memory";
                Err(Rejection::new(ErrorKind::MemoryExhausted, text).into_status(None))
            }),
        });
        let Some(PutOperandRequest { part }) = message.await? else { return Ok(None) };
        let held = self.context.memory.of_next_request();
        match part {
            Some(part) => Ok(Some((part, held))),
            None => {
                let rejection = Rejection::from(InvalidInput::new("part", "neither `start` nor `chunk` is set"));
                Err(rejection.into_status(Some(self.context.request_id.as_str())))
            }
        }
    }

    fn received(&mut self, bytes: usize) {
        self.slow.received(bytes);
        self.progress.lock().received_bytes += bytes as u64;
    }
}
