//! Listen addresses of REST and gRPC: names, all interfaces, and Unix domain sockets.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tonic::transport::Endpoint;
use tower_kernels::grpc::{ExecuteRequest, KernelClient};

use crate::support::process::{PATIENCE, SAXPY, Text, program, run, signal, stderr, wait};

const OPEN: &str = "without authentication: set";

/// `serve` at any addresses. Killed when it is dropped.
struct Serve {
    child: Child,
    startup_message: String,
    stderr: Text,
}

impl Serve {
    #[track_caller]
    fn start(args: &[&str]) -> Self {
        let mut child =
            program(["serve", "--cuda-mode=off"]).env("TOWER_KERNELS_DRAIN_NOTICE", "0s").args(args).spawn().unwrap();
        let stderr = Text::of(child.stderr.take().unwrap());
        let startup_message = Text::of(child.stdout.take().unwrap()).until("Try it:\n  curl");
        Self { child, startup_message, stderr }
    }

    /// A line of the startup message, such as that of REST.
    fn line(&self, name: &str) -> &str {
        self.startup_message.lines().find_map(|line| line.trim().strip_prefix(name)).unwrap().trim()
    }

    /// The TCP addresses of REST.
    fn addresses(&self) -> Vec<SocketAddr> {
        self.line("REST").split(" and ").map(|url| url.strip_prefix("http://").unwrap().parse().unwrap()).collect()
    }

    fn ends_with(&mut self, code: i32) {
        assert_eq!(wait(&mut self.child).code(), Some(code), "{}", self.stderr.now());
    }

    fn terminate(&mut self) {
        signal(self.child.id(), "TERM");
        self.ends_with(0);
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("stdout:\n{}\nstderr:\n{}", self.startup_message, self.stderr.now());
        }
    }
}

/// A temporary folder, removed on drop. Its path is short, as required for sockets.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let path = PathBuf::from(format!("/tmp/tk-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn get(mut stream: impl Read + Write) -> String {
    stream.write_all(b"GET /health/ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

#[track_caller]
fn answers_at(address: SocketAddr) {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let response = get(stream);
    assert!(response.starts_with("HTTP/1.1 200"), "{address}: {response}");
}

#[track_caller]
fn answers_on(path: &Path) {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let response = get(stream);
    assert!(response.starts_with("HTTP/1.1 200"), "{}: {response}", path.display());
}

fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

fn listen(name: &str, path: &Path) -> String {
    format!("--{name}-listen=unix:{}", path.display())
}

#[test]
fn localhost_listens_on_both_of_its_addresses_and_is_not_public() {
    let server = Serve::start(&["--rest-listen=localhost:0", "--grpc-listen=localhost:0"]);
    let addresses = server.addresses();
    let mut ips = vec![IpAddr::from(Ipv4Addr::LOCALHOST)];
    ips.extend(has_ipv6().then_some(IpAddr::from(Ipv6Addr::LOCALHOST)));
    assert_eq!(addresses.iter().map(SocketAddr::ip).collect::<Vec<_>>(), ips);
    assert!(addresses.iter().all(|address| address.port() == addresses[0].port()), "{addresses:?}");
    addresses.into_iter().for_each(answers_at);
    assert!(!server.stderr.until("serving").contains(OPEN));
}

#[test]
fn an_address_without_a_host_is_all_interfaces_with_ipv4_and_ipv6() {
    for all in [":0", "[::]:0"] {
        if all.starts_with('[') && !has_ipv6() {
            continue;
        }
        let server = Serve::start(&[&format!("--rest-listen={all}"), "--grpc-listen=off"]);
        let port = server.addresses()[0].port();
        answers_at((Ipv4Addr::LOCALHOST, port).into());
        if has_ipv6() {
            answers_at((Ipv6Addr::LOCALHOST, port).into());
        }
        server.stderr.until(OPEN);
    }
}

#[test]
fn an_unknown_name_and_a_foreign_address_are_reported_with_the_setting() {
    for address in ["no-such-host.invalid:80", "192.0.2.1:80"] {
        let output = run(["serve", "--cuda-mode=off", "--grpc-listen=off", "--rest-listen", address], "");
        assert_eq!(output.status.code(), Some(9), "{}", stderr(&output));
        let said = format!("REST cannot listen on {address}: ");
        assert!(stderr(&output).contains(&said) && stderr(&output).contains("--rest-listen"), "{}", stderr(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rest_and_grpc_are_served_on_unix_sockets_which_are_removed_on_exit() {
    let folder = Folder::new();
    let (rest, grpc) = (folder.path("rest.sock"), folder.path("grpc.sock"));
    let mut server = Serve::start(&[&listen("rest", &rest), &listen("grpc", &grpc)]);
    assert_eq!(server.line("REST"), format!("unix:{}", rest.display()));
    assert_eq!(server.line("gRPC"), format!("unix:{}", grpc.display()));
    assert!(server.startup_message.contains(&format!("curl -s --unix-socket {} http://localhost/", rest.display())));
    assert!(!server.stderr.until("serving").contains(OPEN));
    for path in [&rest, &grpc] {
        let metadata = fs::symlink_metadata(path).unwrap();
        assert!(metadata.file_type().is_socket());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o660, "{}", path.display());
    }
    answers_on(&rest);
    let channel = Endpoint::from_shared(format!("unix:{}", grpc.display())).unwrap().connect().await.unwrap();
    let request = ExecuteRequest { kernel_id: "linalg/saxpy".to_owned(), input: SAXPY.to_owned() };
    let response = KernelClient::new(channel).execute(request).await.unwrap().into_inner();
    assert_eq!(response.output, r#"{"y":[12.0,24.0]}"#);
    server.terminate();
    assert!(!rest.exists() && !grpc.exists());
}

#[test]
fn the_printed_curl_command_for_a_unix_socket_works() {
    let folder = Folder::new();
    let server = Serve::start(&[&listen("rest", &folder.path("a b's.sock")), "--grpc-listen=off"]);
    let (_, command) = server.startup_message.split_once("Try it:\n").unwrap();
    let output = std::process::Command::new("sh").args(["-c", command]).output().unwrap();
    let response = String::from_utf8_lossy(&output.stdout);
    assert!(response.contains(r#"{"y":[12.0,24.0]}"#), "{command}: {response} {output:?}");
}

#[test]
fn a_stale_socket_of_a_killed_process_is_replaced() {
    let folder = Folder::new();
    let path = folder.path("rest.sock");
    let args = [&*listen("rest", &path), "--grpc-listen=off"];
    let mut killed = Serve::start(&args);
    signal(killed.child.id(), "KILL");
    wait(&mut killed.child);
    assert!(path.exists() && UnixStream::connect(&path).is_err());
    let mut server = Serve::start(&args);
    answers_on(&path);
    server.terminate();
    assert!(!path.exists());
}

#[test]
fn one_of_several_processes_replaces_a_stale_socket() {
    let folder = Folder::new();
    let path = folder.path("rest.sock");
    drop(UnixListener::bind(&path).unwrap());
    let args = ["serve", "--cuda-mode=off", &*listen("rest", &path), "--grpc-listen=off"];
    let mut started: Vec<_> = (0..4).map(|_| program(args).spawn().unwrap()).collect();
    let begun = Instant::now();
    let mut codes = Vec::new();
    while codes.len() < 3 {
        started.retain_mut(|child| child.try_wait().unwrap().map(|status| codes.push(status.code())).is_none());
        assert!(begun.elapsed() < PATIENCE, "{codes:?} have ended");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(codes, [Some(9); 3]);
    answers_on(&path);
    for mut child in started {
        signal(child.id(), "KILL");
        wait(&mut child);
    }
}

#[test]
fn a_socket_in_use_is_not_replaced() {
    let folder = Folder::new();
    let path = folder.path("rest.sock");
    let args = [&*listen("rest", &path), "--grpc-listen=off"];
    let server = Serve::start(&args);
    let output = run(["serve", "--cuda-mode=off"].into_iter().chain(args), "");
    assert_eq!(output.status.code(), Some(9), "{}", stderr(&output));
    assert!(stderr(&output).contains("another process listens there"), "{}", stderr(&output));
    answers_on(&path);
    drop(server);
}

#[test]
fn a_file_that_is_not_a_socket_is_not_replaced() {
    let folder = Folder::new();
    let (file, directory, link, target) =
        (folder.path("file"), folder.path("directory"), folder.path("link"), folder.path("target"));
    fs::write(&file, "kept").unwrap();
    fs::create_dir(&directory).unwrap();
    // A stale socket behind a link is not replaced either.
    drop(UnixListener::bind(&target).unwrap());
    symlink(&target, &link).unwrap();
    for path in [&file, &directory, &link] {
        let output = run(["serve", "--cuda-mode=off", "--grpc-listen=off", &listen("rest", path)], "");
        assert_eq!(output.status.code(), Some(9), "{}", stderr(&output));
        assert!(stderr(&output).contains("that is not a socket"), "{}", stderr(&output));
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
    assert!(directory.is_dir() && link.is_symlink() && target.exists());
    let nowhere = folder.path("nowhere/rest.sock");
    let output = run(["serve", "--cuda-mode=off", "--grpc-listen=off", &listen("rest", &nowhere)], "");
    assert_eq!(output.status.code(), Some(9), "{}", stderr(&output));
    assert!(stderr(&output).contains("nowhere: No such file"), "{}", stderr(&output));
}

#[test]
fn the_socket_of_another_process_is_not_removed_on_exit() {
    let folder = Folder::new();
    let path = folder.path("rest.sock");
    let args = [&*listen("rest", &path), "--grpc-listen=off"];
    let mut first = Serve::start(&args);
    fs::remove_file(&path).unwrap();
    let _second = Serve::start(&args);
    first.terminate();
    answers_on(&path);
}

#[test]
fn the_socket_is_removed_if_the_program_exits_early() {
    let folder = Folder::new();
    let path = folder.path("rest.sock");
    // An address that cannot be bound.
    let output = run(["serve", "--cuda-mode=off", "--grpc-listen=192.0.2.1:80", &listen("rest", &path)], "");
    assert_eq!(output.status.code(), Some(9), "{}", stderr(&output));
    assert!(!path.exists(), "after a failed start");

    let mut server = Serve::start(&[&listen("rest", &path), "--grpc-listen=off", "--drain-notice=1h"]);
    signal(server.child.id(), "TERM");
    server.stderr.until("draining");
    assert!(path.exists(), "it serves until the end of the notice");
    signal(server.child.id(), "TERM");
    server.ends_with(143);
    assert!(!path.exists(), "after a second signal");
}

#[test]
fn the_per_address_limit_does_not_apply_to_unix_sockets() {
    let folder = Folder::new();
    let path = folder.path("rest.sock");
    let _server = Serve::start(&[&listen("rest", &path), "--grpc-listen=off", "--connections-max-per-address=1"]);
    let open: Vec<_> = (0..5).map(|_| UnixStream::connect(&path).unwrap()).collect();
    for stream in open {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        assert!(get(stream).starts_with("HTTP/1.1 200"));
    }
}
