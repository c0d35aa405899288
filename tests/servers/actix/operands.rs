//! Operands that actors store, and that kernels refer to.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr};
use serde_json::json;
use tower_kernels::actix::{
    ActorError, DeleteOperand, ExecuteKernel, ExecuteMetadata, GetOperand, GetStats, KernelActor, KernelActorConfig,
    ListOperands, PutOperand,
};
use tower_kernels::error::{Classify, ErrorKind, chain};
use tower_kernels::service::{KernelRegistry, OperandError, Payload, PutCondition, PutOptions, RemoveOptions, Tensors};

use crate::actix::kernels::{Service, Watch, busy, execute, run, service, until};

fn start(config: KernelActorConfig) -> (Addr<KernelActor<Service>>, Arc<KernelRegistry>, Watch) {
    let (service, watch) = service(1, 1);
    let registry = Arc::clone(service.registry());
    (KernelActor::with_service(service, Arc::clone(&registry), config).start(), registry, watch)
}

fn put(name: &str, json: &str) -> PutOperand {
    let payload = Payload::json(json.to_owned());
    let options = PutOptions::default();
    PutOperand { name: name.into(), type_name: "tensors".into(), payload, options, timeout: None }
}

fn of_tenant(message: PutOperand, tenant: &str) -> PutOperand {
    let mut message = message;
    message.options.tenant = Some(tenant.into());
    message
}

fn get(operand: &str, tenant: Option<&str>) -> GetOperand {
    GetOperand { operand: operand.into(), tenant: tenant.map(Into::into) }
}

fn saxpy(x: &str) -> ExecuteKernel {
    execute("linalg/saxpy", json!({"a": 2.0, "x": {"operand": x}, "y": [10.0, 20.0]}))
}

#[test]
fn an_operand_is_put_once_queried_listed_and_removed() {
    run(async {
        let (actor, registry, _watch) = start(KernelActorConfig::default());
        let json = r#"{"close": {"dtype": "float32", "data": [1, 2]}}"#;
        let stored = actor.send(put("prices", json)).await.unwrap().unwrap();
        assert_eq!((&*stored.name, stored.version, stored.bytes), ("prices", 1, 8));
        for _ in 0..3 {
            let output = actor.send(saxpy("prices")).await.unwrap().unwrap().output;
            assert_eq!(output, json!({"y": [12.0, 24.0]}));
        }
        assert_eq!(actor.send(get("prices@1", None)).await.unwrap().unwrap().uses, 3);
        let vectors = put("corpus", r#"{"vectors": [[1, 2], [3, 4]], "dtype": "bfloat16"}"#);
        let stored = actor.send(PutOperand { type_name: "vectors".into(), ..vectors }).await.unwrap().unwrap();
        assert_eq!(stored.summary, json!({"rows": 2, "dimension": 2, "dtype": "bfloat16"}));
        actor.send(DeleteOperand { operand: "corpus".into(), ..Default::default() }).await.unwrap().unwrap();
        let mut tensors = Tensors::new();
        tensors
            .insert(
                "a",
                registry
                    .operands()
                    .get(None, "prices")
                    .unwrap()
                    .value::<tower_kernels::service::TensorSet>()
                    .unwrap()
                    .tensors()
                    .get("close")
                    .unwrap()
                    .clone(),
            )
            .unwrap();
        let message = PutOperand { payload: tensors.into(), ..put("again", "") };
        assert_eq!(actor.send(message).await.unwrap().unwrap().bytes, 8);
        let names: Vec<_> = actor.send(ListOperands::default()).await.unwrap().unwrap();
        assert_eq!(names.into_iter().map(|operand| operand.name).collect::<Vec<_>>(), ["again", "prices"]);
        for operand in ["again", "prices@1"] {
            let message = DeleteOperand { operand: operand.into(), options: RemoveOptions::default() };
            assert_eq!(actor.send(message).await.unwrap().unwrap().version, if operand == "again" { 3 } else { 1 });
        }
        assert_eq!((registry.operands().usage().versions, registry.operands().usage().bytes), (0, 0));
        let stats = actor.send(GetStats).await.unwrap();
        assert_eq!((stats.completed, stats.failed), (6, 0), "of which three stored an operand");
    });
}

#[test]
fn what_is_rejected_has_its_kind_and_leaves_the_old_version() {
    run(async {
        let (actor, registry, _watch) = start(KernelActorConfig::default());
        actor.send(put("x", r#"{"x": [1]}"#)).await.unwrap().unwrap();
        let with = |change: fn(&mut PutOperand)| {
            let mut message = put("x", r#"{"x": [2]}"#);
            change(&mut message);
            message
        };
        for (message, kind, says) in [
            (with(|put| put.name = "../x".into()), ErrorKind::InvalidArgument, "starts with a dot"),
            (with(|put| put.type_name = "matrix".into()), ErrorKind::InvalidArgument, "tensors"),
            (with(|put| put.payload = Payload::json(r#"{"x": ["#)), ErrorKind::InvalidArgument, ""),
            (with(|put| put.options.tenant = Some("".into())), ErrorKind::InvalidArgument, "tenant"),
            (with(|put| put.options.condition = PutCondition::IfAbsent), ErrorKind::PreconditionFailed, "entity tag"),
            (with(|put| put.timeout = Some(Duration::ZERO)), ErrorKind::DeadlineExceeded, "deadline"),
        ] {
            let error = actor.send(message).await.unwrap().unwrap_err();
            assert_eq!(error.kind(), kind, "{error:?}");
            assert!(chain(&error).to_string().contains(says), "{error}");
            let ActorError::Service(error) = error else { panic!("{error:?}") };
            assert_eq!(error.downcast_ref::<OperandError>().unwrap().kind(), kind);
        }
        assert_eq!(actor.send(get("x", None)).await.unwrap().unwrap().version, 1);
        assert_eq!(registry.operands().usage().versions, 1);
        let stats = until(&actor, |stats| stats.in_flight == 0).await;
        assert_eq!((stats.completed, stats.failed), (1, 6));
        for operand in ["x/x", "..", ""] {
            let error = actor.send(get(operand, None)).await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{operand}: {error:?}");
            let message = DeleteOperand { operand: operand.into(), options: RemoveOptions::default() };
            assert_eq!(actor.send(message).await.unwrap().unwrap_err().kind(), ErrorKind::InvalidArgument);
        }
    });
}

#[test]
fn tenants_have_their_own_operands() {
    run(async {
        let (actor, _registry, _watch) = start(KernelActorConfig::default());
        let json = r#"{"x": {"dtype": "float32", "data": [1, 2]}}"#;
        actor.send(of_tenant(put("x", json), "acme")).await.unwrap().unwrap();
        let mut public = of_tenant(put("open", json), "acme");
        public.options.public = true;
        actor.send(public).await.unwrap().unwrap();
        for (tenant, total, kind) in [("acme", 2, None), ("globex", 1, Some(ErrorKind::InvalidArgument))] {
            let list = ListOperands { tenant: Some(tenant.into()) };
            assert_eq!(actor.send(list).await.unwrap().unwrap().len(), total, "{tenant}");
            let metadata = ExecuteMetadata { tenant: Some(tenant.into()), ..Default::default() };
            let result = actor.send(ExecuteKernel { metadata, ..saxpy("x") }).await.unwrap();
            assert_eq!(result.err().map(|error| error.kind()), kind, "{tenant}");
            assert!(actor.send(get("open", Some(tenant))).await.unwrap().unwrap().public);
        }
        let error = actor.send(get("x", Some("globex"))).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
        let mut options = RemoveOptions::default();
        options.tenant = Some("globex".into());
        let error = actor.send(DeleteOperand { operand: "open".into(), options }).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "a public operand is removed by its tenant only: {error:?}");
    });
}

#[test]
fn a_full_mailbox_stores_nothing() {
    run(async {
        let config = KernelActorConfig { mailbox_capacity: 1, ..Default::default() };
        let (actor, registry, mut watch) = start(config);
        let running = actor.send(busy());
        watch.started.recv().await.unwrap();
        let error = actor.send(put("x", r#"{"x": [1]}"#)).await.unwrap().unwrap_err();
        assert!(matches!(error, ActorError::MailboxFull { capacity: 1, .. }), "{error:?}");
        assert!(registry.operands().is_empty());
        drop(running);
        until(&actor, |stats| stats.in_flight == 0).await;
        actor.send(put("x", r#"{"x": [1]}"#)).await.unwrap().unwrap();
    });
}
