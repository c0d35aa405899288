//! [`Upload`]: the body of a PUT, read from files while it is sent.

use std::error::Error;
use std::fmt;
use std::io::{ErrorKind, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::{mpsc, oneshot};

use super::source::{Part, Source};

/// Size of the chunks that are read.
const CHUNK: usize = 256 << 10;
/// Chunks that are read ahead of the connection.
const READ_AHEAD: usize = 4;
/// Time for which the upload waits for `100 Continue`. Servers that do not know it do not send it.
const CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);

/// The body of a PUT.
///
/// A thread reads the files in chunks, of which only a few are in memory at a time. It is not one of tokio's, which the
/// program would wait for when it ends while stdin blocks.
pub(super) struct Upload {
    /// `None` once the server wants the body.
    start: Option<Start>,
    source: Option<Source>,
    chunks: Option<mpsc::Receiver<Result<Bytes, ReadError>>>,
    progress: UploadProgress,
    length: Option<u64>,
    sent: u64,
}

/// The wait for `100 Continue`, so that what the server rejects anyway is not sent.
struct Start {
    continued: oneshot::Receiver<()>,
    timeout: Pin<Box<tokio::time::Sleep>>,
}

/// How much of an upload was given to the connection.
#[derive(Clone, Default)]
pub(super) struct UploadProgress(Arc<Counts>);

#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    is_complete: AtomicBool,
}

impl UploadProgress {
    pub(super) fn sent(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }

    pub(super) fn is_complete(&self) -> bool {
        self.0.is_complete.load(Ordering::Relaxed)
    }
}

/// A file could not be read.
#[derive(Clone, Debug)]
pub(super) struct ReadError(pub(super) String);

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for ReadError {}

impl Upload {
    /// The second value is to be sent to when the server sends `100 Continue`.
    pub(super) fn new(source: Source, progress: UploadProgress) -> (Self, oneshot::Sender<()>) {
        let (on_continue, continued) = oneshot::channel();
        let start = Start { continued, timeout: Box::pin(tokio::time::sleep(CONTINUE_TIMEOUT)) };
        let length = source.length;
        (Self { start: Some(start), source: Some(source), chunks: None, progress, length, sent: 0 }, on_continue)
    }

    /// Waits until the server wants the body, or does not say so in time.
    fn poll_started(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(start) = &mut self.start {
            // Nobody is left to say so if the sender was dropped.
            let is_waiting = Pin::new(&mut start.continued).poll(cx).is_pending();
            if is_waiting {
                ready!(start.timeout.as_mut().poll(cx));
            }
            self.start = None;
        }
        Poll::Ready(())
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = ReadError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ReadError>>> {
        ready!(self.poll_started(cx));
        if let Some(source) = self.source.take() {
            match start_reading(source) {
                Ok(chunks) => self.chunks = Some(chunks),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
        let Some(chunks) = &mut self.chunks else { return Poll::Ready(None) };
        let chunk = ready!(chunks.poll_recv(cx));
        if let Some(Ok(chunk)) = &chunk {
            self.sent += chunk.len() as u64;
            self.progress.0.sent.store(self.sent, Ordering::Relaxed);
        }
        if chunk.is_none() || self.length == Some(self.sent) {
            self.progress.0.is_complete.store(true, Ordering::Relaxed);
        }
        Poll::Ready(chunk.map(|chunk| chunk.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.length == Some(self.sent)
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, |length| SizeHint::with_exact(length - self.sent))
    }
}

/// Reads the parts on a thread, which ends when the receiver is dropped.
fn start_reading(source: Source) -> Result<mpsc::Receiver<Result<Bytes, ReadError>>, ReadError> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    let read_all = move || {
        for part in source.parts {
            if let Err(error) = read(part, &sender) {
                // Nobody reads it if the request has ended.
                let _ = sender.blocking_send(Err(error));
                return;
            }
        }
    };
    let started = std::thread::Builder::new().name("upload".to_owned()).spawn(read_all);
    started.map(|_| receiver).map_err(|error| ReadError(format!("cannot start a thread: {error}")))
}

/// Sends a part in chunks, of a pipe as they come. Ends early if the request has ended.
fn read(
    Part { name, mut reader, length }: Part,
    sender: &mpsc::Sender<Result<Bytes, ReadError>>,
) -> Result<(), ReadError> {
    let mut rest = length.unwrap_or(u64::MAX);
    while rest > 0 {
        let mut chunk = vec![0; rest.min(CHUNK as u64) as usize];
        match reader.read(&mut chunk) {
            Ok(0) if length.is_none() => return Ok(()),
            Ok(0) => return Err(ReadError(format!("{name}: it became shorter while it was sent, by {rest} bytes"))),
            Ok(read) => chunk.truncate(read),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(ReadError(format!("{name}: {error}"))),
        }
        rest -= chunk.len() as u64;
        if sender.blocking_send(Ok(chunk.into())).is_err() {
            return Ok(());
        }
    }
    Ok(())
}
