//! How many messages an actor takes, and that each is counted once.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr};
use serde_json::json;
use tower_kernels::actix::{ActorError, GetStats, KernelActor, KernelActorConfig, ListKernels};
use tower_kernels::error::{Classify, ErrorKind};

use crate::actix::kernels::{Service, Watch, assert_adds_up, busy, execute, run, saxpy, service, until};

fn start(mailbox_capacity: usize) -> (Addr<KernelActor<Service>>, Watch) {
    let (service, watch) = service(1, 0);
    let registry = Arc::clone(service.registry());
    let config = KernelActorConfig { name: "worker".to_owned(), mailbox_capacity, ..Default::default() };
    (KernelActor::with_service(service, registry, config).start(), watch)
}

#[test]
fn a_full_mailbox_is_an_error_at_once() {
    run(async {
        let (actor, mut watch) = start(2);
        let running = actor.send(busy());
        watch.started.recv().await.unwrap();
        let waiting = actor.send(busy());
        for _ in 0..3 {
            let error = actor.send(saxpy()).await.unwrap().unwrap_err();
            assert_eq!((error.kind(), error.retry_after()), (ErrorKind::Overloaded, Some(Duration::from_secs(1))));
            let ActorError::MailboxFull { name, capacity } = error else { panic!("{error:?}") };
            assert_eq!((&*name, capacity), ("worker", 2));
        }
        assert!(!actor.send(ListKernels).await.unwrap().is_empty(), "only kernels to run are counted");

        drop(running);
        watch.started.recv().await.unwrap();
        until(&actor, |stats| stats.in_flight == 1).await;
        let taken = actor.send(saxpy());
        drop(waiting);
        taken.await.unwrap().unwrap();
        let stats = until(&actor, |stats| stats.in_flight == 0).await;
        assert_eq!((stats.rejected, stats.cancelled, stats.completed), (3, 2, 1));
    });
}

#[test]
fn a_capacity_of_none_counts_as_one_and_any_other_is_taken() {
    run(async {
        for capacity in [0, 1, 17, usize::MAX] {
            let (actor, _watch) = start(capacity);
            for _ in 0..3 {
                actor.send(saxpy()).await.unwrap().unwrap();
                // actix makes sure that the capacity leaves room for this sender.
                drop(actor.clone());
            }
        }
    });
}

/// What actix itself does while the actor's thread is held up, here by the test.
#[test]
fn while_the_thread_is_blocked_try_send_rejects_and_send_does_not_hang() {
    run(async {
        let (actor, _watch) = start(4);
        // Until the actor has started its mailbox has actix's own capacity.
        actor.send(GetStats).await.unwrap();
        let rejection = (0..100).find_map(|_| actor.try_send(saxpy()).err()).expect("a mailbox with an end");
        assert_eq!((rejection.kind(), rejection.retry_after().is_some()), (ErrorKind::Overloaded, true));

        let replies: Vec<_> = (0..100).map(|_| actor.send(saxpy())).collect();
        let (mut answered, mut refused) = (0, 0);
        for reply in replies {
            match reply.await.unwrap() {
                Ok(_) => answered += 1,
                Err(ActorError::MailboxFull { .. }) => refused += 1,
                Err(error) => panic!("{error:?}"),
            }
        }
        assert_eq!(answered + refused, 100);
        let stats = until(&actor, |stats| stats.in_flight == 0).await;
        assert_eq!((stats.rejected >= refused, stats.received >= 100), (true, true), "{stats:?}");
    });
}

#[test]
fn whatever_becomes_of_a_message_it_is_counted_once() {
    run(async {
        let (actor, mut watch) = start(8);
        let mut replies = Vec::new();
        let (mut completed, mut failed, mut refused) = (0, 0, 0);
        for round in 0..50 {
            let cancelled = actor.send(busy());
            let messages =
                [saxpy(), execute("no/such", json!({})), execute("linalg/saxpy", json!([])), saxpy(), saxpy()];
            replies.extend(messages.into_iter().map(|message| actor.send(message)));
            watch.started.recv().await.unwrap();
            if round % 2 == 0 {
                replies.extend((0..5).map(|_| actor.send(saxpy())));
                assert_adds_up(&actor.send(GetStats).await.unwrap());
            }
            drop(cancelled);
            watch.stopped.recv().await.unwrap();
            for reply in replies.drain(..) {
                match reply.await.unwrap() {
                    Ok(_) => completed += 1,
                    Err(ActorError::MailboxFull { .. }) => refused += 1,
                    Err(_) => failed += 1,
                }
            }
        }
        let stats = until(&actor, |stats| stats.in_flight == 0).await;
        assert_eq!((stats.completed, stats.failed, stats.rejected, stats.cancelled), (completed, failed, refused, 50));
        assert!(refused > 0, "{stats:?}");
        assert_eq!((stats.name.as_str(), stats.restarts), ("worker", 0));
    });
}
