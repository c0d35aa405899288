//! Copies between ordinary memory and staging: one thread cannot keep up with the bus.

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

/// Threads that help lanes to copy. Not rayon's global pool, whose threads may be deep in some kernel's work.
#[derive(Debug)]
pub(super) struct Copiers(Option<ThreadPool>);

/// What is faster done alone than handed out.
const ALONE: usize = 512 << 10;

impl Copiers {
    pub(super) fn new(ordinal: u32, threads: usize) -> Result<Self, ThreadPoolBuildError> {
        let name = move |index| format!("cuda{ordinal}-copy-{index}");
        let pool = || ThreadPoolBuilder::new().num_threads(threads).thread_name(name).build();
        (threads > 0).then(pool).transpose().map(Self)
    }

    /// Copies `from` onto `to`, which is as long.
    pub(super) fn copy(&self, from: &[u8], to: &mut [u8]) {
        let Some(pool) = self.0.as_ref().filter(|_| from.len() > ALONE) else {
            to.copy_from_slice(from);
            return;
        };
        let share = from.len().div_ceil(pool.current_num_threads() + 1).next_multiple_of(4096);
        pool.in_place_scope(|scope| {
            let mut shares = to.chunks_mut(share).zip(from.chunks(share));
            let own = shares.next();
            for (to, from) in shares {
                scope.spawn(move |_| to.copy_from_slice(from));
            }
            if let Some((to, from)) = own {
                to.copy_from_slice(from);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::Copiers;

    #[test]
    fn a_copy_with_help_is_a_copy() {
        for threads in [0, 3] {
            let copiers = Copiers::new(0, threads).unwrap();
            for len in [0, 1, (512 << 10) + 1, (2 << 20) - 1] {
                let from: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
                let mut to = vec![0; len];
                copiers.copy(&from, &mut to);
                assert!(from == to, "{len}");
            }
        }
    }
}
