//! Formats tables, and writes to stdout and stderr.
//!
//! `println!` and `eprintln!` panic if the stream is closed, a pipe without a reader (`list | head -1`), or a full disk; the
//! functions here do not.

use std::error::Error;
use std::io::{self, ErrorKind, Write};
use std::sync::mpsc;
use std::time::Duration;

/// Time limit for writing to stderr before the program exits.
const STDERR_TIMEOUT: Duration = Duration::from_secs(1);

/// Writes `text` to stdout. A closed pipe is not an error.
pub(crate) fn print(text: impl AsRef<[u8]>) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_ref()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(format!("stdout: {error}").into()),
        _ => Ok(()),
    }
}

/// Writes a line to stderr, for at most a second. A failure is ignored: there is nowhere left to report it.
pub(crate) fn print_error(line: &str) {
    let line = format!("{line}\n");
    let (done, written) = mpsc::channel();
    let writing = std::thread::Builder::new().spawn(move || {
        let _ = io::stderr().write_all(line.as_bytes());
        let _ = done.send(());
    });
    if writing.is_ok() {
        let _ = written.recv_timeout(STDERR_TIMEOUT);
    }
}

/// Aligns cells in columns.
pub(crate) fn columns<const N: usize>(rows: Vec<[String; N]>, indent: &str) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = indent.to_owned();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
