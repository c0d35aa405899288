//! The memory limits of requests and of operands, found from the limits of the process if they are `auto`.

use std::fs;
use std::path::Path;

use tower_kernels::service::{HostMemory, OperandLimits};

use crate::config::{Memory, MemoryMax, Operands};

/// Used if neither a limit nor the memory of the machine can be read.
const UNKNOWN: u64 = 2 << 30;

/// The memory budget of all requests. `auto` is half of what the process may use: a quarter is for operands, and a quarter
/// for the program, the cache, connections, and freed memory that the allocator retains.
pub(super) fn open(config: &Memory) -> HostMemory {
    HostMemory::new(match config.max {
        MemoryMax::Bytes(bytes) => bytes,
        MemoryMax::Auto => {
            let (limit, of) = limit(Path::new("/"));
            tracing::info!(memory.max = limit / 2, limit, of, "memory limit of requests");
            limit / 2
        }
    })
}

/// The limits of operands. `auto` is a quarter of what the process may use.
pub(super) fn operand_limits(config: &Operands) -> OperandLimits {
    let mut limits = OperandLimits::default();
    limits.max_bytes = match config.max_bytes {
        MemoryMax::Bytes(bytes) => bytes,
        MemoryMax::Auto => {
            let (limit, of) = limit(Path::new("/"));
            tracing::info!(operands.max_bytes = limit / 4, limit, of, "memory limit of operands");
            limit / 4
        }
    };
    limits.max_operands = config.max_operands.get();
    limits.max_bytes_per_tenant = match config.max_bytes_per_tenant {
        0 => u64::MAX,
        bytes => bytes,
    };
    limits.max_operands_per_tenant = match config.max_operands_per_tenant {
        0 => usize::MAX,
        operands => operands,
    };
    limits
}

/// The lowest memory limit of this process, and its source.
fn limit(root: &Path) -> (u64, &'static str) {
    let limits = [
        (cgroup(root), "the control group"),
        (resource_limit(root, "Max data size"), "RLIMIT_DATA"),
        (resource_limit(root, "Max address space"), "RLIMIT_AS"),
        (machine(root), "the machine"),
    ];
    let known = limits.into_iter().filter_map(|(limit, of)| Some((limit?, of)));
    known.min_by_key(|(limit, _)| *limit).unwrap_or((UNKNOWN, "a default, as no limit can be read"))
}

/// The lowest limit of the control group of this process and its parents, of either version.
fn cgroup(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mut least: Option<u64> = None;
    for line in groups.lines() {
        // `hierarchy:controllers:path`, where version 2 has no controllers.
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (mount, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let mount = root.join(mount);
        // In a container the path may be that of the host, while the mount is the container's own group.
        for group in mount.join(path.trim_start_matches('/')).ancestors().take_while(|group| group.starts_with(&mount))
        {
            // `max` is no limit and does not parse.
            let limit = fs::read_to_string(group.join(file)).ok().and_then(|text| text.trim().parse().ok());
            least = least.into_iter().chain(limit).min();
        }
    }
    least
}

/// A soft limit of the process, in bytes.
fn resource_limit(root: &Path, name: &str) -> Option<u64> {
    let limits = fs::read_to_string(root.join("proc/self/limits")).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn machine(root: &Path) -> Option<u64> {
    let info = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let kib: u64 =
        info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:       16384 kB\nMemFree:  1 kB\n");

    /// Creates a directory with these files.
    fn root(name: &str, files: &[(&str, &str)]) -> std::path::PathBuf {
        let root = std::env::temp_dir().join(format!("tower-kernels-memory-{name}-{}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_least_limit_counts_wherever_it_is_set() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max data size             9000000              unlimited            bytes     \n\
                      Max address space         unlimited            unlimited            bytes     \n";
        let check = |name, files: &[(&str, &str)], expected| {
            let root = root(name, files);
            assert_eq!(limit(&root), expected, "{name}");
            fs::remove_dir_all(root).unwrap();
        };
        check("machine", &[MEMINFO], (16 << 20, "the machine"));
        check("data", &[MEMINFO, ("proc/self/limits", limits)], (9_000_000, "RLIMIT_DATA"));
        let version_2 = [
            MEMINFO,
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("sys/fs/cgroup/a/memory.max", "8000000\n"),
            ("sys/fs/cgroup/memory.max", "12000000\n"),
        ];
        check("v2", &version_2, (8_000_000, "the control group"));
        let version_1 = [
            MEMINFO,
            ("proc/self/cgroup", "5:cpu:/x\n4:hugetlb,memory:/not/mounted\n0::/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "7000000\n"),
        ];
        check("v1", &version_1, (7_000_000, "the control group"));
        check("nothing", &[("empty", "")], (UNKNOWN, "a default, as no limit can be read"));
    }

    #[test]
    fn a_tenant_has_no_limit_of_its_own_unless_it_is_set() {
        let mut config = Operands { max_bytes: MemoryMax::Bytes(10), ..Operands::default() };
        let of = |config: &Operands| {
            let limits = operand_limits(config);
            (limits.max_bytes, limits.max_bytes_per_tenant, limits.max_operands, limits.max_operands_per_tenant)
        };
        assert_eq!(of(&config), (10, u64::MAX, 100_000, usize::MAX));
        (config.max_bytes_per_tenant, config.max_operands_per_tenant) = (5, 3);
        assert_eq!(of(&config), (10, 5, 100_000, 3));
    }
}
