//! The queue of lines, and the thread that writes them.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tracing_subscriber::fmt::MakeWriter;

use super::TARGET;
use super::repeats::Repeats;

/// How often the idle writer checks for repeats to summarize.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(1);
/// Time limit for writing the last lines at exit.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause before the next write if stderr is non-blocking and full.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// Lines that wait to be written. Clones share the queue.
#[derive(Clone, Debug)]
pub(super) struct Queue(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    lines: Mutex<Lines>,
    changed: Condvar,
    capacity: usize,
    /// Lines that did not fit, as the reader was too slow.
    slow_reader: AtomicU64,
    /// Lines that could not be written.
    write_error: AtomicU64,
}

#[derive(Debug, Default)]
struct Lines {
    waiting: Vec<u8>,
    /// Bytes that the writer has taken but not written. They count against the capacity.
    writing: usize,
    stopping: bool,
    stopped: bool,
}

impl Queue {
    /// A queue with a capacity in bytes.
    pub(super) fn new(capacity: usize) -> Self {
        Self(Arc::new(Shared {
            lines: Mutex::default(),
            changed: Condvar::new(),
            capacity,
            slow_reader: AtomicU64::new(0),
            write_error: AtomicU64::new(0),
        }))
    }

    /// Adds a line, or drops and counts it if it does not fit.
    fn push(&self, line: &[u8]) {
        let Self(shared) = self;
        let mut lines = shared.lines.lock();
        if lines.waiting.len() + lines.writing + line.len() > shared.capacity {
            drop(lines);
            shared.slow_reader.fetch_add(1, Ordering::Relaxed);
            return;
        }
        lines.waiting.extend_from_slice(line);
        drop(lines);
        shared.changed.notify_all();
    }

    /// Lines dropped as the reader was too slow.
    pub(super) fn slow_reader(&self) -> u64 {
        self.0.slow_reader.load(Ordering::Relaxed)
    }

    /// Lines dropped as they could not be written.
    pub(super) fn write_error(&self) -> u64 {
        self.0.write_error.load(Ordering::Relaxed)
    }

    /// Bytes that wait to be written.
    pub(super) fn bytes(&self) -> usize {
        let lines = self.0.lines.lock();
        lines.waiting.len() + lines.writing
    }

    /// Takes the queued lines.
    #[cfg(test)]
    pub(super) fn taken(&self) -> String {
        String::from_utf8(std::mem::take(&mut self.0.lines.lock().waiting)).unwrap()
    }

    /// Writes lines until the queue is stopped and empty.
    fn write_to(&self, out: &mut impl Write, repeats: &Repeats) {
        let Self(shared) = self;
        let mut chunk = Vec::new();
        let mut reported = (0, 0);
        // Whether the last write ended within a line.
        let mut torn = false;
        loop {
            let mut lines = shared.lines.lock();
            if lines.waiting.is_empty() && !lines.stopping {
                shared.changed.wait_for(&mut lines, SUMMARY_INTERVAL);
            }
            let stopping = lines.stopping;
            chunk.clear();
            std::mem::swap(&mut chunk, &mut lines.waiting);
            lines.writing = chunk.len();
            drop(lines);

            if !chunk.is_empty() {
                let begun = if torn { write_all(out, b"\n").1 } else { Ok(()) };
                let (written, result) = if begun.is_ok() { write_all(out, &chunk) } else { (0, begun) };
                let lost = chunk[written..].iter().filter(|&&byte| byte == b'\n').count() as u64;
                shared.write_error.fetch_add(lost, Ordering::Relaxed);
                torn = if written > 0 { chunk[written - 1] != b'\n' } else { torn };
                shared.lines.lock().writing = 0;
                let dropped = (self.slow_reader(), self.write_error());
                if result.is_ok() && dropped != reported {
                    let (slow_reader, write_error) = (dropped.0 - reported.0, dropped.1 - reported.1);
                    tracing::warn!(target: TARGET, slow_reader, write_error, "log lines were dropped");
                    reported = dropped;
                }
            }
            repeats.log_summaries(stopping);
            if stopping {
                let mut lines = shared.lines.lock();
                if lines.waiting.is_empty() {
                    lines.stopped = true;
                    drop(lines);
                    shared.changed.notify_all();
                    return;
                }
            }
        }
    }

    /// Stops the writer once it has written the queue, and waits for it up to `timeout`.
    fn stop(&self, timeout: Duration) {
        let Self(shared) = self;
        let until = Instant::now() + timeout;
        let mut lines = shared.lines.lock();
        lines.stopping = true;
        shared.changed.notify_all();
        while !lines.stopped && !shared.changed.wait_until(&mut lines, until).timed_out() {}
    }
}

/// Writes all bytes. Returns how many were written, and the error if not all were.
fn write_all(out: &mut impl Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match out.write(&bytes[written..]) {
            Ok(0) => return (written, Err(ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY_INTERVAL),
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

/// The formatter writes each event in one piece.
impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The thread that writes a queue to stderr. On drop it writes the remaining lines, within a time limit.
#[derive(Debug)]
pub(super) struct Writer(Queue);

impl Writer {
    pub(super) fn spawn(queue: Queue, repeats: Arc<Repeats>) -> io::Result<Self> {
        let mut out = stderr();
        let from = queue.clone();
        thread::Builder::new().name("log".to_owned()).spawn(move || from.write_to(&mut out, &repeats))?;
        Ok(Self(queue))
    }

    pub(super) fn queue(&self) -> &Queue {
        &self.0
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.stop(FLUSH_TIMEOUT);
    }
}

/// Stderr without its lock, which would be held while a write waits for the reader.
#[cfg(unix)]
fn stderr() -> Box<dyn Write + Send> {
    use std::os::fd::AsFd;
    match io::stderr().as_fd().try_clone_to_owned() {
        Ok(stderr) => Box::new(File::from(stderr)),
        // Out of descriptors.
        Err(_) => Box::new(io::stderr()),
    }
}

#[cfg(not(unix))]
fn stderr() -> Box<dyn Write + Send> {
    Box::new(io::stderr())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Accepts `capacity` bytes and then fails, like a full disk.
    struct Disk {
        capacity: Arc<AtomicU64>,
        text: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let capacity = self.capacity.load(Ordering::SeqCst) as usize;
            if capacity == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            let taken = capacity.min(bytes.len());
            self.capacity.fetch_sub(taken as u64, Ordering::SeqCst);
            self.text.send(bytes[..taken].to_vec()).unwrap();
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn until(holds: impl Fn() -> bool) {
        while !holds() {
            thread::yield_now();
        }
    }

    #[test]
    fn a_line_that_was_torn_by_a_full_disk_ends_before_the_next_and_the_lost_are_counted() {
        let queue = Queue::new(1024);
        let capacity = Arc::new(AtomicU64::new(9));
        let (text, written) = mpsc::channel();
        let mut disk = Disk { capacity: Arc::clone(&capacity), text };
        let from = queue.clone();
        let writer = thread::spawn(move || from.write_to(&mut disk, &Repeats::new(0)));
        queue.push(b"first\nsecond\n");
        until(|| queue.write_error() == 1);
        queue.push(b"third\n");
        until(|| queue.write_error() == 2);
        capacity.store(1000, Ordering::SeqCst);
        queue.push(b"fourth\n");
        queue.stop(Duration::from_secs(60));
        writer.join().unwrap();
        let text: Vec<u8> = written.into_iter().flatten().collect();
        assert_eq!(String::from_utf8(text).unwrap(), "first\nsec\nfourth\n");
    }

    #[test]
    fn the_queue_is_bounded_in_bytes_and_stopping_does_not_wait_for_a_reader() {
        let queue = Queue::new(10);
        (0..5).for_each(|_| queue.push(b"abc\n"));
        assert_eq!((queue.bytes(), queue.slow_reader()), (8, 3));
        // No thread writes it.
        queue.stop(Duration::from_millis(1));
        assert_eq!(queue.bytes(), 8);
    }
}
