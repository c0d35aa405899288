//! The input of `compliance/entity-resolution`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernels::compliance::names::{
    AttributeWeights, Entity, NameList, NameListDocument, Query, Scorer, Texts, check_date, check_options, compared,
    is_normalized,
};
use crate::service::{InvalidInput, KernelError, Operand, RunContext};

/// The most names of a query, its aliases included.
const MAX_QUERY_NAMES: usize = 256;
/// The largest weight, and the least of the name.
const MAX_WEIGHT: f64 = 100.0;
const MIN_NAME_WEIGHT: f64 = 0.01;

/// The input of `compliance/entity-resolution`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
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

    pub(super) fn num_queries(&self) -> u64 {
        u64::from(self.query.is_some()) + self.query_list().map_or(0, NameListDocument::num_entries) as u64
    }

    pub(super) fn num_query_names(&self) -> u64 {
        let of_query = self.query.as_ref().map_or(0, |query| 1 + query.aliases.len());
        of_query as u64 + self.query_list().map_or(0, |list| list.names.len()) as u64
    }

    pub(super) fn validate(&self) -> Result<(), InvalidInput> {
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
    pub(super) fn compared_queries(
        &self,
        list: &NameList,
        context: &RunContext<'_>,
    ) -> Result<Vec<Query>, KernelError> {
        let (min_score, weights) = (self.min_score, self.weights.of_attributes());
        let queries = (0..self.num_queries() as usize).map(|index| {
            context.check()?;
            let names = self.compared_names(index, list.document().normalize)?;
            let text =
                |column: &Option<Texts>| column.as_ref().map_or(String::new(), |texts| texts.get(index).to_owned());
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

    pub(super) fn query_ids(&self) -> Vec<u64> {
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
