//! The cases of `benches/layers.rs`: one call of a service stack around an inner service that is ready at once.
//!
//! To add a case, write a function that builds the stack and gives it to [`drive`], and list it in its module's
//! `CASES`. Every case is run in a process of its own, so it may install what is global: a recorder, a subscriber.

use std::fmt::Debug;
use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tower::Service;

mod auth;
mod batch;
mod boxes;
mod faults;
mod http_peers;
mod inner;
mod operands;
mod ours;
mod pipeline;
mod queue;
mod repeats;
mod stores;
mod tower_peers;

/// Makes the given number of calls.
pub type Calls = Box<dyn FnMut(u64)>;

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// The row's name, and the argument of `--case`.
    pub name: &'static str,
    /// The case whose figures are subtracted to get the layer's own; `None` for a baseline.
    pub over: Option<&'static str>,
    /// Builds the stack.
    pub build: fn() -> Calls,
}

/// All cases, in the order of the table.
pub fn cases() -> impl Iterator<Item = Case> {
    [
        inner::CASES,
        ours::AROUND_KERNELS,
        ours::AROUND_JOBS,
        ours::AROUND_HTTP,
        ours::ANSWER,
        ours::OVERLOAD,
        auth::CASES,
        pipeline::CASES,
        repeats::CASES,
        queue::CASES,
        batch::CASES,
        faults::CASES,
        tower_peers::CASES,
        http_peers::CASES,
        boxes::CASES,
        stores::CASES,
        operands::CASES,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// The case called `name`.
pub fn case(name: &str) -> Option<Case> {
    cases().find(|case| case.name == name)
}

/// Calls `service` with what `request` makes: ready, call, one poll, drop.
///
/// No runtime and no waker take part, so that the figures are the stack's own.
fn drive<S, R>(mut service: S, request: impl Fn() -> R + 'static) -> Calls
where
    S: Service<R, Error: Debug> + 'static,
    R: 'static,
{
    Box::new(move |calls| {
        for _ in 0..calls {
            call_once(&mut service, request());
        }
    })
}

/// Not inlined, so that nothing of a call is hoisted out of the loop over calls.
#[inline(never)]
fn call_once<S, R>(service: &mut S, request: R)
where
    S: Service<R, Error: Debug>,
{
    let mut cx = Context::from_waker(Waker::noop());
    match black_box(&mut *service).poll_ready(&mut cx) {
        Poll::Ready(Ok(())) => {}
        Poll::Ready(Err(error)) => panic!("the service refused to be ready: {error:?}"),
        Poll::Pending => panic!("the service was not ready at once"),
    }
    let mut answer = pin!(service.call(black_box(request)));
    match answer.as_mut().poll(&mut cx) {
        Poll::Ready(Ok(answer)) => drop(black_box(answer)),
        Poll::Ready(Err(error)) => panic!("the call failed: {error:?}"),
        Poll::Pending => panic!("the answer was not ready at once"),
    }
}

/// Makes the calls inside a tokio runtime's context, for what asks for its clock or timers.
fn in_runtime(build: impl FnOnce() -> Calls) -> Calls {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a tokio runtime");
    let mut calls = {
        let _context = runtime.enter();
        build()
    };
    Box::new(move |count| {
        let _context = runtime.enter();
        calls(count);
    })
}
