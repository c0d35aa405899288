//! What the deployment files allow, held against the program.

/// Crates with a known flaw that were once among the dependencies, and what does their work now.
const KEPT_OUT: [(&str, &str); 1] = [("rsa", "ring; see layers/authenticate/jwt/provider.rs")];

#[test]
fn crates_with_a_known_flaw_stay_out() {
    let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock")).unwrap();
    let names: Vec<_> = lock.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')).collect();
    assert!(names.contains(&"ring") && names.len() > 100, "not a lock file: {} packages", names.len());
    for (name, instead) in KEPT_OUT {
        assert!(!names.contains(&name), "{name} is back; in its place there was {instead}");
    }
}
