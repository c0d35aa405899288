//! Writing to stdout and stderr, which may be a pipe that somebody has stopped reading (`list | head -1`), a full disk, or
//! closed. `println!` and `eprintln!` panic there.

use std::error::Error;
use std::io::{self, ErrorKind, Write};
use std::sync::mpsc;
use std::time::Duration;

/// How long the end of the program waits for a reader of its last words.
const PATIENCE: Duration = Duration::from_secs(1);

/// Writes all of `text`. A reader that has gone has read what it wanted.
pub(crate) fn print(text: impl AsRef<[u8]>) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_ref()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(format!("stdout: {error}").into()),
        _ => Ok(()),
    }
}

/// Says something on stderr, where there is somebody to read it. Where there is not, nothing is left to say it to.
pub(crate) fn tell(line: &str) {
    let line = format!("{line}\n");
    let (done, written) = mpsc::channel();
    let writing = std::thread::Builder::new().spawn(move || {
        let _ = io::stderr().write_all(line.as_bytes());
        let _ = done.send(());
    });
    if writing.is_ok() {
        let _ = written.recv_timeout(PATIENCE);
    }
}
