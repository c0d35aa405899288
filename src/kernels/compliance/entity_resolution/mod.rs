//! `compliance/entity-resolution`: the candidates that are most likely the same entity as a given one, by names and
//! attributes.
//!
//! | field | type | |
//! |---|---|---|
//! | `query` | [`Entity`] | the entity to resolve: a name, and `id`, `aliases`, `date`, `country`, `entity_type` where known |
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

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::names::{
    AttributeWeights, Entity, ListSize, Match, MatchColumns, NameList, NameListDocument, Query, Scorer, Search,
    TextArray, batch_key, check_date, check_options, compared, is_normalized,
};
#[cfg(feature = "cuda")]
use crate::service::LaunchContext;
use crate::service::{
    BatchKey, Buffer, Cost, Footprint, InvalidInput, Kernel, KernelError, KernelInfo, Operand, OperandVersion,
    RunContext,
};

/// The most names of a query, its aliases included.
const MAX_QUERY_NAMES: usize = 256;
/// The largest weight, and the least of the name.
const MAX_WEIGHT: f64 = 100.0;
const MIN_NAME_WEIGHT: f64 = 0.01;

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct EntityResolution;

/// The input of `compliance/entity-resolution`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [
    {
        "query": { "id": 1, "name": "Jon Smith", "date": 19600131, "country": "US" },
        "candidates": { "entries": [{ "id": 7, "name": "SMITH, John", "date": 19600200, "country": "us" }] },
        "min_score": 0.8,
    },
    {
        "queries": { "entries": [{ "name": "Acme Holding" }, { "name": "Jane Roe", "entity_type": "person" }] },
        "candidates": { "entries": [{ "name": "Holding Acme", "aliases": ["Acme"], "entity_type": "company" }] },
        "weights": { "entity_type": 0.5 }, "min_score": 0.0,
    },
]))]
pub struct EntityResolutionInput {
    /// The entity to resolve.
    #[serde(default)]
    pub query: Option<Entity>,
    /// Several entities, instead of `query`.
    #[serde(default)]
    pub queries: Option<Operand<NameList>>,
    /// The candidates.
    pub candidates: Operand<NameList>,
    /// How similar two names are.
    #[serde(default)]
    pub scorer: Scorer,
    /// How much the name and each attribute count.
    #[serde(default)]
    pub weights: Weights,
    /// The least score of a match, from 0 to 1.
    #[serde(default = "default_min_score")]
    pub min_score: f64,
    /// The most matches of an entity, from 1 to 1024.
    #[serde(default = "default_max_matches")]
    pub max_matches: u32,
}

/// How much the name and the attributes count in the score, from 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Weights {
    /// That of the name, at least 0.01. Default: 1.
    pub name: f64,
    /// That of the date. Default: 0.3.
    pub date: f64,
    /// That of the country. Default: 0.2.
    pub country: f64,
    /// That of the type. Default: 0.1.
    pub entity_type: f64,
}

impl Default for Weights {
    fn default() -> Self {
        Self { name: 1.0, date: 0.3, country: 0.2, entity_type: 0.1 }
    }
}

impl Weights {
    fn check(&self) -> Result<(), InvalidInput> {
        for (field, weight, least) in [
            ("name", self.name, MIN_NAME_WEIGHT),
            ("date", self.date, 0.0),
            ("country", self.country, 0.0),
            ("entity_type", self.entity_type, 0.0),
        ] {
            if !(least..=MAX_WEIGHT).contains(&weight) {
                let reason = format!("{weight} where a number from {least} to {MAX_WEIGHT} is expected");
                return Err(InvalidInput::new(format!("weights.{field}"), reason));
            }
        }
        Ok(())
    }

    fn of_attributes(&self) -> AttributeWeights {
        AttributeWeights { name: self.name, attributes: [self.date, self.country, self.entity_type] }
    }
}

fn default_min_score() -> f64 {
    0.85
}

fn default_max_matches() -> u32 {
    10
}

/// The output of `compliance/entity-resolution`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
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

impl EntityResolutionInput {
    /// Creates an input of one entity with the default options.
    pub fn new(query: Entity, candidates: Operand<NameList>) -> Self {
        Self {
            query: Some(query),
            queries: None,
            candidates,
            scorer: Scorer::default(),
            weights: Weights::default(),
            min_score: default_min_score(),
            max_matches: default_max_matches(),
        }
    }

    /// Several queries as a list, if there are any.
    fn query_list(&self) -> Option<&NameListDocument> {
        let queries = self.queries.as_ref()?;
        queries.value().map(|list| list.document()).or(queries.document())
    }

    fn num_queries(&self) -> u64 {
        u64::from(self.query.is_some()) + self.query_list().map_or(0, NameListDocument::num_entries) as u64
    }

    fn num_query_names(&self) -> u64 {
        let of_query = self.query.as_ref().map_or(0, |query| 1 + query.aliases.len());
        of_query as u64 + self.query_list().map_or(0, |list| list.names.len()) as u64
    }

    fn validate(&self) -> Result<(), InvalidInput> {
        match (&self.query, &self.queries) {
            (None, None) => return Err(InvalidInput::new("query", "missing")),
            (Some(_), Some(_)) => {
                return Err(InvalidInput::new("queries", "there is a query already; give one of the two"));
            }
            (Some(query), None) => check_query(query)?,
            (None, Some(queries)) => queries.check().map_err(|error| error.within("queries"))?,
        }
        check_options(self.min_score, self.max_matches)?;
        self.weights.check()?;
        self.candidates.check().map_err(|error| error.within("candidates"))?;
        let is_normalized = is_normalized(&self.candidates);
        for query in 0..self.num_queries() as usize {
            self.compared_names(query, is_normalized)?;
        }
        Ok(())
    }

    /// The names of a query as they are compared.
    fn compared_names(&self, query: usize, is_normalized: bool) -> Result<Vec<String>, InvalidInput> {
        let names: Vec<&str> = match (&self.query, self.query_list()) {
            (Some(query), _) => std::iter::once(&query.name).chain(&query.aliases).map(String::as_str).collect(),
            (None, Some(list)) => list.names_of(query).map(|name| list.names.get(name)).collect(),
            (None, None) => Vec::new(),
        };
        let outer = if self.query.is_some() { "query".to_owned() } else { format!("queries.entries[{query}]") };
        if names.len() > MAX_QUERY_NAMES {
            let reason = format!("{} names where at most {MAX_QUERY_NAMES} are expected", names.len());
            return Err(InvalidInput::new(format!("{outer}.aliases"), reason));
        }
        let compare = |(position, name): (usize, &str)| {
            compared(name, is_normalized).map_err(|reason| {
                let path = if position == 0 { "name".to_owned() } else { format!("aliases[{}]", position - 1) };
                InvalidInput::new(format!("{outer}.{path}"), reason)
            })
        };
        names.into_iter().enumerate().map(compare).collect()
    }

    /// The queries as they are compared.
    fn compared_queries(&self, list: &NameList, context: &RunContext<'_>) -> Result<Vec<Query>, KernelError> {
        let (min_score, weights) = (self.min_score, self.weights.of_attributes());
        let queries = (0..self.num_queries() as usize).map(|index| {
            context.check()?;
            let names = self.compared_names(index, list.document().normalize)?;
            let text = |column: &Option<super::names::Texts>| {
                column.as_ref().map_or(String::new(), |texts| texts.get(index).to_owned())
            };
            let (date, country, entity_type) = match (&self.query, self.query_list()) {
                (Some(query), _) => (
                    query.date.unwrap_or(0),
                    query.country.clone().unwrap_or_default(),
                    query.entity_type.clone().unwrap_or_default(),
                ),
                (None, Some(list)) => {
                    let date = list.dates.as_ref().map_or(0, |dates| dates[index]);
                    (date, text(&list.countries), text(&list.entity_types))
                }
                (None, None) => (0, String::new(), String::new()),
            };
            Ok(Query { names, min_score, date, country, entity_type, weights })
        });
        queries.collect()
    }

    fn query_ids(&self) -> Vec<u64> {
        match (&self.query, self.query_list()) {
            (Some(query), _) => vec![query.id.unwrap_or(0)],
            (None, Some(list)) => (0..list.num_entries()).map(|entry| list.id(entry)).collect(),
            (None, None) => Vec::new(),
        }
    }
}

/// Checks what a query has besides its names.
fn check_query(query: &Entity) -> Result<(), InvalidInput> {
    let date = query.date.unwrap_or(0);
    check_date(date).map_err(|reason| InvalidInput::new("query.date", reason))
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
