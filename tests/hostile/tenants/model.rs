//! The ready pipeline over a machine whose time is paused: shares and estimates without the noise of a real one.

use std::collections::HashMap;
use std::num::{NonZeroU16, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tower::{Layer, ServiceExt, service_fn};
use tower_kernels::error::ErrorKind;
use tower_kernels::pipeline::{KernelHandler, Pipeline, PipelineConfig, PipelineHandle, PipelineLayer, TenantConfig};
use tower_kernels::request::{Execution, Priority};
use tower_kernels::service::{KernelError, KernelRegistry, KernelRequest, KernelResponse, Payload};

use super::{MILLI, SECOND};

/// So many workers; a call's payload is how long it takes, in milliseconds.
fn machine(workers: usize) -> impl KernelHandler {
    let workers = Arc::new(Semaphore::new(workers));
    service_fn(move |request: KernelRequest| {
        let workers = Arc::clone(&workers);
        async move {
            let Payload::Json(told) = &request.payload else { panic!("no JSON") };
            let millis: u64 = serde_json::from_slice(told).expect("a number");
            let _worker = workers.acquire_owned().await;
            let begun = Instant::now();
            sleep(Duration::from_millis(millis)).await;
            let mut execution = Execution::new("model");
            execution.executed = begun.elapsed();
            Ok::<_, KernelError>(KernelResponse::new(Payload::json("{}"), execution))
        }
    })
}

fn pipeline(
    workers: usize,
    change: impl FnOnce(&mut PipelineConfig),
) -> (Pipeline<impl KernelHandler>, PipelineHandle) {
    let mut config = PipelineConfig::default();
    change(&mut config);
    let layer = PipelineLayer::new(KernelRegistry::new(), config).unwrap();
    (layer.layer(machine(workers)), layer.handle())
}

/// What a tenant asks for.
#[derive(Clone, Copy, Debug)]
struct Demand {
    tenant: &'static str,
    /// Of the machine.
    part: f64,
    /// Of each of its calls.
    millis: u64,
    priority: Priority,
    deadline: Option<Duration>,
}

/// Calls by the clock for a minute of it, and for each tenant which part of the machine it was given and of its calls were
/// answered.
async fn offer(
    pipeline: &Pipeline<impl KernelHandler + Sync>,
    workers: usize,
    demands: &[Demand],
) -> HashMap<&'static str, (f64, f64)> {
    const MINUTE: Duration = Duration::from_secs(60);
    let (begun, mut calls) = (Instant::now(), JoinSet::new());
    let mut sent = vec![0_u32; demands.len()];
    let due = |demand: &Demand, sent: u32| {
        let each = demand.millis as f64 / 1e3 / (demand.part * workers as f64);
        begun + Duration::from_secs_f64(each * f64::from(sent))
    };
    loop {
        let next = (0..demands.len()).min_by_key(|&n| due(&demands[n], sent[n])).unwrap();
        let (demand, at) = (demands[next], due(&demands[next], sent[next]));
        if at >= begun + MINUTE {
            break;
        }
        sent[next] += 1;
        sleep_until(at).await;
        let mut request = KernelRequest::new("any", Payload::json(demand.millis.to_string()));
        (request.tenant, request.priority) = (Some(demand.tenant.into()), demand.priority);
        request.deadline = demand.deadline.map(|deadline| (at + deadline).into_std());
        let call = pipeline.clone().oneshot(request);
        calls.spawn(async move { (next, call.await.is_ok(), begun.elapsed() <= MINUTE) });
    }
    let [mut done, mut answered] = [(); 2].map(|()| vec![0_u32; demands.len()]);
    while let Some(call) = calls.join_next().await {
        let (demand, is_answered, in_the_minute) = call.unwrap();
        done[demand] += u32::from(is_answered && in_the_minute);
        answered[demand] += u32::from(is_answered);
    }
    let given = (0..demands.len()).map(|n| {
        let part = f64::from(done[n]) * demands[n].millis as f64 / 1e3 / MINUTE.as_secs_f64() / workers as f64;
        (demands[n].tenant, (part, f64::from(answered[n]) / f64::from(sent[n])))
    });
    given.collect()
}

const WORKERS: usize = 4;

/// Four times what the machine can do, of which one tenant asks for most, at a higher priority, in longer calls.
fn four_times(deadline: Option<Duration>) -> [Demand; 4] {
    let light = |tenant, part| Demand { tenant, part, millis: 20, priority: Priority::Low, deadline };
    let flood = Demand { tenant: "flood", part: 3.4, millis: 100, priority: Priority::High, deadline };
    [flood, light("a", 0.15), light("b", 0.20), light("c", 0.23)]
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_less_than_its_share_gets_all_of_it_at_four_times_the_load() {
    for deadline in [None, Some(2 * SECOND)] {
        let (pipeline, _) = pipeline(WORKERS, |config| config.concurrency = NonZeroUsize::new(WORKERS));
        let given = offer(&pipeline, WORKERS, &four_times(deadline)).await;
        for light in ["a", "b", "c"] {
            assert!(given[light].1 >= 0.95, "deadline {deadline:?}: {given:?}");
        }
        // And the rest is not left idle.
        let all: f64 = given.values().map(|(part, _)| part).sum();
        assert!(all >= 0.95, "deadline {deadline:?}: {given:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_more_than_its_share_gets_its_weight() {
    let named = |config: &mut PipelineConfig| {
        config.concurrency = NonZeroUsize::new(WORKERS);
        let weight = NonZeroU16::new(3).unwrap();
        config.tenants.named.insert("heavy".into(), TenantConfig { weight, ..TenantConfig::default() });
    };
    let (pipeline, _) = pipeline(WORKERS, named);
    let demand = |tenant, millis, priority| Demand { tenant, part: 1.5, millis, priority, deadline: None };
    // The shares are of time, whatever each call takes, and a priority takes nothing from another tenant.
    let demands = [
        demand("heavy", 50, Priority::Normal),
        demand("long", 100, Priority::High),
        demand("short", 10, Priority::Normal),
    ];
    let given = offer(&pipeline, WORKERS, &demands).await;
    for (tenant, share) in [("heavy", 0.6), ("long", 0.2), ("short", 0.2)] {
        assert!((given[tenant].0 - share).abs() < 0.06, "{given:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn made_up_names_gain_nothing_where_nobody_verifies_them() {
    let (pipeline, _) = pipeline(WORKERS, |config| {
        config.concurrency = NonZeroUsize::new(WORKERS);
        config.tenants.verified = false;
        config.tenants.named.insert("honest".into(), TenantConfig::default());
    });
    let demand = |tenant| Demand { tenant, part: 0.9, millis: 20, priority: Priority::Normal, deadline: None };
    let names = ["one", "two", "three", "four", "honest"];
    let given = offer(&pipeline, WORKERS, &names.map(demand)).await;
    assert!(given["honest"].0 > 0.4, "{given:?}");
}

/// Thirty clients that ask again and again for 10 s, for what takes 54 ms, after some calls that took less or more.
async fn thirty_clients(first: &[u64]) -> (PipelineHandle, u32) {
    let (pipeline, handle) = pipeline(2, |_| ());
    let request = |millis: u64| KernelRequest::new("any", Payload::json(millis.to_string()));
    for &millis in first {
        pipeline.clone().oneshot(request(millis)).await.unwrap();
    }
    let (begun, mut clients) = (Instant::now(), JoinSet::new());
    for _ in 0..30 {
        let pipeline = pipeline.clone();
        clients.spawn(async move {
            let mut answered = 0;
            while begun.elapsed() < 10 * SECOND {
                match pipeline.clone().oneshot(request(54)).await {
                    Ok(_) => answered += 1,
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Overloaded);
                        sleep(10 * MILLI).await;
                    }
                }
            }
            answered
        });
    }
    let mut answered = 0;
    while let Some(client) = clients.join_next().await {
        answered += client.unwrap();
    }
    (handle, answered)
}

#[tokio::test(start_paused = true)]
async fn nothing_is_rejected_after_a_first_call_that_is_not_typical() {
    for first in [&[][..], &[1], &[3, 3, 3], &[2000], &[30_000 / 2]] {
        let (handle, answered) = thirty_clients(first).await;
        let shed = handle.load_shed().unwrap().snapshot().rejected;
        assert!(shed == 0 && answered >= 340, "{shed} refused and {answered} answered after {first:?} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn one_tenants_long_calls_say_nothing_of_anothers_short_ones() {
    let (pipeline, handle) = pipeline(2, |config| config.concurrency = NonZeroUsize::new(2));
    let request = |tenant: &str, millis: u64| {
        let mut request = KernelRequest::new("any", Payload::json(millis.to_string()));
        request.tenant = Some(tenant.into());
        request
    };
    let long = async || {
        for _ in 0..5 {
            pipeline.clone().oneshot(request("long", 4000)).await.unwrap();
        }
    };
    let short = async || {
        sleep(10 * SECOND).await;
        for _ in 0..50 {
            let deadline = Some((Instant::now() + SECOND).into_std());
            let mut request = request("short", 10);
            request.deadline = deadline;
            pipeline.clone().oneshot(request).await.unwrap();
        }
    };
    tokio::join!(long(), short());
    assert_eq!(handle.load_shed().unwrap().snapshot().rejected, 0);
}
