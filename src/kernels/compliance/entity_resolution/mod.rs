//! `compliance/entity-resolution`: the candidates that are most likely the same entity as a given one, by names and
//! attributes.
//!
//! | field | type | |
//! |---|---|---|
//! | `query` | [`Entity`](super::names::Entity) | the entity to resolve: a name, and `id`, `aliases`, `date`, `country`, `entity_type` where known |
//! | `queries` | operand of type `names`, or a [list](crate::kernels::compliance::names::NameListDocument) | several entities, instead of `query` |
//! | `candidates` | operand of type `names`, or a list | at least one entry |
//! | `scorer` | [`Scorer`], default `token_sort` | how similar two names are |
//! | `weights` | object of `name`, `date`, `country`, `entity_type`, 0 to 100 | how much each counts; default 1, 0.3, 0.2 and 0.1, and `name` is at least 0.01 |
//! | `min_score` | `f64`, 0 to 1, default 0.85 | the least score of a match |
//! | `max_matches` | `u32`, 1 to 1024, default 10 | the most matches of an entity |
//! | out: `query_ids` | `u64`, `[queries]` | the id of each query; by default its index |
//! | out: `match_offsets` | `u32`, `[queries + 1]` | where the matches of each query start in what follows |
//! | out: `entries` | `u32`, `[matches]` | the index of the candidate, those with the best scores first, of equal scores the lowest |
//! | out: `ids` | `u64`, `[matches]` | the id of the candidate |
//! | out: `scores` | `f64`, `[matches]` | from 0 to 1 |
//! | out: `name_indices` | `u32`, `[matches]` | which of the candidate's names is the most similar: 0 for the name, 1 for the first alias |
//! | out: `matched_names` | texts, `[matches]` | that name as it is in the list |
//!
//! The score is the mean of the name's score and the agreement of the attributes that both entities have, by weight; an
//! attribute that one of the two does not have counts for nothing. The name's score is the best over all names and aliases
//! of both. Dates agree by 1 if they are the same, and by 0.5 if only their years are; countries and types, which are
//! compared without case and punctuation, by 1 if they are the same; otherwise by 0.
//!
//! [`names`](super::names) describes how names are compared, the operand, and the algorithm. Queries of Q names in all, and
//! candidates of N names, take O(Q * N) time. Requests with the same stored candidates share a run.
//!
//! # Errors
//! Neither `query` nor `queries`, or both; a query of more than 256 names; a name without letters and digits or of more than
//! 1024 characters; a date that is none; a list without entries, or whose columns do not fit together; an option out of its
//! range. The error names the field.

mod cases;
mod input;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::input::{EntityResolutionInput, Weights};
use super::names::{ListSize, Match, MatchColumns, NameList, Scorer, Search, TextArray, batch_key};
#[cfg(feature = "cuda")]
use crate::service::LaunchContext;
use crate::service::{
    BatchKey, Buffer, Cost, Footprint, InvalidInput, Kernel, KernelError, KernelInfo, Operand, OperandVersion,
    RunContext,
};

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct EntityResolution;

/// The output of `compliance/entity-resolution`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EntityResolutionOutput {
    /// The id of each query.
    pub query_ids: Buffer<u64>,
    /// Where the matches of each query start, and at the end how many there are.
    pub match_offsets: Buffer<u32>,
    /// The index of the candidate of each match, the best first.
    pub entries: Buffer<u32>,
    /// The id of the candidate.
    pub ids: Buffer<u64>,
    /// The score, from 0 to 1.
    pub scores: Buffer<f64>,
    /// Which of the candidate's names is the most similar: 0 for the name, 1 for the first alias.
    pub name_indices: Buffer<u32>,
    /// That name.
    pub matched_names: TextArray,
}

/// The queries of several inputs in one search; they have the same candidates and scorer.
fn join<'a>(
    inputs: &[&EntityResolutionInput],
    list: &'a NameList,
    context: &RunContext<'_>,
) -> Result<Search<'a>, KernelError> {
    let mut search = Search { list, scorer: Scorer::default(), max_matches: 0, queries: Vec::new() };
    for input in inputs {
        search.scorer = input.scorer;
        search.max_matches = search.max_matches.max(input.max_matches);
        search.queries.extend(input.compared_queries(list, context)?);
    }
    Ok(search)
}

/// Splits the matches of a joined search.
fn split(
    inputs: &[&EntityResolutionInput],
    list: &NameList,
    mut matches: Vec<Vec<Match>>,
) -> Vec<EntityResolutionOutput> {
    let output = |input: &&EntityResolutionInput| {
        let mut of_input: Vec<_> = matches.drain(..input.num_queries() as usize).collect();
        of_input.iter_mut().for_each(|matches| matches.truncate(input.max_matches as usize));
        let columns = MatchColumns::new(list, &of_input);
        EntityResolutionOutput {
            query_ids: input.query_ids().into(),
            match_offsets: columns.offsets.into(),
            entries: columns.entries.into(),
            ids: columns.ids.into(),
            scores: columns.scores.into(),
            name_indices: columns.name_indices.into(),
            matched_names: TextArray(columns.names),
        }
    };
    inputs.iter().map(output).collect()
}

impl Kernel for EntityResolution {
    type Input = EntityResolutionInput;
    type Output = EntityResolutionOutput;

    fn info(&self) -> KernelInfo {
        let description =
            "The candidates that are most likely the same entity as a given one, by names and attributes.";
        KernelInfo::new("compliance/entity-resolution", "1.0.0", description).cuda().pure()
    }

    fn validate(&self, input: &EntityResolutionInput) -> Result<(), InvalidInput> {
        input.validate()
    }

    fn cost(&self, input: &EntityResolutionInput) -> Cost {
        super::names::cost(&ListSize::of(&input.candidates), input.num_query_names(), input.max_matches)
    }

    fn footprint(&self, input: &EntityResolutionInput) -> Option<Footprint> {
        let (size, queries) = (ListSize::of(&input.candidates), input.num_queries());
        let matches = size.most_matches(queries, input.max_matches);
        let output = matches.saturating_mul(size.bytes_of_match(false)).saturating_add(queries.saturating_mul(12) + 4);
        let query_list = input.queries.as_ref().map_or(0, |list| ListSize::of(list).build_bytes);
        let scratch = super::names::scratch(&size, input.num_query_names(), input.max_matches);
        Some(Footprint { output, scratch: scratch.saturating_add(query_list) })
    }

    fn operands(&self, input: &EntityResolutionInput) -> Vec<Arc<OperandVersion>> {
        let lists = input.queries.iter().chain([&input.candidates]);
        lists.filter_map(Operand::version).cloned().collect()
    }

    fn run_cpu(
        &self,
        input: &EntityResolutionInput,
        context: &RunContext<'_>,
    ) -> Result<EntityResolutionOutput, KernelError> {
        self.run_cpu_batch(&[input], context).map(|mut outputs| outputs.remove(0))
    }

    #[cfg(feature = "cuda")]
    fn modules(&self) -> Vec<&'static crate::cuda::Module> {
        vec![&super::names::cuda::MODULE]
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(
        &self,
        input: &EntityResolutionInput,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<EntityResolutionOutput, KernelError> {
        self.run_cuda_batch(&[input], cuda).map(|mut outputs| outputs.remove(0))
    }

    fn batch_key(&self, input: &EntityResolutionInput) -> Option<BatchKey> {
        batch_key(&input.candidates, input.scorer)
    }

    fn shares_run(&self, first: &EntityResolutionInput, other: &EntityResolutionInput) -> bool {
        (first.scorer, &first.candidates) == (other.scorer, &other.candidates)
    }

    fn run_cpu_batch(
        &self,
        inputs: &[&EntityResolutionInput],
        context: &RunContext<'_>,
    ) -> Result<Vec<EntityResolutionOutput>, KernelError> {
        let Some(first) = inputs.first() else { return Ok(Vec::new()) };
        let list = first.candidates.load(context)?;
        let matches = join(inputs, &list, context)?.run_cpu(context)?;
        Ok(split(inputs, &list, matches))
    }

    #[cfg(feature = "cuda")]
    fn run_cuda_batch(
        &self,
        inputs: &[&EntityResolutionInput],
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Vec<EntityResolutionOutput>, KernelError> {
        let Some(first) = inputs.first() else { return Ok(Vec::new()) };
        let list = first.candidates.load(cuda.context())?;
        let matches = join(inputs, &list, cuda.context())?.run_cuda(cuda)?;
        Ok(split(inputs, &list, matches))
    }
}
