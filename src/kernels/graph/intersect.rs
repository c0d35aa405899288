//! The common nodes of two rows.

use super::cancel_check::{CancelCheck, INTERVAL};
use crate::service::KernelError;

/// The nodes of a row are searched in another that is longer by this factor; otherwise both are merged.
const SEARCH_FACTOR: usize = 16;

/// Calls `found` with each node that is in both rows, ascending.
pub(super) fn for_each_common(
    [a, b]: [&[u32]; 2],
    cancel_check: &mut CancelCheck<'_>,
    mut found: impl FnMut(u32),
) -> Result<(), KernelError> {
    let (short, mut long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    for piece in short.chunks(INTERVAL) {
        // Only this part of the long row may have nodes of the piece.
        let last = piece[piece.len() - 1];
        let part = long.split_off(..long.partition_point(|&node| node <= last)).unwrap_or_default();
        if part.len() > SEARCH_FACTOR * piece.len() {
            cancel_check.spend(SEARCH_FACTOR * piece.len())?;
            piece.iter().copied().filter(|node| part.binary_search(node).is_ok()).for_each(&mut found);
        } else {
            cancel_check.spend(piece.len() + part.len())?;
            merge(piece, part, &mut found);
        }
    }
    Ok(())
}

/// Calls `found` with each number that is in both ascending lists.
fn merge(a: &[u32], b: &[u32], found: &mut impl FnMut(u32)) {
    let (mut i, mut j) = (0, 0);
    while i < a.len() && j < b.len() {
        let (x, y) = (a[i], b[j]);
        if x == y {
            found(x);
        }
        // Without branches, as none could be predicted.
        i += usize::from(x <= y);
        j += usize::from(y <= x);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::RunContext;

    #[test]
    fn common_nodes_are_found_by_search_and_by_merging() {
        let context = RunContext::detached();
        let multiples = |of: usize, end: u32| (0..end).step_by(of).collect::<Vec<u32>>();
        for (a, b) in [(3, 7), (1, 2), (5_000, 3), (2, 100_000), (1, 1)] {
            for end in [1, 1_000, 200_000] {
                let (rows, mut found) = ([multiples(a, end), multiples(b, end)], Vec::new());
                let [a, b] = [&rows[0][..], &rows[1][..]];
                for_each_common([a, b], &mut CancelCheck::new(&context), |node| found.push(node)).unwrap();
                let expected: Vec<u32> = a.iter().copied().filter(|node| b.binary_search(node).is_ok()).collect();
                assert_eq!(found, expected);
            }
        }
    }
}
