use serde_json::Value;
use tower_kernels::service::{
    Cost, InvalidInput, Kernel, KernelInfo, KernelRegistry, KernelRequest, Payload, RegisterError,
};

use crate::kernels::{Panics, Sum};

#[test]
fn kernels_are_found_by_id_and_alias_and_listed_in_order() {
    let registry = KernelRegistry::new();
    registry.register(Sum { cost: Cost::default() }).unwrap();
    registry.register(Panics { cost: Cost::default(), twice: false }).unwrap();
    assert_eq!(registry.get("sum").unwrap().info().id, "test/sum");
    assert_eq!(registry.get("test/sum").unwrap().info().domain(), "test");
    assert!(registry.get("test").is_none());
    let ids: Vec<_> = registry.list().iter().map(|kernel| kernel.info().id.clone()).collect();
    assert_eq!(ids, ["test/panics", "test/sum"]);
    assert_eq!(registry.domain("test").len(), 2);
    assert!(registry.domain("sum").is_empty());
}

#[test]
fn a_taken_name_is_refused_and_changes_nothing() {
    let registry = KernelRegistry::new();
    registry.register(Sum { cost: Cost::default() }).unwrap();
    let again = registry.register(Sum { cost: Cost::default() });
    assert_eq!(again, Err(RegisterError::Taken { name: "test/sum".into() }));
    assert_eq!(registry.len(), 1);
}

/// A kernel with these names, the first of which is the id.
struct Named(&'static [&'static str]);

impl Kernel for Named {
    type Input = Value;
    type Output = Value;

    fn info(&self) -> KernelInfo {
        let info = KernelInfo::new(self.0[0], "1.0.0", "Has names.");
        self.0[1..].iter().fold(info, |info, alias| info.alias(*alias))
    }

    fn validate(&self, _: &Value) -> Result<(), InvalidInput> {
        Ok(())
    }

    fn cost(&self, _: &Value) -> Cost {
        Cost::default()
    }
}

#[test]
fn an_alias_must_differ_from_all_ids_and_aliases() {
    let registry = KernelRegistry::new();
    registry.register(Named(&["a/one", "a/uno", "a/eins"])).unwrap();
    for (names, taken) in [
        (&["a/uno"][..], "a/uno"),
        (&["a/two", "a/one"], "a/one"),
        (&["a/two", "a/due", "a/eins"], "a/eins"),
        (&["a/two", "a/two"], "a/two"),
        (&["a/two", "a/due", "a/due"], "a/due"),
    ] {
        assert_eq!(registry.register(Named(names)), Err(RegisterError::Taken { name: taken.into() }), "{names:?}");
    }
    let invalid = registry.register(Named(&["a/two", "A Two"]));
    assert_eq!(invalid, Err(RegisterError::Name { name: "A Two".into() }));
    assert!(registry.len() == 1 && ["a/two", "a/due", "A Two"].iter().all(|name| registry.get(name).is_none()));
    registry.register(Named(&["a/two", "a/due"])).unwrap();
    assert_eq!(registry.get("a/due").unwrap().info().id, "a/two");
}

#[test]
fn a_request_by_an_alias_becomes_one_by_id() {
    let registry = KernelRegistry::new();
    registry.register(Named(&["a/one", "a/uno"])).unwrap();
    for (name, id) in [("a/uno", "a/one"), ("a/one", "a/one"), ("a/none", "a/none")] {
        let mut request = KernelRequest::new(name, Payload::json("1"));
        request.resolve_alias(&registry);
        assert_eq!(request.kernel_id, id);
    }
}

#[test]
fn a_description_holds_both_schemas() {
    let registry = KernelRegistry::new();
    registry.register(Sum { cost: Cost::default() }).unwrap();
    let description = serde_json::to_value(registry.describe("sum").unwrap()).unwrap();
    assert_eq!(description["id"], "test/sum");
    assert_eq!(description["domain"], "test");
    assert_eq!(description["mode"], "batch");
    assert_eq!(description["backends"], serde_json::json!(["CPU"]));
    let numbers = &description["input_schema"]["properties"]["numbers"];
    let forms = &numbers["anyOf"];
    assert_eq!((&forms[0]["type"], &numbers["x-dtype"]), (&"array".into(), &"float64".into()));
    assert_eq!(forms[1]["required"], serde_json::json!(["operand"]), "or a reference to one that is stored");
    // Null stands for NaN and the infinities.
    assert_eq!(description["output_schema"]["properties"]["total"]["type"], serde_json::json!(["number", "null"]));
}

#[test]
fn reading_goes_on_while_kernels_are_added() {
    let registry = KernelRegistry::new();
    registry.register(Sum { cost: Cost::default() }).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10_000 {
                    assert!(registry.get("test/sum").is_some());
                }
            });
        }
        registry.register(Panics { cost: Cost::default(), twice: false }).unwrap();
    });
    assert_eq!(registry.len(), 2);
}
