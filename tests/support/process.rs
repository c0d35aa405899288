//! Runs the program as a process, and sends it requests and signals.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use tonic::transport::{Channel, Endpoint};

/// A time limit that even a busy machine does not reach.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const SAXPY: &str = r#"{"a": 2.0, "x": [1.0, 2.0], "y": [10.0, 20.0]}"#;

/// The program, with an empty environment.
pub(crate) fn program<'a>(args: impl IntoIterator<Item = &'a str>) -> Command {
    let built = || env!("CARGO_BIN_EXE_tower-kernels").into();
    let mut command = Command::new(std::env::var_os("TOWER_KERNELS_HOSTILE_PROGRAM").unwrap_or_else(built));
    let set = std::env::vars_os().map(|(name, _)| name);
    for name in set.filter(|name| name.to_string_lossy().starts_with("TOWER_KERNELS_")) {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the program with this stdin until it exits.
pub(crate) fn run<'a>(args: impl IntoIterator<Item = &'a str>, stdin: &str) -> Output {
    let mut child = program(args).stdin(Stdio::piped()).spawn().unwrap();
    feed(child.stdin.take().unwrap(), stdin);
    child.wait_with_output().unwrap()
}

/// Writes to the stdin of a program, which may close it early.
pub(crate) fn feed(mut stdin: ChildStdin, text: &str) {
    if let Err(error) = stdin.write_all(text.as_bytes()) {
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe, "{error}");
    }
}

pub(crate) fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

pub(crate) fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

pub(crate) fn signal(child: u32, name: &str) {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(child.to_string()).status().unwrap();
    assert!(sent.success(), "no {name} could be sent");
}

/// Waits until the process exits.
pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(begun.elapsed() < PATIENCE, "the program does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Collects the output of a process on one of its pipes.
#[derive(Clone, Default)]
pub(crate) struct Text(Arc<(Mutex<Written>, Condvar)>);

#[derive(Default)]
struct Written {
    text: String,
    ended: bool,
}

impl Text {
    pub(crate) fn of(pipe: impl Read + Send + 'static) -> Self {
        let this = Self::default();
        let writer = this.clone();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(pipe);
            let mut line = Vec::new();
            // A terminal's end is an error where a pipe's is not.
            while lines.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                writer.0.0.lock().unwrap().text.push_str(&String::from_utf8_lossy(&line));
                writer.0.1.notify_all();
                line.clear();
            }
            writer.0.0.lock().unwrap().ended = true;
            writer.0.1.notify_all();
        });
        this
    }

    pub(crate) fn now(&self) -> String {
        self.0.0.lock().unwrap().text.clone()
    }

    /// All of it, once the process has closed the pipe.
    #[allow(dead_code, reason = "not every test reads to the end")]
    #[track_caller]
    pub(crate) fn end(&self) -> String {
        let written = self.0.0.lock().unwrap();
        let (written, _) = self.0.1.wait_timeout_while(written, PATIENCE, |written| !written.ended).unwrap();
        assert!(written.ended, "the pipe is still open after {:?}", written.text);
        written.text.clone()
    }

    /// Waits until it says this.
    #[track_caller]
    pub(crate) fn until(&self, what: &str) -> String {
        let written = self.0.0.lock().unwrap();
        let waits = |written: &mut Written| !written.text.contains(what) && !written.ended;
        let (written, _) = self.0.1.wait_timeout_while(written, PATIENCE, waits).unwrap();
        let text = written.text.clone();
        // Before it can panic: what is dropped then reads it as well.
        drop(written);
        assert!(text.contains(what), "`{what}` is not in {text:?}");
        text
    }
}

/// `serve`, on ports that the system chooses. Killed when it is dropped.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) stdout: Text,
    pub(crate) stderr: Text,
    pub(crate) rest: SocketAddr,
    pub(crate) grpc: SocketAddr,
}

impl Server {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::spawn(&mut program(["serve", "--rest-listen=127.0.0.1:0", "--grpc-listen=127.0.0.1:0"]), args)
    }

    pub(crate) fn spawn(command: &mut Command, args: &[&str]) -> Self {
        let mut child = command.args(args).spawn().unwrap();
        let stdout = Text::of(child.stdout.take().unwrap());
        // A test that looks after the log itself has given it somewhere else to go.
        let stderr = child.stderr.take().map_or_else(Text::default, Text::of);
        let startup_message = stdout.until("auth ");
        let address = |name: &str| {
            let line = startup_message.lines().find_map(|line| line.trim().strip_prefix(name));
            line.and_then(|line| line.trim().split_once("://"))
                .map(|(_, it)| it)
                .unwrap_or_else(|| panic!("no {name}: {startup_message}"))
        };
        let (rest, grpc) = (address("REST").parse().unwrap(), address("gRPC").parse().unwrap());
        Self { child, stdout, stderr, rest, grpc }
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Waits for the end, and gives the exit code.
    pub(crate) fn code(&mut self) -> Option<i32> {
        wait(&mut self.child).code()
    }

    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        Call::begin(self.rest, "GET", path, &[], 0).end(b"")
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> (u16, String) {
        self.post_as(path, body, &[])
    }

    pub(crate) fn post_as(&self, path: &str, body: &str, headers: &[&str]) -> (u16, String) {
        Call::begin(self.rest, "POST", path, headers, body.len()).end(body.as_bytes())
    }

    /// A connection to gRPC.
    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.grpc)).unwrap();
        endpoint.connect().await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("stdout:\n{}\nstderr:\n{}", self.stdout.now(), self.stderr.now());
        }
    }
}

/// A request over a connection of its own, whose body can come later than its head.
pub(crate) struct Call(TcpStream);

impl Call {
    pub(crate) fn begin(to: SocketAddr, method: &str, path: &str, headers: &[&str], length: usize) -> Self {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
        head.push_str(&format!("content-type: application/json\r\ncontent-length: {length}\r\n"));
        headers.iter().for_each(|line| head.push_str(&format!("{line}\r\n")));
        stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
        Self(stream)
    }

    /// Sends a part of the body, or all of it, and does not wait for the response.
    #[allow(dead_code, reason = "not every test leaves early")]
    pub(crate) fn send(&mut self, body: &[u8]) {
        self.0.write_all(body).unwrap();
    }

    pub(crate) fn end(mut self, body: &[u8]) -> (u16, String) {
        self.0.write_all(body).unwrap();
        let mut answer = String::new();
        self.0.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
        (head[9..12].parse().unwrap(), body.to_owned())
    }
}
