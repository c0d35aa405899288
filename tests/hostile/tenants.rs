//! Tenants that take more than their share, and what the others get.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::size;
use crate::support::process::Server;

#[path = "tenants/model.rs"]
mod model;

const KERNEL: &str = "graph/betweenness-centrality";
const EXECUTE: &str = "/kernels/graph/betweenness-centrality/execute";
const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A server that asks for the API keys of these tenants, each of which is the tenant's name with some more to it.
fn server(tenants: &[&str], settings: &str, flags: &[&str]) -> Server {
    let mut text = format!("{settings}\n[auth]\napi_keys = [\n");
    for tenant in tenants {
        let mut digits = String::new();
        Sha256::digest(key(tenant)).iter().for_each(|byte| write!(digits, "{byte:02x}").unwrap());
        writeln!(text, "  {{ tenant = \"{tenant}\", key_sha256 = \"{digits}\" }},").unwrap();
    }
    text.push_str("]\n");
    let path = std::env::temp_dir().join(format!("tower-kernels-tenants-{}-{}.toml", std::process::id(), number()));
    std::fs::write(&path, text).unwrap();
    let server = Server::start(&[&["--config", path.to_str().unwrap()], flags].concat());
    std::fs::remove_file(&path).unwrap();
    server
}

fn number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn key(tenant: &str) -> String {
    format!("the key of {tenant}, which is long enough").replace([' ', ','], "-")
}

/// A graph, and how many of its nodes are begun from: what the work is proportional to.
#[derive(Clone, Debug)]
struct Job {
    edges: String,
    nodes: usize,
    samples: usize,
    priority: Option<&'static str>,
}

impl Job {
    fn ring(nodes: usize, samples: usize) -> Self {
        let edges: Vec<_> = (0..nodes).map(|node| format!("[{node},{}]", (node + 1) % nodes)).collect();
        Self { edges: edges.join(","), nodes, samples, priority: None }
    }

    fn body(&self) -> String {
        let Self { edges, nodes, samples, .. } = self;
        format!(r#"{{"num_nodes": {nodes}, "edges": [{edges}], "samples": {samples}, "seed": 1}}"#)
    }

    /// A job that takes about so long by itself, whatever the build and the machine.
    fn taking(time: Duration, server: &Server, tenant: &str) -> Self {
        let mut nodes = 1000;
        loop {
            let trial = Self::ring(nodes, nodes / 20);
            // The shorter of two: the first one has the server's memory and threads to warm up.
            let took = [(); 2].map(|()| {
                let begun = Instant::now();
                assert_eq!(trial.run(server, tenant, None).0, 200);
                begun.elapsed()
            });
            let samples = time.as_secs_f64() / took[0].min(took[1]).as_secs_f64() * trial.samples as f64;
            if samples <= nodes as f64 {
                return Self { samples: (samples as usize).max(1), ..trial };
            }
            nodes *= 4;
        }
    }

    fn run(&self, server: &Server, tenant: &str, deadline: Option<Duration>) -> (u16, String) {
        let mut headers = vec![format!("authorization: Bearer {}", key(tenant))];
        headers.extend(deadline.map(|deadline| format!("connect-timeout-ms: {}", deadline.as_millis())));
        let headers: Vec<_> = headers.iter().map(String::as_str).collect();
        let input = self.body();
        match self.priority {
            None => server.post_as(EXECUTE, &input, &headers),
            Some(priority) => {
                let document = format!(
                    r#"{{"kernel_id": "{KERNEL}", "metadata": {{"priority": "{priority}"}}, "input": {input}}}"#
                );
                server.post_as("/execute", &document, &headers)
            }
        }
    }
}

/// What became of requests.
#[derive(Debug, Default)]
struct Tally {
    done: AtomicUsize,
    /// With 503, or past its deadline.
    rejected: AtomicUsize,
}

impl Tally {
    fn count(&self, (status, body): &(u16, String)) {
        match status {
            200 => self.done.fetch_add(1, Ordering::SeqCst),
            503 | 504 => self.rejected.fetch_add(1, Ordering::SeqCst),
            _ => panic!("{status}: {body}"),
        };
    }

    fn get(&self) -> (usize, usize) {
        (self.done.load(Ordering::SeqCst), self.rejected.load(Ordering::SeqCst))
    }
}

/// Asks again and again, from so many connections, until `stop`.
fn keep_asking<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    (server, tenant, job): (&'scope Server, &'scope str, &'scope Job),
    connections: usize,
    deadline: Option<Duration>,
    (tally, stop): (&'scope Tally, &'scope AtomicBool),
) {
    for _ in 0..connections {
        scope.spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                let response = job.run(server, tenant, deadline);
                tally.count(&response);
                if response.0 != 200 {
                    // Sooner than it was told to, and not so soon that it is all that the machine does.
                    sleep(20 * MILLI);
                }
            }
        });
    }
}

#[test]
fn deadlines_that_one_tenant_chooses_close_no_kernel_to_the_others() {
    // So that all of them run, in place of being refused once it is known how long they take.
    let server = server(&["hasty", "other"], "", &["--load-shed-max-wait=0s"]);
    let long = Job::taking(20 * SECOND, &server, "other");
    let failed = Tally::default();
    // As many as open a circuit, and some more.
    std::thread::scope(|scope| {
        for _ in 0..25 {
            scope.spawn(|| failed.count(&long.run(&server, "hasty", Some(1100 * MILLI))));
        }
    });
    assert_eq!(failed.get(), (0, 25));
    for tenant in ["other", "hasty"] {
        let (status, body) = Job::ring(10, 10).run(&server, tenant, None);
        assert_eq!(status, 200, "{tenant}: {body}");
    }
}

/// One tenant with thirty connections beside one with one, which waits for each of its answers.
fn a_sequential_tenant_during_a_flood(priorities: [Option<&'static str>; 2]) {
    let server = server(&["flood", "calm"], "", &[]);
    let job = Job::taking(size(60, 120) * MILLI, &server, "calm");
    let [flooding, calm] = priorities.map(|priority| Job { priority, ..job.clone() });
    let (stop, [many, few]) = (AtomicBool::new(false), <[Tally; 2]>::default());
    std::thread::scope(|scope| {
        keep_asking(scope, (&server, "flood", &flooding), 30, None, (&many, &stop));
        // Until the flood is there.
        let begun = Instant::now();
        while many.get().0 < 10 && begun.elapsed() < 60 * SECOND {
            sleep(10 * MILLI);
        }
        keep_asking(scope, (&server, "calm", &calm), 1, Some(25 * SECOND), (&few, &stop));
        sleep(size(4, 30) * SECOND);
        stop.store(true, Ordering::SeqCst);
    });
    let ((many, _), (few, rejected)) = (many.get(), few.get());
    println!("{many} of the flood and {few} of the other were answered");
    assert_eq!(rejected, 0, "of {few} of a tenant that asks for one at a time");
    // With one in flight it could have half of what runs; it waits for what runs before it, and not for the rest.
    assert!(few * 8 >= many, "{few} answers beside {many} of a tenant with 30 connections");
}

#[test]
fn a_tenant_with_many_connections_leaves_another_its_share() {
    a_sequential_tenant_during_a_flood([None, None]);
}

#[test]
fn a_tenant_that_asks_for_high_priority_leaves_one_of_low_its_share() {
    a_sequential_tenant_during_a_flood([Some("high"), Some("low")]);
}

#[test]
fn nothing_is_rejected_at_a_cold_start_without_measurements() {
    let job = Job::taking(54 * MILLI, &server(&["one"], "", &[]), "one");
    for first in [None, Some(Job::ring(10, 10))] {
        let (server, tally, stop) = (server(&["one"], "", &[]), Tally::default(), AtomicBool::new(false));
        // A small one says nothing of the next.
        first.iter().for_each(|small| assert_eq!(small.run(&server, "one", None).0, 200));
        std::thread::scope(|scope| {
            keep_asking(scope, (&server, "one", &job), 30, None, (&tally, &stop));
            sleep(size(3, 20) * SECOND);
            stop.store(true, Ordering::SeqCst);
        });
        let (done, rejected) = tally.get();
        println!("{done} answered, {rejected} refused; after a small one: {}", first.is_some());
        assert!(rejected == 0 && done > 0, "{rejected} refused and {done} answered");
    }
}

/// Four tenants ask together for four times what the machine can do; three of them for less than a quarter of it.
#[test]
fn each_tenant_that_asks_for_less_than_its_share_gets_all_of_it() {
    let server = server(&["flood", "a", "b", "c"], "", &[]);
    let job = Job::taking(size(50, 100) * MILLI, &server, "a");
    let (stop, begun) = (AtomicBool::new(false), Instant::now());
    let (flood, light) = (Tally::default(), <[Tally; 3]>::default());
    let sent = std::thread::scope(|scope| {
        keep_asking(scope, (&server, "flood", &job), 80, None, (&flood, &stop));
        while flood.get().0 < 20 && begun.elapsed() < 60 * SECOND {
            sleep(10 * MILLI);
        }
        // What the machine does with the flood alone, its connections and this test included.
        let (before, since) = (flood.get().0, Instant::now());
        sleep(size(2, 10) * SECOND);
        let capacity = (flood.get().0 - before).max(4) as f64 / since.elapsed().as_secs_f64();
        // Less than all that the flood has waiting takes, and ten times as long as its share has to wait.
        let deadline = Some(Duration::from_secs_f64(30.0 / capacity));
        let (mut sent, begun) = ([0; 3], Instant::now());
        let shares = [0.05, 0.10, 0.15];
        while begun.elapsed() < size(5, 60) * SECOND {
            for (tenant, name) in ["a", "b", "c"].into_iter().enumerate() {
                if f64::from(sent[tenant]) < begun.elapsed().as_secs_f64() * capacity * shares[tenant] {
                    let (server, job, tally) = (&server, &job, &light[tenant]);
                    scope.spawn(move || tally.count(&job.run(server, name, deadline)));
                    sent[tenant] += 1;
                }
            }
            sleep(5 * MILLI);
        }
        // Those that are on their way are answered beside the flood.
        let all: u32 = sent.iter().sum();
        let patient = Instant::now();
        while light.iter().map(|tally| tally.get().0 + tally.get().1).sum::<usize>() < all as usize
            && patient.elapsed() < 60 * SECOND
        {
            sleep(10 * MILLI);
        }
        stop.store(true, Ordering::SeqCst);
        sent
    });
    for (tally, sent) in light.iter().zip(sent) {
        let (done, rejected) = tally.get();
        println!("{done} of {sent} answered, {rejected} refused, beside {:?}", flood.get());
        // Of a few, one is more than 5 %.
        assert!(done as f64 >= 0.95 * f64::from(sent), "{done} of {sent} answered, {rejected} refused");
    }
}
