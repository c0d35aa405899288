//! Clients that take their time.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tower_kernels::hyper::ServerConfig;

use crate::http_faults::server::{LONG, RUN_NAP, RUN_SAXPY, SAXPY, Server, Setup};
use crate::support::http_client::{HttpResponse, JSON, head, post};

/// As short as a clock may be that a loaded machine is not to run into, and all others long.
const SHORT: Duration = Duration::from_millis(400);
const LIMITS: ServerConfig = ServerConfig {
    head_timeout: LONG,
    idle_timeout: LONG,
    write_timeout: LONG,
    max_connections: 1000,
    max_per_address: 0,
    max_age: Duration::ZERO,
    max_age_grace: LONG,
};

fn limits(limits: ServerConfig) -> Setup {
    Setup { limits, ..Setup::default() }
}

/// Sends these bytes, one at a time, for as long as it can, and then none; gives how long the connection lasted.
async fn dribble(mut stream: TcpStream, bytes: &'static [u8]) -> Duration {
    let begun = Instant::now();
    let mut bytes = bytes.iter();
    loop {
        let mut response = [0];
        match tokio::time::timeout(Duration::from_millis(10), stream.read(&mut response)).await {
            Ok(Ok(0) | Err(_)) => break,
            Ok(Ok(_)) => panic!("it is answered"),
            Err(_) => {
                if let Some(byte) = bytes.next() {
                    let _ = stream.write(&[*byte]).await;
                }
            }
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it is never cut off");
    }
    begun.elapsed()
}

#[tokio::test]
async fn heads_that_come_a_byte_at_a_time_are_cut_off_and_hold_nobody_up() {
    for server in Server::all(&limits(ServerConfig { head_timeout: SHORT, ..LIMITS })) {
        let mut clients = Vec::new();
        let long =
            b"GET /kernels HTTP/1.1\r\nhost: test\r\nx-header: and so on, and so on, and so on, and so on, and so on"
                .as_slice();
        for bytes in [long, b"PRI * HTTP/2.0\r\n\r\nS", b"P", b""] {
            for _ in 0..40 {
                clients.push(tokio::spawn(dribble(server.say(b"").await, bytes)));
            }
        }
        server.assert_serves().await;
        for client in clients {
            let lasted = client.await.unwrap();
            assert!(lasted >= SHORT - Duration::from_millis(50), "{lasted:?}");
        }
        server.until_open(0).await;
        server.assert_serves().await;
    }
}

#[tokio::test]
async fn the_clock_of_a_head_starts_with_its_first_byte() {
    for server in Server::all(&limits(ServerConfig { head_timeout: SHORT, ..LIMITS })) {
        let mut stream = BufReader::new(server.say(post(RUN_SAXPY, SAXPY)).await);
        assert_eq!(HttpResponse::next(&mut stream).await.unwrap().unwrap().status, 200);
        // Nothing is asked for longer than a head may take, and that is another clock's business.
        tokio::time::sleep(SHORT * 2).await;
        stream.write_all(post(RUN_SAXPY, SAXPY).as_bytes()).await.unwrap();
        assert_eq!(HttpResponse::next(&mut stream).await.unwrap().unwrap().status, 200);
        stream.write_all(b"GET /kernels HTTP/1.1\r\n").await.unwrap();
        let begun = Instant::now();
        assert!(!matches!(HttpResponse::next(&mut stream).await, Ok(Some(_))));
        assert!(begun.elapsed() >= SHORT / 2, "{:?}", begun.elapsed());
        server.until_open(0).await;
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_but_not_one_whose_response_takes_longer() {
    for server in Server::all(&limits(ServerConfig { idle_timeout: SHORT, ..LIMITS })) {
        let mut idle = BufReader::new(server.say(post(RUN_SAXPY, SAXPY)).await);
        assert_eq!(HttpResponse::next(&mut idle).await.unwrap().unwrap().status, 200);
        let mut waits = BufReader::new(server.say(post(RUN_NAP, r#"{"millis": 1200}"#)).await);
        let begun = Instant::now();
        assert_eq!(idle.read(&mut [0]).await.expect("it is closed, and not reset"), 0);
        assert!((SHORT / 2..Duration::from_millis(1100)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        assert_eq!(HttpResponse::next(&mut waits).await.unwrap().unwrap().status, 200);
        // From here on nothing is asked of it either.
        assert!(HttpResponse::next(&mut waits).await.unwrap().is_none());
        server.until_open(0).await;
    }
}

#[tokio::test]
async fn a_body_that_comes_slowly_is_the_deadlines_business_alone() {
    let short = ServerConfig { head_timeout: SHORT, idle_timeout: SHORT, write_timeout: SHORT, ..LIMITS };
    for server in Server::all(&limits(short)) {
        let head = head("POST", RUN_SAXPY, &[JSON], Some(SAXPY.len()), true);
        let mut stream = BufReader::new(server.say(head).await);
        for half in [&SAXPY[..10], &SAXPY[10..]] {
            tokio::time::sleep(SHORT * 3 / 2).await;
            stream.write_all(half.as_bytes()).await.unwrap();
        }
        assert_eq!(HttpResponse::next(&mut stream).await.unwrap().unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off_and_one_that_reads_slowly_is_not() {
    const BYTES: usize = 8 << 20;
    for server in Server::all(&limits(ServerConfig { write_timeout: SHORT, idle_timeout: SHORT, ..LIMITS })) {
        let mut streams = Vec::new();
        for _ in 0..2 {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(64 << 10).unwrap();
            let mut stream = socket.connect(server.address).await.unwrap();
            let request = post("/kernels/test/fill/execute", &format!(r#"{{"bytes": {BYTES}}}"#));
            stream.write_all(request.as_bytes()).await.unwrap();
            streams.push(stream);
        }
        let (mut slow, mut never) = (streams.pop().unwrap(), streams.pop().unwrap());
        let mut piece = vec![0; BYTES / 10];
        for _ in 0..8 {
            slow.read_exact(&mut piece).await.unwrap();
            tokio::time::sleep(SHORT / 4).await;
        }
        let mut rest = Vec::new();
        slow.read_to_end(&mut rest).await.unwrap();
        assert!(rest.ends_with(b"}}"), "all of it: {}", rest[rest.len() - 50..].escape_ascii());
        server.until_open(0).await;
        let mut part = Vec::new();
        let _ = never.read_to_end(&mut part).await;
        assert!(part.len() < BYTES, "{} bytes", part.len());
    }
}
