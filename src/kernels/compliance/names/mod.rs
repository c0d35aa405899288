//! Names in a list: the [operand](crate::service::Operand) type [`NameList`], and the search for the entries that are most
//! similar to a name, which the kernels of this domain share.
//!
//! Names are compared as [`normalize`] writes them, unless the list has `"normalize": false`; a [`Scorer`] says how similar
//! two are. The score of an entry is the best of its name and its aliases.
//!
//! A pair is scored in O(n) steps of some instructions, n being the length of the name in the list, and for a name of the
//! query that is longer than 64 characters as often more. Most pairs are not scored: signatures of the two say how many
//! characters these have in common at most, from which follows a bound of the score, and a pair whose bound is below
//! `min_score`, or below the last of the best matches so far, is skipped. No match is lost.
//!
//! On CUDA, pairs of which a name has more than 64 characters are scored on the CPU, by the worker that runs the request.

mod best;
#[cfg(feature = "cuda")]
pub(super) mod cuda;
mod distance;
mod document;
mod entity;
mod form;
mod list;
mod matches;
mod normalize;
mod pattern;
#[cfg(feature = "cuda")]
mod pattern_arrays;
mod query;
pub(super) mod reference;
mod scores;
mod search;
mod tensor_document;
mod texts;
mod token_set;

pub use document::{MAX_NAME_CHARACTERS, MAX_NAMES, NameListDocument};
pub(super) use document::{check_date, compared};
pub use entity::Entity;
pub use list::NameList;
pub use matches::TextArray;
pub(super) use matches::{ListSize, MatchColumns};
pub use normalize::normalize;
pub(super) use query::{AttributeWeights, Query};
pub use scores::Scorer;
pub use texts::Texts;

pub(super) use self::best::Match;
#[cfg(feature = "cuda")]
use crate::service::LaunchContext;
use crate::service::{BatchKey, Cost, InvalidInput, KernelError, Operand, RunContext};

/// The most entries that are returned for a query.
pub const MAX_MATCHES: u32 = 1024;

/// What is searched in a list.
pub(super) struct Search<'a> {
    pub(super) list: &'a NameList,
    pub(super) scorer: Scorer,
    /// The most matches of each query.
    pub(super) max_matches: u32,
    pub(super) queries: Vec<Query>,
}

impl Search<'_> {
    /// Returns the best matches of each query.
    pub(super) fn run_cpu(&self, context: &RunContext<'_>) -> Result<Vec<Vec<Match>>, KernelError> {
        let names = 0..self.list.num_names();
        search::search(self.list, self.scorer, &self.queries, self.max_matches as usize, names, context)
    }

    /// As [`run_cpu`](Self::run_cpu), on CUDA.
    #[cfg(feature = "cuda")]
    pub(super) fn run_cuda(&self, cuda: &mut LaunchContext<'_>) -> Result<Vec<Vec<Match>>, KernelError> {
        cuda::search(self, cuda)
    }
}

/// Checks the fields that both kernels have.
pub(super) fn check_options(min_score: f64, max_matches: u32) -> Result<(), InvalidInput> {
    if !(0.0..=1.0).contains(&min_score) {
        return Err(InvalidInput::new("min_score", format!("{min_score} where a number from 0 to 1 is expected")));
    }
    if max_matches == 0 || max_matches > MAX_MATCHES {
        let reason = format!("{max_matches} where 1 to {MAX_MATCHES} is expected");
        return Err(InvalidInput::new("max_matches", reason));
    }
    Ok(())
}

/// Returns whether names are normalized before they are compared with those of a list.
pub(super) fn is_normalized(list: &Operand<NameList>) -> bool {
    match (list.value(), list.document()) {
        (Some(list), _) => list.document().normalize,
        (None, document) => document.is_none_or(|document| document.normalize),
    }
}

/// The batch key of requests that search in the same stored list. They may have any queries and options but the scorer.
pub(super) fn batch_key(list: &Operand<NameList>, scorer: Scorer) -> Option<BatchKey> {
    list.version().map(|version| BatchKey::hash((version.id(), scorer)).sharing_work())
}

/// Operations of a pair of names: that of the bound, and of the score of a few.
const OPERATIONS_PER_PAIR: u64 = 40;

/// Estimates the cost of this many queries.
pub(super) fn cost(list: &ListSize, queries: u64, max_matches: u32) -> Cost {
    let pairs = list.names.saturating_mul(queries);
    Cost {
        // Each task reads the signatures and some of the codes.
        bytes: list.names.saturating_mul(40).saturating_add(pairs.saturating_mul(4)).saturating_add(list.build_bytes),
        operations: pairs.saturating_mul(OPERATIONS_PER_PAIR).saturating_add(list.build_bytes.saturating_mul(4)),
        device_memory: device_memory(list, queries, max_matches),
    }
}

#[cfg(feature = "cuda")]
fn device_memory(list: &ListSize, queries: u64, max_matches: u32) -> u64 {
    cuda::device_memory(list, queries, max_matches)
}

#[cfg(not(feature = "cuda"))]
fn device_memory(_: &ListSize, _: u64, _: u32) -> u64 {
    0
}

/// Bytes of a query while it is prepared and searched, besides its matches.
const BYTES_PER_QUERY: u64 = 1 << 10;

/// Host memory of a run without its output.
pub(super) fn scratch(list: &ListSize, queries: u64, max_matches: u32) -> u64 {
    let matches = list.most_matches(queries, max_matches).saturating_mul(2 * size_of::<Match>() as u64);
    matches.saturating_add(queries.saturating_mul(BYTES_PER_QUERY)).saturating_add(list.build_bytes)
}
