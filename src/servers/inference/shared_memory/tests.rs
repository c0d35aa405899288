use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// A file in `/dev/shm` with a name of its own, removed on drop.
struct Object {
    name: String,
}

impl Object {
    fn unused() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { name: format!("tower-kernels-unit-{}-{number}", std::process::id()) }
    }

    fn of(bytes: &[u8]) -> Self {
        let object = Self::unused();
        fs::write(object.path(), bytes).unwrap();
        object
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/dev/shm").join(&self.name)
    }

    fn truncate(&self, length: u64) {
        File::options().write(true).open(self.path()).unwrap().set_len(length).unwrap();
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        let path = self.path();
        // A test may have made a directory of it, or nothing.
        let removed = if path.is_dir() && !path.is_symlink() { fs::remove_dir(path) } else { fs::remove_file(path) };
        drop(removed);
    }
}

fn slice(regions: &Regions, name: &str, offset: u64, bytes: u64) -> RegionSlice {
    RegionSlice::new(regions.find(name).unwrap(), offset, bytes).unwrap()
}

#[track_caller]
fn rejected(result: Result<(), RegionError>, field: &str) -> String {
    match result.unwrap_err() {
        RegionError::Invalid(invalid) if invalid.field == field => invalid.reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_key_is_one_name_below_the_directory() {
    for (key, name) in [("a", "a"), ("/a", "a"), ("//a", "a"), ("/a.b", "a.b"), ("/...", "...")] {
        assert_eq!(file_name(key).unwrap(), name);
    }
    let long = "x".repeat(256);
    for key in ["", "/", "..", "/..", ".", "/a/b", "../etc/passwd", "/../etc/passwd", "a/", "a\0b", &*long] {
        assert_eq!(file_name(key).unwrap_err().field, "key", "{key:?}");
        assert!(Regions::default().register("a", key, 0, 1).is_err(), "{key:?}");
    }
}

#[test]
fn only_regular_files_are_objects() {
    let (regions, target) = (Regions::default(), Object::of(b"secret"));
    let register = |object: &Object| regions.register("a", &object.name, 0, 1);
    let link = Object::unused();
    symlink("/etc/passwd", link.path()).unwrap();
    rejected(register(&link), "key");
    // One to another object, too.
    let link = Object::unused();
    symlink(target.path(), link.path()).unwrap();
    rejected(register(&link), "key");
    let directory = Object::unused();
    fs::create_dir(directory.path()).unwrap();
    rejected(register(&directory), "key");
    let fifo = Object::unused();
    let made = std::process::Command::new("mkfifo").arg(fifo.path()).status().unwrap();
    assert!(made.success());
    assert!(rejected(register(&fifo), "key").contains("regular file"));
    let socket = Object::unused();
    let _listener = std::os::unix::net::UnixListener::bind(socket.path()).unwrap();
    rejected(register(&socket), "key");
    rejected(register(&Object::unused()), "key");
    register(&target).unwrap();
}

#[test]
fn a_region_is_within_its_object_and_has_a_name_of_its_own() {
    let (regions, object) = (Regions::default(), Object::of(&[7; 100]));
    for (offset, byte_size) in
        [(0, 0), (0, 101), (1, 100), (100, 1), (u64::MAX, 1), (1, u64::MAX), (u64::MAX, u64::MAX), (i64::MAX as u64, 1)]
    {
        rejected(regions.register("a", &object.name, offset, byte_size), "byte_size");
    }
    for name in ["", "a\nb", &*"x".repeat(129)] {
        rejected(regions.register(name, &object.name, 0, 1), "name");
    }
    regions.register("a", &object.name, 10, 90).unwrap();
    let twice = regions.register("a", &object.name, 0, 1).unwrap_err();
    assert_eq!((twice.kind(), regions.status(None).unwrap().len()), (ErrorKind::AlreadyExists, 1));
    assert_eq!(regions.status(Some("b")).unwrap_err().kind(), ErrorKind::NotFound);
    let region = regions.find("a").unwrap();
    for (offset, byte_size) in [(0, 91), (90, 1), (1, 90), (u64::MAX, 1), (1, u64::MAX)] {
        assert!(RegionSlice::new(Arc::clone(&region), offset, byte_size).is_err(), "{offset} {byte_size}");
    }
    regions.unregister(Some("a"));
    regions.unregister(Some("a"));
    regions.register("a", &object.name, 0, 1).unwrap();
}

#[test]
fn there_are_at_most_so_many_regions() {
    let (regions, object) = (Regions::default(), Object::of(b"x"));
    for number in 0..MAX_REGIONS {
        regions.register(&number.to_string(), &object.name, 0, 1).unwrap();
    }
    assert_eq!(regions.register("more", &object.name, 0, 1).unwrap_err().kind(), ErrorKind::InsufficientStorage);
    regions.unregister(None);
    assert!(regions.status(None).unwrap().is_empty());
    regions.register("more", &object.name, 0, 1).unwrap();
}

#[test]
fn a_slice_is_read_and_written_where_it_is() {
    let (regions, object) = (Regions::default(), Object::of(b"0123456789"));
    regions.register("a", &object.name, 2, 8).unwrap();
    assert_eq!(slice(&regions, "a", 0, 8).read().unwrap(), &b"23456789"[..]);
    let slice = slice(&regions, "a", 3, 4);
    assert_eq!(slice.read().unwrap(), &b"5678"[..]);
    let error = slice.write(b"abcde").unwrap_err();
    assert_eq!(error.field, "parameters.shared_memory_byte_size");
    slice.write(b"ab").unwrap();
    assert_eq!(fs::read(object.path()).unwrap(), b"01234ab789");
}

#[test]
fn an_object_that_is_truncated_is_an_error_that_names_the_region_and_is_not_extended() {
    let (regions, object) = (Regions::default(), Object::of(&[7; 100]));
    regions.register("mine", &object.name, 10, 90).unwrap();
    let all = slice(&regions, "mine", 0, 90);
    for length in [99, 10, 0] {
        object.truncate(length);
        for error in [all.read().unwrap_err(), all.write(&[1; 90]).unwrap_err()] {
            assert_eq!(error.field, "parameters.shared_memory_region");
            assert!(error.reason.contains("\"mine\"") && error.reason.contains("truncated"), "{}", error.reason);
        }
        assert_eq!(fs::metadata(object.path()).unwrap().len(), length);
    }
    object.truncate(100);
    assert_eq!(all.read().unwrap(), vec![0; 90]);
    // Removed and replaced, it is still the object that was registered.
    fs::remove_file(object.path()).unwrap();
    fs::write(object.path(), [9; 100]).unwrap();
    assert_eq!(all.read().unwrap(), vec![0; 90]);
    regions.unregister(None);
    assert_eq!(all.read().unwrap(), vec![0; 90]);
}

#[test]
fn what_is_claimed_of_an_object_without_contents_is_checked_before_memory_is_allocated() {
    let (regions, object) = (Regions::default(), Object::of(b""));
    // A length that takes no memory. A machine without as much virtual memory would reject the allocation.
    object.truncate(1 << 50);
    regions.register("a", &object.name, 0, 1 << 50).unwrap();
    let huge = slice(&regions, "a", 0, 1 << 50);
    let input = RegionInput::new(0, "x".to_owned(), "UINT8", vec![1 << 50], huge).unwrap();
    let mut inputs = RegionInputs::default();
    inputs.push(input);
    assert_eq!(inputs.checked_bytes().unwrap(), 1 << 50);
    object.truncate(0);
    assert!(inputs.checked_bytes().unwrap_err().reason.contains("truncated"));
}

#[test]
fn an_owner_that_truncates_and_extends_all_the_time_does_no_harm() {
    let (regions, object) = (Regions::default(), Object::of(&[1; 1 << 20]));
    regions.register("a", &object.name, 0, 1 << 20).unwrap();
    let all = slice(&regions, "a", 0, 1 << 20);
    let file = File::options().write(true).open(object.path()).unwrap();
    let (mut read, mut failed) = (0, 0);
    std::thread::scope(|scope| {
        let owner = scope.spawn(|| {
            for _ in 0..300 {
                file.set_len(0).unwrap();
                file.set_len(1 << 20).unwrap();
                file.write_all_at(&[1; 4096], 1 << 19).unwrap();
            }
        });
        while !owner.is_finished() || read + failed == 0 {
            match all.read() {
                Ok(data) => {
                    assert_eq!(data.len(), 1 << 20);
                    read += 1;
                }
                Err(error) => {
                    assert!(error.reason.contains("truncated"), "{}", error.reason);
                    failed += 1;
                }
            }
        }
    });
}
