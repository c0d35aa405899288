//! Writing to stdout, which may be a pipe that somebody has stopped reading: `list | head -1`.

use std::error::Error;
use std::io::{self, ErrorKind, Write};

/// Writes all of `text`. A reader that has gone has read what it wanted.
pub(crate) fn print(text: impl AsRef<[u8]>) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_ref()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(format!("stdout: {error}").into()),
        _ => Ok(()),
    }
}
