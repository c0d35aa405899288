use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::error::{Classify, ErrorKind};
use crate::service::{
    DType, OperandInfo, OperandLimits, Operands, Placement, PutCondition, PutOptions, RemoveOptions, Tensor, TensorSet,
};

/// A directory that does not exist yet, removed on drop.
struct TempDirectory(PathBuf);

impl TempDirectory {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("tower-kernels-operands-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self(std::env::temp_dir().join(name))
    }

    fn open(&self) -> Operands {
        self.open_within(OperandLimits::default())
    }

    /// Opens and loads the operands, as a process does that starts.
    fn open_within(&self, limits: OperandLimits) -> Operands {
        let operands = Operands::open(limits, &self.0).unwrap();
        operands.load();
        operands
    }

    /// The names of all files with this extension.
    fn files(&self, extension: &str) -> Vec<String> {
        let names = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name.ends_with(extension)).collect();
        names.sort();
        names
    }

    /// The only file with this extension.
    fn file(&self, extension: &str) -> PathBuf {
        let files = self.files(extension);
        assert_eq!(files.len(), 1, "{files:?}");
        self.0.join(&files[0])
    }
}

impl Drop for TempDirectory {
    fn drop(&mut self) {
        // A test may have removed it.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn numbers(values: &[f64]) -> TensorSet {
    TensorSet::of("x", values.to_vec())
}

fn by(tenant: &str) -> PutOptions {
    PutOptions { tenant: Some(tenant.into()), ..PutOptions::default() }
}

fn remove(operands: &Operands, name: &str) {
    operands.remove(name, &RemoveOptions::default()).unwrap();
}

fn value(operands: &Operands, reference: &str) -> Option<TensorSet> {
    let version = operands.get(None, reference)?;
    Some(TensorSet::clone(&version.value::<TensorSet>().unwrap()))
}

fn skipped(operands: &Operands) -> u64 {
    operands.usage().directory.unwrap().skipped
}

/// What clients see, without the count of requests.
fn list(operands: &Operands, tenant: Option<&str>) -> Vec<OperandInfo> {
    operands.list(tenant).into_iter().map(|info| OperandInfo { uses: 0, ..info }).collect()
}

#[test]
fn operands_are_the_same_after_a_restart() {
    let directory = TempDirectory::new();
    let operands = directory.open();
    let mut tensors = Tensors::new();
    for dtype in DType::ALL {
        let tensor = Tensor::new(dtype, vec![1, 3], Bytes::from(vec![1; 3 * dtype.size()])).unwrap();
        tensors.insert(format!("a {dtype}"), tensor).unwrap();
    }
    tensors.insert("scalar", Tensor::new(DType::Bool, vec![], Bytes::from_static(&[1])).unwrap()).unwrap();
    tensors.insert("empty", Tensor::new(DType::F64, vec![0, 7], Bytes::new()).unwrap()).unwrap();
    let all = TensorSet::from(tensors);
    operands.put("all", all.clone()).unwrap();
    operands.put("b", numbers(&[1.0])).unwrap();
    operands.put("b", numbers(&[2.0])).unwrap();
    let options = PutOptions { public: true, placement: Placement::HostOnly, ..by("acme \u{fc}/..") };
    operands.put_with("public", numbers(&[3.0]), &options).unwrap();
    // Larger than what is hashed and copied at a time.
    let large: Vec<f64> = (0..1 << 17).map(f64::from).collect();
    operands.put("large", numbers(&large)).unwrap();
    let before = (list(&operands, None), list(&operands, Some("acme \u{fc}/..")), operands.usage().bytes);
    drop(operands);

    let operands = directory.open();
    assert_eq!((list(&operands, None), list(&operands, Some("acme \u{fc}/..")), operands.usage().bytes), before);
    assert_eq!(value(&operands, "all"), Some(all));
    assert_eq!(value(&operands, "b@3"), Some(numbers(&[2.0])));
    assert_eq!(value(&operands, "large"), Some(numbers(&large)));
    assert_eq!(
        value(&operands, "all").unwrap().tensors().bytes_to_copy(),
        0,
        "arrays are used where they were read to"
    );
    assert_eq!(operands.put("new", numbers(&[])).unwrap().version().unwrap().version(), 5);
    assert_eq!(skipped(&operands), 0);
}

#[test]
fn the_file_of_a_value_is_as_documented() {
    let directory = TempDirectory::new();
    directory.open().put("a", TensorSet::of("x", vec![7_u32, 8])).unwrap();
    let table = br#"{"type":"tensors","tensors":[{"name":"x","dtype":"uint32","shape":[2]}]}"#;
    let mut expected = [&b"TKOPERND\x01\0\0\0"[..], &(table.len() as u32).to_le_bytes(), table].concat();
    expected.resize(expected.len().next_multiple_of(64), 0);
    expected.extend([7, 0, 0, 0, 8, 0, 0, 0]);
    let file = directory.file(".operand");
    assert_eq!(fs::read(&file).unwrap(), expected);
    assert_eq!(file.file_stem().unwrap().to_str().unwrap(), Sha256Hash::of_bytes(&expected).to_string());
}

#[cfg(unix)]
#[test]
fn only_the_owner_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let directory = TempDirectory::new();
    directory.open().put("a", numbers(&[1.0])).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory.0), 0o700);
    let files = directory.files("");
    assert_eq!(files.len(), 4, "{files:?}");
    for file in files {
        assert_eq!(mode(&directory.0.join(&file)), 0o600, "{file}");
    }
}

#[test]
fn a_version_is_not_used_again_after_it_was_removed_and_the_process_restarted() {
    let directory = TempDirectory::new();
    let operands = directory.open();
    operands.put("a", numbers(&[1.0])).unwrap();
    operands.put("a", numbers(&[2.0])).unwrap();
    operands.put_with("a", numbers(&[2.0]), &by("other")).unwrap();
    remove(&operands, "a");
    drop(operands);
    let operands = directory.open();
    assert!(operands.get(None, "a").is_none());
    assert_eq!(operands.put("a", numbers(&[3.0])).unwrap().version().unwrap().version(), 3);
    drop(operands);
    // Even without the record of it, as long as there is a version.
    for file in directory.files(".tenant") {
        fs::remove_file(directory.0.join(file)).unwrap();
    }
    let operands = directory.open();
    assert_eq!(operands.put("b", numbers(&[3.0])).unwrap().version().unwrap().version(), 4);
}

#[test]
fn equal_values_share_a_file_until_the_last_is_removed() {
    let directory = TempDirectory::new();
    let operands = directory.open();
    operands.put("a", numbers(&[1.0])).unwrap();
    let bytes = operands.usage().directory.unwrap().bytes;
    operands.put("a", numbers(&[1.0])).unwrap();
    operands.put("b", numbers(&[1.0])).unwrap();
    assert_eq!(fs::metadata(directory.file(".operand")).unwrap().len(), bytes);
    assert_eq!(operands.usage().directory.unwrap().bytes, bytes);
    remove(&operands, "a");
    drop(operands);
    let operands = directory.open();
    assert_eq!((value(&operands, "a"), value(&operands, "b")), (None, Some(numbers(&[1.0]))));
    remove(&operands, "b");
    assert_eq!((directory.files(".operand").len(), directory.files(".version").len()), (0, 0));
    assert_eq!(operands.usage().directory.unwrap().bytes, 0);
}

/// Changes a file, starts, and checks that `a` is not served, that `b` is, and that the file is as it was.
#[track_caller]
fn is_skipped(directory: &TempDirectory, extension: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let operands = directory.open();
    operands.put("a", numbers(&[1.0, 2.0])).unwrap();
    // The files of `a` are the only ones.
    let path = directory.file(extension);
    operands.put("b", numbers(&[3.0])).unwrap();
    let good = fs::read(&path).unwrap();
    drop(operands);
    let mut bad = good.clone();
    change(&mut bad);
    fs::write(&path, &bad).unwrap();

    let operands = directory.open();
    assert_eq!((value(&operands, "a"), value(&operands, "b")), (None, Some(numbers(&[3.0]))));
    assert!(skipped(&operands) > 0);
    assert_eq!(fs::read(&path).unwrap(), bad, "it stays as it is");
    // What is stored again is whole, whatever is in the way.
    operands.put("a", numbers(&[1.0, 2.0])).unwrap();
    drop(operands);
    let operands = directory.open();
    assert_eq!(value(&operands, "a"), Some(numbers(&[1.0, 2.0])));
    for name in ["a", "b"] {
        remove(&operands, name);
    }
    drop(operands);
    for file in directory.files("").iter().filter(|name| !name.ends_with(".tenant")) {
        fs::remove_file(directory.0.join(file)).unwrap();
    }
}

#[test]
fn damaged_files_are_skipped_and_never_served() {
    let directory = TempDirectory::new();
    for extension in [".operand", ".version"] {
        is_skipped(&directory, extension, |bytes| bytes.clear());
        is_skipped(&directory, extension, |bytes| bytes.truncate(1));
        is_skipped(&directory, extension, |bytes| bytes.truncate(bytes.len() - 1));
        is_skipped(&directory, extension, |bytes| bytes.push(b'\n'));
        is_skipped(&directory, extension, |bytes| bytes.fill(0xff));
        is_skipped(&directory, extension, |bytes| bytes.fill(b' '));
        // The start of a file is its head, and the end what it is about.
        for place in [0, 8, 12, 17, 40] {
            is_skipped(&directory, extension, |bytes| bytes[place] ^= 1);
            is_skipped(&directory, extension, |bytes| {
                let at = bytes.len() - 1 - place;
                bytes[at] ^= 0x80;
            });
        }
    }
    // A table that claims more than there is, in a file of the right length.
    is_skipped(&directory, ".operand", |bytes| {
        let at = bytes.windows(3).position(|text| text == b"[2]").unwrap();
        bytes[at + 1] = b'9';
    });
    is_skipped(&directory, ".operand", |bytes| bytes[12..16].copy_from_slice(&u32::MAX.to_le_bytes()));
}

#[test]
fn a_missing_value_and_a_record_under_another_name_are_skipped() {
    let directory = TempDirectory::new();
    directory.open().put("a", numbers(&[1.0])).unwrap();
    fs::remove_file(directory.file(".operand")).unwrap();
    let operands = directory.open();
    assert_eq!((value(&operands, "a"), skipped(&operands)), (None, 1));
    operands.put("a", numbers(&[1.0])).unwrap();
    drop(operands);
    let record = directory.file(".version");
    fs::copy(&record, record.with_file_name(format!("{}.version", Sha256Hash::of_bytes(b"")))).unwrap();
    let operands = directory.open();
    assert_eq!((value(&operands, "a"), skipped(&operands)), (Some(numbers(&[1.0])), 1));
}

#[test]
fn what_a_crash_leaves_is_removed_and_what_is_foreign_stays() {
    let directory = TempDirectory::new();
    let operands = directory.open();
    operands.put("a", numbers(&[1.0])).unwrap();
    let old = directory.file(".version");
    let (old_value, record) = (directory.file(".operand"), fs::read(&old).unwrap());
    operands.put("a", numbers(&[2.0])).unwrap();
    assert!(!old.exists() && !old_value.exists());
    drop(operands);
    // As if the process had ended between the record of the second version and the removal of the first.
    fs::write(&old, record).unwrap();
    fs::write(&old_value, "the value of the first version").unwrap();
    fs::write(directory.0.join("0000000000000007.partial"), "half").unwrap();
    fs::create_dir(directory.0.join("lost+found")).unwrap();
    for foreign in ["notes.txt", "x.partial", "x.version", "x.operand"] {
        fs::write(directory.0.join(foreign), "").unwrap();
    }
    let operands = directory.open();
    assert_eq!(value(&operands, "a@2"), Some(numbers(&[2.0])));
    assert!(!old.exists() && !old_value.exists() && !directory.0.join("0000000000000007.partial").exists());
    assert_eq!(skipped(&operands), 4);
    for foreign in ["notes.txt", "x.partial", "x.version", "x.operand"] {
        assert!(directory.0.join(foreign).exists(), "{foreign}");
    }
}

#[test]
fn a_value_that_may_belong_to_an_unreadable_version_stays() {
    let directory = TempDirectory::new();
    directory.open().put("a", numbers(&[1.0])).unwrap();
    let (record, stored) = (directory.file(".version"), directory.file(".operand"));
    let good = fs::read(&record).unwrap();
    fs::write(&record, &good[..good.len() - 1]).unwrap();
    assert_eq!(skipped(&directory.open()), 2);
    assert!(stored.exists());
    fs::write(&record, good).unwrap();
    assert_eq!(value(&directory.open(), "a"), Some(numbers(&[1.0])), "the administrator has repaired it");
}

#[test]
fn what_exceeds_a_budget_is_skipped_kept_and_not_back_after_it_was_replaced() {
    let directory = TempDirectory::new();
    let operands = directory.open();
    operands.put("a", numbers(&[1.0])).unwrap();
    operands.put("b", numbers(&[1.0, 2.0])).unwrap();
    operands.put("c", numbers(&[3.0])).unwrap();
    drop(operands);
    let limits = OperandLimits { max_bytes: 16, ..OperandLimits::default() };
    let operands = directory.open_within(limits);
    let names = |operands: &Operands| operands.list(None).into_iter().map(|info| info.name).collect::<Vec<_>>();
    assert_eq!((names(&operands), skipped(&operands), operands.usage().bytes), (vec!["a".into(), "c".into()], 1, 16));
    drop(operands);
    let one = OperandLimits { max_operands: 1, ..OperandLimits::default() };
    assert_eq!(names(&directory.open_within(one)), ["c"], "the last that was stored");
    assert_eq!(names(&directory.open()), ["a", "b", "c"], "nothing was lost");

    let operands = directory.open_within(limits);
    remove(&operands, "a");
    operands.put("b", numbers(&[4.0])).unwrap();
    remove(&operands, "b");
    drop(operands);
    assert_eq!(names(&directory.open()), ["c"], "a version that was replaced does not come back");
}

#[test]
fn a_directory_is_used_by_one_process_at_a_time() {
    let directory = TempDirectory::new();
    let operands = directory.open();
    let error = Operands::open(OperandLimits::default(), &directory.0).unwrap_err();
    assert!(matches!(error, OpenOperandsError::InUse { .. }));
    assert_eq!(error.to_string(), format!("the operands in {} are in use by another process", directory.0.display()));
    drop(operands);
    directory.open();

    let file = directory.0.join("file");
    fs::write(&file, "").unwrap();
    let error = Operands::open(OperandLimits::default(), &file).unwrap_err();
    assert!(matches!(error, OpenOperandsError::Io { .. }), "{error}");
}

#[test]
fn nothing_changes_until_the_operands_are_loaded() {
    let directory = TempDirectory::new();
    directory.open().put("a", numbers(&[1.0])).unwrap();
    let operands = Operands::open(OperandLimits::default(), &directory.0).unwrap();
    assert!(operands.is_loading());
    let put = operands.put_with("a", numbers(&[2.0]), &PutOptions::default()).map(drop);
    let removed = operands.remove("a", &RemoveOptions::default()).map(drop);
    for result in [put, removed, operands.check_put("a", "tensors", &PutOptions::default())] {
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.retry_after().is_some()), (ErrorKind::Unavailable, true), "{error}");
    }
    operands.load();
    operands.load();
    assert!(!operands.is_loading());
    assert_eq!(value(&operands, "a@1"), Some(numbers(&[1.0])));
    let if_absent = PutOptions { condition: PutCondition::IfAbsent, ..PutOptions::default() };
    let error = operands.put_with("a", numbers(&[2.0]), &if_absent).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PreconditionFailed);
}

#[test]
fn a_put_that_cannot_be_written_changes_nothing() {
    let directory = TempDirectory::new();
    let operands = directory.open();
    operands.put("a", numbers(&[1.0])).unwrap();
    let aside = directory.0.with_extension("aside");
    fs::rename(&directory.0, &aside).unwrap();
    let error = operands.put("a", numbers(&[2.0])).unwrap_err();
    assert!(matches!(error, OperandError::Directory(_)), "{error}");
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert_eq!(value(&operands, "a@1"), Some(numbers(&[1.0])));
    let usage = operands.usage();
    assert_eq!((usage.versions, usage.bytes, usage.stored), (1, 8, 1));
    fs::rename(&aside, &directory.0).unwrap();
    assert_eq!(operands.put("a", numbers(&[2.0])).unwrap().version().unwrap().version(), 2);
}

#[test]
fn a_version_that_cannot_be_recorded_leaves_no_value() {
    let directory = TempDirectory::new();
    let operands = directory.open();
    operands.put("a", numbers(&[1.0])).unwrap();
    // The name of the next record is that of a directory, which no file replaces.
    let record = directory.0.join(manifest_name("", "a", 2));
    fs::create_dir(&record).unwrap();
    assert!(matches!(operands.put("a", numbers(&[2.0])).unwrap_err(), OperandError::Directory(_)));
    assert_eq!((directory.files(".operand").len(), directory.files(".partial").len()), (1, 0));
    assert_eq!(value(&operands, "a@1"), Some(numbers(&[1.0])));
    fs::remove_dir(&record).unwrap();
    drop(operands);
    assert_eq!(value(&directory.open(), "a@1"), Some(numbers(&[1.0])));
}

#[test]
fn threads_that_store_and_remove_equal_values_lose_none() {
    let directory = TempDirectory::new();
    let operands = directory.open();
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let operands = &operands;
            scope.spawn(move || {
                for round in 0..20 {
                    let name = format!("t{thread}");
                    operands.put(&name, numbers(&[f64::from(round % 3)])).unwrap();
                    if round % 4 == 0 {
                        remove(operands, &name);
                    }
                }
            });
        }
    });
    let before = list(&operands, None);
    assert_eq!(before.len(), 4);
    assert_eq!((directory.files(".operand").len(), directory.files(".version").len()), (1, 4));
    drop(operands);
    let operands = directory.open();
    assert_eq!((list(&operands, None), skipped(&operands)), (before, 0));
}

#[derive(Clone, Debug)]
enum Step {
    Put { name: usize, value: u8 },
    Remove { name: usize },
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..3_usize, 0..3_u8).prop_map(|(name, value)| Step::Put { name, value }),
        2 => (0..3_usize).prop_map(|name| Step::Remove { name }),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn after_any_steps_the_files_are_those_of_the_operands(steps in steps()) {
        let names = ["a", "b", "c"];
        let directory = TempDirectory::new();
        let mut operands = directory.open();
        let mut model: BTreeMap<usize, (u64, u8)> = BTreeMap::new();
        let mut last = 0;
        for step in steps.into_iter().chain([Step::Restart]) {
            match step {
                Step::Put { name, value } => {
                    let stored = operands.put(names[name], TensorSet::of("x", vec![value; 3])).unwrap();
                    last += 1;
                    prop_assert_eq!(stored.version().unwrap().version(), last);
                    model.insert(name, (last, value));
                }
                Step::Remove { name } => {
                    let removed = operands.remove(names[name], &RemoveOptions::default());
                    prop_assert_eq!(removed.is_ok(), model.remove(&name).is_some());
                }
                Step::Restart => {
                    let before = list(&operands, None);
                    drop(operands);
                    operands = directory.open();
                    prop_assert_eq!(list(&operands, None), before);
                    prop_assert_eq!(skipped(&operands), 0);
                }
            }
            let found: BTreeMap<usize, (u64, u8)> = (0..3)
                .filter_map(|name| Some((name, operands.get(None, names[name])?)))
                .map(|(name, version)| (name, (version.version(), version.arrays()[0].bytes[0])))
                .collect();
            prop_assert_eq!(&found, &model);
            let mut values: Vec<u8> = model.values().map(|(_, value)| *value).collect();
            values.sort_unstable();
            values.dedup();
            let counts = [".version", ".operand", ".partial"].map(|extension| directory.files(extension).len());
            prop_assert_eq!(counts, [model.len(), values.len(), 0]);
        }
    }
}
