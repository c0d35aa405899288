//! The columns of an output: the matches of all queries.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Serialize, Serializer};

use super::best::Match;
use super::document::NameListDocument;
use super::list::{Longest, NameList};
use crate::service::Operand;

/// Strings of an output: in JSON an array of strings, as a tensor `uint8` of shape `[n, longest]`, padded with zeros, and no
/// tensor if there are none.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct TextArray(pub Vec<String>);

impl Serialize for TextArray {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return self.0.serialize(serializer);
        }
        let longest = self.0.iter().map(String::len).max().unwrap_or(0);
        if longest == 0 {
            return serializer.serialize_none();
        }
        let mut rows = serializer.serialize_seq(Some(self.0.len()))?;
        for text in &self.0 {
            rows.serialize_element(&format!("{text}{}", "\0".repeat(longest - text.len())))?;
        }
        rows.end()
    }
}

impl JsonSchema for TextArray {
    fn schema_name() -> Cow<'static, str> {
        "TextArray".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Vec::<String>::json_schema(generator)
    }
}

/// The matches of all queries, one query after the other.
#[derive(Debug, Default)]
pub(crate) struct MatchColumns {
    pub(crate) offsets: Vec<u32>,
    pub(crate) entries: Vec<u32>,
    pub(crate) ids: Vec<u64>,
    pub(crate) scores: Vec<f64>,
    pub(crate) name_indices: Vec<u32>,
    pub(crate) names: Vec<String>,
    pub(crate) sources: Option<Vec<String>>,
    pub(crate) programs: Option<Vec<String>>,
}

impl MatchColumns {
    pub(crate) fn new(list: &NameList, matches: &[Vec<Match>]) -> Self {
        let document = list.document();
        let mut columns = Self { offsets: vec![0], ..Self::default() };
        let mut count = 0_usize;
        for of_query in matches {
            count += of_query.len();
            // No more than the queries of a request times the most matches of one.
            columns.offsets.push(u32::try_from(count).unwrap_or(u32::MAX));
        }
        for &Match { score, entry, position } in matches.iter().flatten() {
            let name = document.names_of(entry as usize).start + position as usize;
            columns.entries.push(entry);
            columns.ids.push(document.id(entry as usize));
            columns.scores.push(score);
            columns.name_indices.push(position);
            columns.names.push(document.names.get(name).to_owned());
        }
        let of_entries = |texts: &super::Texts| {
            columns.entries.iter().map(|&entry| texts.get(entry as usize).to_owned()).collect::<Vec<_>>()
        };
        (columns.sources, columns.programs) =
            (document.sources.as_ref().map(of_entries), document.programs.as_ref().map(of_entries));
        columns
    }
}

/// The size of a list, for estimates of cost and memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ListSize {
    pub(crate) names: u64,
    pub(crate) entries: u64,
    /// Bytes that making the list takes, 0 for a stored one.
    pub(crate) build_bytes: u64,
    longest: Longest,
}

/// Bytes that the forms of a name take while they are made, besides a few for each byte of it.
const BYTES_PER_NAME: u64 = 300;

impl ListSize {
    pub(crate) fn of(list: &Operand<NameList>) -> Self {
        match (list.value(), list.document()) {
            (Some(list), _) => Self {
                names: list.num_names() as u64,
                entries: list.num_entries() as u64,
                build_bytes: 0,
                longest: list.longest(),
            },
            (None, Some(document)) => Self::of_document(document),
            (None, None) => Self { names: 0, entries: 0, build_bytes: 0, longest: Longest::default() },
        }
    }

    fn of_document(document: &NameListDocument) -> Self {
        let names = document.names.len() as u64;
        // Decomposed characters can be several.
        let build_bytes = document.byte_len().saturating_mul(16).saturating_add(names.saturating_mul(BYTES_PER_NAME));
        Self { names, entries: document.num_entries() as u64, build_bytes, longest: Longest::of(document) }
    }

    /// The most matches of this many queries.
    pub(crate) fn most_matches(&self, queries: u64, max_matches: u32) -> u64 {
        queries.saturating_mul(self.entries.min(max_matches.into()))
    }

    /// Bytes of the columns of a match, and of its text if `has_sources`.
    pub(crate) fn bytes_of_match(&self, has_sources: bool) -> u64 {
        let sources = if has_sources { self.longest.source + self.longest.program } else { 0 };
        // Entry, id, score and index of the name.
        24 + self.longest.name + sources
    }
}
