//! Models of threads that store, find, use and remove the same operands.
//!
//! At the end of each, exactly the versions that are stored are in memory and count.

use std::sync::{Arc, Weak};

use loom::thread;

use super::{OperandError, OperandLimits, OperandVersion, Operands, PutOptions, RemoveOptions, TensorSet};

/// Bytes of an element.
const SIZE: u64 = 8;

/// Stores `len` elements, all of this value.
fn put(
    operands: &Operands,
    name: &str,
    len: usize,
    options: &PutOptions,
) -> Result<Weak<OperandVersion>, OperandError> {
    let stored = operands.put_with(name, TensorSet::of("x", vec![len as f64; len]), options)?;
    Ok(Arc::downgrade(stored.version().unwrap()))
}

fn store(operands: &Operands, name: &str, len: usize) -> Weak<OperandVersion> {
    put(operands, name, len, &PutOptions::default()).unwrap()
}

fn remove(operands: &Operands, name: &str) -> bool {
    match operands.remove(name, &RemoveOptions::default()) {
        Ok(_) => true,
        Err(OperandError::NotFound { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

/// Holds the newest version, if there is one, as a request does. Returns its number.
fn run(operands: &Operands, tenant: Option<&str>, name: &str) -> Option<u64> {
    let version = operands.get(tenant, name)?;
    let usage = operands.usage();
    assert!(usage.versions >= 1 && usage.bytes >= version.bytes(), "{usage:?} does not count {version:?}");
    let len = version.bytes() / SIZE;
    assert_eq!(version.arrays()[0].bytes[..8], (len as f64).to_ne_bytes(), "its value is gone");
    Some(version.version())
}

/// Asserts that the only versions in memory are stored ones of so many elements together.
fn check(operands: &Operands, versions: u64, len: usize) {
    let usage = operands.usage();
    assert_eq!((usage.operands, usage.versions, usage.bytes), (versions, versions, len as u64 * SIZE));
}

#[test]
fn loom_a_version_that_is_replaced_is_freed_when_the_request_on_it_ends() {
    loom::model(|| {
        let operands = Operands::default();
        let first = store(&operands, "a", 1);
        let writer = operands.clone();
        let writer = thread::spawn(move || store(&writer, "a", 2));
        assert!(matches!(run(&operands, None, "a"), Some(1 | 2)), "one version or the other is always there");
        let second = writer.join().unwrap();
        assert_eq!((first.strong_count(), second.strong_count()), (0, 1));
        check(&operands, 1, 2);
        assert!(remove(&operands, "a"));
        assert_eq!(second.strong_count(), 0);
        check(&operands, 0, 0);
    });
}

#[test]
fn loom_of_two_writers_of_a_name_the_last_has_the_newest_version() {
    loom::model(|| {
        let operands = Operands::default();
        let writer = operands.clone();
        let writer = thread::spawn(move || store(&writer, "a", 2));
        let here = store(&operands, "a", 1);
        let there = writer.join().unwrap();
        let newest = operands.get(None, "a").unwrap();
        assert_eq!(newest.version(), 2);
        let is_here = here.upgrade().is_some();
        assert_ne!(is_here, there.upgrade().is_some(), "the other one is freed");
        check(&operands, 1, if is_here { 1 } else { 2 });
    });
}

#[test]
fn loom_writers_of_different_names_lose_none() {
    loom::model(|| {
        let operands = Operands::default();
        store(&operands, "c", 4);
        let writer = operands.clone();
        let writer = thread::spawn(move || {
            store(&writer, "a", 1);
            assert!(remove(&writer, "c"));
        });
        store(&operands, "b", 2);
        writer.join().unwrap();
        assert!(operands.get(None, "a").is_some() && operands.get(None, "b").is_some());
        check(&operands, 2, 3);
    });
}

#[test]
fn loom_a_name_is_removed_once_while_requests_use_it() {
    loom::model(|| {
        let operands = Operands::default();
        let version = store(&operands, "a", 1);
        let others = [operands.clone(), operands.clone()];
        let [remover, reader] = others;
        let remover = thread::spawn(move || remove(&remover, "a"));
        let reader = thread::spawn(move || run(&reader, None, "a"));
        let removed_here = remove(&operands, "a");
        assert_ne!(removed_here, remover.join().unwrap());
        reader.join().unwrap();
        assert_eq!(version.strong_count(), 0);
        check(&operands, 0, 0);
    });
}

#[test]
fn loom_puts_at_once_do_not_exceed_a_budget() {
    loom::model(|| {
        let operands = Operands::new(OperandLimits { max_bytes: SIZE, ..OperandLimits::default() });
        let writer = operands.clone();
        let writer = thread::spawn(move || put(&writer, "a", 1, &PutOptions::default()).is_ok());
        let here = put(&operands, "b", 1, &PutOptions::default()).is_ok();
        assert!(here != writer.join().unwrap(), "one of the two has the whole budget");
        check(&operands, 1, 1);
    });
}

#[test]
fn loom_a_version_that_is_freed_makes_room_for_a_put() {
    loom::model(|| {
        let operands = Operands::new(OperandLimits { max_bytes: 2 * SIZE, ..OperandLimits::default() });
        store(&operands, "a", 2);
        let remover = operands.clone();
        let remover = thread::spawn(move || assert!(remove(&remover, "a")));
        let stored = match put(&operands, "b", 2, &PutOptions::default()) {
            Ok(_) => true,
            Err(OperandError::OverBudget { need, free, .. }) => {
                assert_eq!((need, free), (2 * SIZE, 0));
                false
            }
            Err(error) => panic!("{error}"),
        };
        remover.join().unwrap();
        if !stored {
            store(&operands, "b", 2);
        }
        check(&operands, 1, 2);
    });
}

#[test]
fn loom_a_public_operand_is_there_for_another_tenant_while_it_is_replaced() {
    loom::model(|| {
        let operands = Operands::default();
        let options = PutOptions { tenant: Some("acme".into()), public: true, ..PutOptions::default() };
        put(&operands, "a", 1, &options).unwrap();
        let writer = operands.clone();
        let writer = thread::spawn(move || drop(put(&writer, "a", 2, &options).unwrap()));
        assert!(run(&operands, Some("globex"), "a").is_some());
        writer.join().unwrap();
        assert_eq!(run(&operands, Some("globex"), "a"), Some(2));
        check(&operands, 1, 2);
    });
}
