//! `compliance/sanctions-screening`: the entries of a list whose names are most similar to given names.
//!
//! | field | type | |
//! |---|---|---|
//! | `name`, or `names` | text, or an array of texts | the names to screen; as a tensor `uint8`, `[queries, longest]`, padded with zeros |
//! | `sanctions_list` | operand of type `names`, or a [list](crate::kernels::compliance::names::NameListDocument) | at least one entry |
//! | `scorer` | [`Scorer`], default `token_sort` | how similar two names are |
//! | `min_score` | `f64`, 0 to 1, default 0.85 | the least score of a match |
//! | `max_matches` | `u32`, 1 to 1024, default 10 | the most matches of a name |
//! | out: `is_hit` | bool, `[queries]` | whether the name has a match |
//! | out: `match_offsets` | `u32`, `[queries + 1]` | where the matches of each name start in what follows |
//! | out: `entries` | `u32`, `[matches]` | the index of the entry, those with the best scores first, of equal scores the lowest |
//! | out: `ids` | `u64`, `[matches]` | the id of the entry |
//! | out: `scores` | `f64`, `[matches]` | from 0 to 1, the best of the entry's names |
//! | out: `name_indices` | `u32`, `[matches]` | which name that is: 0 for the name, 1 for the first alias |
//! | out: `matched_names` | texts, `[matches]` | that name as it is in the list |
//! | out: `sources`, `programs` | texts, `[matches]` | those of the entry, where the list has them |
//!
//! [`names`](super::names) describes how names are compared, the operand, and the algorithm. Q names and a list of N names
//! take O(Q * N) time. Requests for the same stored list share a run.
//!
//! # Errors
//! Neither `name` nor `names`, or both; a name without letters and digits or of more than 1024 characters; a list without
//! entries, or whose columns do not fit together; an option out of its range. The error names the field.

mod cases;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::names::{
    ListSize, MatchColumns, NameList, Query, Scorer, Search, TextArray, batch_key, check_options, compared,
    is_normalized,
};
#[cfg(feature = "cuda")]
use crate::service::LaunchContext;
use crate::service::{
    BatchKey, Buffer, Cost, Footprint, InvalidInput, Kernel, KernelError, KernelInfo, Operand, OperandVersion,
    RunContext,
};

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct SanctionsScreening;

/// The input of `compliance/sanctions-screening`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [
    { "name": "Jon Smith", "min_score": 0.8, "sanctions_list": { "entries": [{ "id": 7, "name": "SMITH, John" }] } },
    { "names": ["Jon Smith", "Jane Roe"], "scorer": "jaro_winkler", "min_score": 0.0, "sanctions_list": { "entries": [
        { "id": 7, "name": "John Smith", "aliases": ["J. Smith"], "source": "OFAC", "program": "SDGT", "country": "US" },
    ] } },
]))]
pub struct SanctionsScreeningInput {
    /// A name to screen.
    #[serde(default)]
    pub name: Option<String>,
    /// Names to screen, instead of `name`.
    #[serde(default)]
    pub names: Option<Vec<String>>,
    /// The list.
    pub sanctions_list: Operand<NameList>,
    /// How similar two names are.
    #[serde(default)]
    pub scorer: Scorer,
    /// The least score of a match, from 0 to 1.
    #[serde(default = "default_min_score")]
    pub min_score: f64,
    /// The most matches of a name, from 1 to 1024.
    #[serde(default = "default_max_matches")]
    pub max_matches: u32,
}

fn default_min_score() -> f64 {
    0.85
}

fn default_max_matches() -> u32 {
    10
}

/// The output of `compliance/sanctions-screening`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SanctionsScreeningOutput {
    /// Whether each name has a match.
    pub is_hit: Vec<bool>,
    /// Where the matches of each name start, and at the end how many there are.
    pub match_offsets: Buffer<u32>,
    /// The index of the entry of each match, the best first.
    pub entries: Buffer<u32>,
    /// The id of the entry.
    pub ids: Buffer<u64>,
    /// The score, from 0 to 1.
    pub scores: Buffer<f64>,
    /// Which of the entry's names has the score: 0 for the name, 1 for the first alias.
    pub name_indices: Buffer<u32>,
    /// That name.
    pub matched_names: TextArray,
    /// The source of the entry, where the list has sources.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sources: Option<TextArray>,
    /// The programme of the entry, where the list has programmes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub programs: Option<TextArray>,
}

impl SanctionsScreeningInput {
    /// Creates an input with the default options.
    pub fn new(names: Vec<String>, sanctions_list: Operand<NameList>) -> Self {
        Self {
            name: None,
            names: Some(names),
            sanctions_list,
            scorer: Scorer::default(),
            min_score: default_min_score(),
            max_matches: default_max_matches(),
        }
    }

    /// The names to screen, with the path of each in errors.
    fn queries(&self) -> impl Iterator<Item = (String, &String)> {
        let names = self.names.iter().flatten().enumerate().map(|(index, name)| (format!("names[{index}]"), name));
        self.name.iter().map(|name| ("name".to_owned(), name)).chain(names)
    }

    fn num_queries(&self) -> u64 {
        u64::from(self.name.is_some()) + self.names.as_ref().map_or(0, Vec::len) as u64
    }

    fn validate(&self) -> Result<(), InvalidInput> {
        match (&self.name, self.names.as_deref()) {
            (None, None) => return Err(InvalidInput::new("names", "missing")),
            (Some(_), Some(_)) => {
                return Err(InvalidInput::new("names", "there is a name already; give one of the two"));
            }
            (None, Some([])) => return Err(InvalidInput::new("names", "there are none")),
            (Some(_), None) | (None, Some(_)) => {}
        }
        check_options(self.min_score, self.max_matches)?;
        self.sanctions_list.check().map_err(|error| error.within("sanctions_list"))?;
        let is_normalized = is_normalized(&self.sanctions_list);
        for (path, name) in self.queries() {
            compared(name, is_normalized).map_err(|reason| InvalidInput::new(path, reason))?;
        }
        Ok(())
    }

    /// The queries as they are compared.
    fn compared_queries(&self, list: &NameList, context: &RunContext<'_>) -> Result<Vec<Query>, KernelError> {
        let is_normalized = list.document().normalize;
        let queries = self.queries().enumerate().map(|(index, (path, name))| {
            if index.is_multiple_of(64) {
                context.check()?;
            }
            let name = compared(name, is_normalized).map_err(|reason| InvalidInput::new(path, reason))?;
            Ok(Query::of_name(name, self.min_score))
        });
        queries.collect()
    }
}

/// The queries of several inputs in one search; they have the same list and scorer.
fn join<'a>(
    inputs: &[&SanctionsScreeningInput],
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
    inputs: &[&SanctionsScreeningInput],
    list: &NameList,
    mut matches: Vec<Vec<super::names::Match>>,
) -> Vec<SanctionsScreeningOutput> {
    let output = |input: &&SanctionsScreeningInput| {
        let mut of_input: Vec<_> = matches.drain(..input.num_queries() as usize).collect();
        of_input.iter_mut().for_each(|matches| matches.truncate(input.max_matches as usize));
        let is_hit = of_input.iter().map(|matches| !matches.is_empty()).collect();
        let columns = MatchColumns::new(list, &of_input);
        SanctionsScreeningOutput {
            is_hit,
            match_offsets: columns.offsets.into(),
            entries: columns.entries.into(),
            ids: columns.ids.into(),
            scores: columns.scores.into(),
            name_indices: columns.name_indices.into(),
            matched_names: TextArray(columns.names),
            sources: columns.sources.map(TextArray),
            programs: columns.programs.map(TextArray),
        }
    };
    inputs.iter().map(output).collect()
}

impl Kernel for SanctionsScreening {
    type Input = SanctionsScreeningInput;
    type Output = SanctionsScreeningOutput;

    fn info(&self) -> KernelInfo {
        let description = "The entries of a list of names that are most similar to given names.";
        KernelInfo::new("compliance/sanctions-screening", "1.0.0", description).cuda().pure()
    }

    fn validate(&self, input: &SanctionsScreeningInput) -> Result<(), InvalidInput> {
        input.validate()
    }

    fn cost(&self, input: &SanctionsScreeningInput) -> Cost {
        super::names::cost(&ListSize::of(&input.sanctions_list), input.num_queries(), input.max_matches)
    }

    fn footprint(&self, input: &SanctionsScreeningInput) -> Option<Footprint> {
        let (size, queries) = (ListSize::of(&input.sanctions_list), input.num_queries());
        let matches = size.most_matches(queries, input.max_matches);
        let output = matches.saturating_mul(size.bytes_of_match(true)).saturating_add(queries.saturating_mul(5) + 4);
        Some(Footprint { output, scratch: super::names::scratch(&size, queries, input.max_matches) })
    }

    fn operands(&self, input: &SanctionsScreeningInput) -> Vec<Arc<OperandVersion>> {
        input.sanctions_list.version().cloned().into_iter().collect()
    }

    fn run_cpu(
        &self,
        input: &SanctionsScreeningInput,
        context: &RunContext<'_>,
    ) -> Result<SanctionsScreeningOutput, KernelError> {
        self.run_cpu_batch(&[input], context).map(|mut outputs| outputs.remove(0))
    }

    #[cfg(feature = "cuda")]
    fn modules(&self) -> Vec<&'static crate::cuda::Module> {
        vec![&super::names::cuda::MODULE]
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(
        &self,
        input: &SanctionsScreeningInput,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<SanctionsScreeningOutput, KernelError> {
        self.run_cuda_batch(&[input], cuda).map(|mut outputs| outputs.remove(0))
    }

    fn batch_key(&self, input: &SanctionsScreeningInput) -> Option<BatchKey> {
        batch_key(&input.sanctions_list, input.scorer)
    }

    fn shares_run(&self, first: &SanctionsScreeningInput, other: &SanctionsScreeningInput) -> bool {
        (first.scorer, &first.sanctions_list) == (other.scorer, &other.sanctions_list)
    }

    fn run_cpu_batch(
        &self,
        inputs: &[&SanctionsScreeningInput],
        context: &RunContext<'_>,
    ) -> Result<Vec<SanctionsScreeningOutput>, KernelError> {
        let Some(first) = inputs.first() else { return Ok(Vec::new()) };
        let list = first.sanctions_list.load(context)?;
        let matches = join(inputs, &list, context)?.run_cpu(context)?;
        Ok(split(inputs, &list, matches))
    }

    #[cfg(feature = "cuda")]
    fn run_cuda_batch(
        &self,
        inputs: &[&SanctionsScreeningInput],
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Vec<SanctionsScreeningOutput>, KernelError> {
        let Some(first) = inputs.first() else { return Ok(Vec::new()) };
        let list = first.sanctions_list.load(cuda.context())?;
        let matches = join(inputs, &list, cuda.context())?.run_cuda(cuda)?;
        Ok(split(inputs, &list, matches))
    }
}
