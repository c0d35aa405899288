//! [`NameList`]: a list of names as an operand, with what is compared made once.

use std::collections::HashMap;
use std::sync::Arc;

use rayon::prelude::*;
use serde_json::json;

use super::document::NameListDocument;
use super::form::{Alphabet, NameForm, token_signature};
use super::normalize::{normalize, sort_tokens, unique_tokens};
use crate::service::{DType, InvalidInput, KernelError, OperandArray, OperandValue, RunContext, Tensors};

/// Entries of a task.
const ENTRIES_PER_TASK: usize = 1 << 12;
/// Names between two checks of the context: some milliseconds if they are as long as can be.
const NAMES_PER_CHECK: usize = 1 << 6;

/// A list of names, as an operand: clients upload a [`NameListDocument`].
///
/// What is compared is made when the list is stored: the names as they are [compared](super::normalize()), their words in
/// order, codes of characters, and signatures that bound how much two names have in common. On a device this stays
/// resident.
///
/// Names are in the order of their lengths. Names of up to 64 characters come first, which have CUDA code.
#[derive(Debug)]
pub struct NameList {
    document: NameListDocument,
    pub(super) alphabet: Alphabet,
    /// The names as they are compared.
    pub(super) plain: NameForm,
    /// The names with their words in order.
    pub(super) sorted: NameForm,
    /// The entry of each name, and its index in the entry in the lower half.
    pub(super) keys: Vec<u64>,
    /// Characters of each name's different words, joined.
    pub(super) set_lengths: Vec<u32>,
    /// Where the words of each name start in `tokens`.
    pub(super) token_offsets: Vec<u32>,
    /// The words of each name in order, as numbers.
    pub(super) tokens: Vec<u32>,
    /// A bit for each word, by its number.
    pub(super) token_signatures: Vec<u64>,
    /// The number of each word.
    pub(super) token_ids: HashMap<Arc<str>, u32>,
    /// Date, country and type of each entry, 0 where it does not have one; empty if no entry has any.
    pub(super) attributes: Vec<u32>,
    country_ids: HashMap<String, u32>,
    type_ids: HashMap<String, u32>,
    /// How many names have characters for one word of bits; they are the first.
    #[cfg(feature = "cuda")]
    pub(super) short_names: usize,
    longest: Longest,
}

/// The number of a country, a type or a word that the list does not have.
pub(super) const UNKNOWN_ID: u32 = u32::MAX;

/// The bytes of the longest name, source and programme of a list.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Longest {
    pub(crate) name: u64,
    pub(crate) source: u64,
    pub(crate) program: u64,
}

impl Longest {
    pub(crate) fn of(document: &NameListDocument) -> Self {
        let longest =
            |offsets: &[u32]| offsets.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or(0);
        let of_column =
            |column: &Option<super::Texts>| column.as_ref().map_or(0, |texts| longest(&texts.offsets)).into();
        Self {
            name: longest(&document.names.offsets).into(),
            source: of_column(&document.sources),
            program: of_column(&document.programs),
        }
    }
}

/// A name as it is compared, with its entry and index there.
struct Compared {
    plain: String,
    sorted: String,
    key: u64,
}

impl NameList {
    /// Returns the list as it was uploaded.
    pub fn document(&self) -> &NameListDocument {
        &self.document
    }

    /// Returns how many names there are, aliases included.
    pub fn num_names(&self) -> usize {
        self.keys.len()
    }

    /// Returns how many entries there are.
    pub fn num_entries(&self) -> usize {
        self.document.num_entries()
    }

    pub(crate) fn longest(&self) -> Longest {
        self.longest
    }

    /// Returns the number of a country, or that of none.
    pub(super) fn country_id(&self, country: &str) -> u32 {
        id_of(country, &self.country_ids)
    }

    /// Returns the number of a type, or that of none.
    pub(super) fn type_id(&self, entity_type: &str) -> u32 {
        id_of(entity_type, &self.type_ids)
    }

    fn build(document: &NameListDocument, context: &RunContext<'_>) -> Result<Self, KernelError> {
        document.check_columns()?;
        let names = compared_names(document, context)?;
        let characters: usize = names.par_iter().map(|name| name.plain.chars().count()).sum();
        if u32::try_from(characters).is_err() {
            return Err(InvalidInput::new("entries", "the names have 2^32 characters or more").into());
        }
        let alphabet = Alphabet::new(names.iter().map(|name| &name.plain[..]), context)?;
        let forms: Vec<[&str; 2]> = names.iter().map(|name| [&name.plain[..], &name.sorted]).collect();
        let form = |index: usize| NameForm::new(forms.iter().map(|forms| forms[index]), &alphabet, context);
        let (plain, sorted) = (form(0)?, form(1)?);
        let mut list = Self {
            keys: names.iter().map(|name| name.key).collect(),
            set_lengths: Vec::with_capacity(names.len()),
            token_offsets: vec![0],
            tokens: Vec::new(),
            token_signatures: Vec::with_capacity(names.len()),
            token_ids: HashMap::new(),
            attributes: Vec::new(),
            country_ids: ids(document.countries.as_ref()),
            type_ids: ids(document.entity_types.as_ref()),
            #[cfg(feature = "cuda")]
            short_names: names.partition_point(|name| name.plain.chars().count() <= super::pattern::WORD),
            longest: Longest::of(document),
            document: document.clone(),
            alphabet,
            plain,
            sorted,
        };
        list.add_tokens(&names, context)?;
        list.add_attributes();
        Ok(list)
    }

    fn add_tokens(&mut self, names: &[Compared], context: &RunContext<'_>) -> Result<(), KernelError> {
        for (index, name) in names.iter().enumerate() {
            if index.is_multiple_of(NAMES_PER_CHECK) {
                context.check()?;
            }
            let mut signature = 0;
            for token in name.sorted.split(' ') {
                let next = self.token_ids.len() as u32;
                let id = match self.token_ids.get(token) {
                    Some(id) => *id,
                    None => *self.token_ids.entry(token.into()).or_insert(next),
                };
                signature |= token_signature(id);
                self.tokens.push(id);
            }
            self.token_signatures.push(signature);
            self.token_offsets.push(self.tokens.len() as u32);
            self.set_lengths.push(unique_tokens(&name.sorted).chars().count() as u32);
        }
        Ok(())
    }

    fn add_attributes(&mut self) {
        let NameListDocument { dates, countries, entity_types, .. } = &self.document;
        if dates.is_none() && countries.is_none() && entity_types.is_none() {
            return;
        }
        let of_entry = |entry: usize| {
            let date = dates.as_ref().map_or(0, |dates| dates[entry]);
            let country = countries.as_ref().map_or(0, |texts| self.country_id(texts.get(entry)));
            let entity_type = entity_types.as_ref().map_or(0, |texts| self.type_id(texts.get(entry)));
            [date, country, entity_type]
        };
        self.attributes = (0..self.num_entries()).flat_map(of_entry).collect();
    }
}

/// Returns all names as they are compared, in the order of their lengths, those of the same in the order of the list.
fn compared_names(document: &NameListDocument, context: &RunContext<'_>) -> Result<Vec<Compared>, KernelError> {
    let entries: Vec<usize> = (0..document.num_entries()).collect();
    let tasks = entries.par_chunks(ENTRIES_PER_TASK).map(|entries| {
        let mut names = Vec::with_capacity(entries.len());
        for &entry in entries {
            for position in 0..document.names_of(entry).len() {
                if names.len().is_multiple_of(NAMES_PER_CHECK) {
                    context.check()?;
                }
                let plain = document.compared_name(entry, position)?;
                let sorted = sort_tokens(&plain);
                names.push((
                    plain.chars().count(),
                    Compared { plain, sorted, key: (entry as u64) << 32 | position as u64 },
                ));
            }
        }
        Ok(names)
    });
    let mut names: Vec<(usize, Compared)> =
        tasks.collect::<Result<Vec<_>, KernelError>>()?.into_iter().flatten().collect();
    context.check()?;
    names.par_sort_by_key(|(length, name)| (*length, name.key));
    Ok(names.into_iter().map(|(_, name)| name).collect())
}

/// Numbers the different texts of a column from 1, as they are compared.
fn ids(column: Option<&super::Texts>) -> HashMap<String, u32> {
    let mut ids = HashMap::new();
    for text in column.into_iter().flat_map(|texts| (0..texts.len()).map(|index| texts.get(index))) {
        let next = ids.len() as u32 + 1;
        let text = normalize(text);
        if !text.is_empty() {
            ids.entry(text).or_insert(next);
        }
    }
    ids
}

fn id_of(text: &str, ids: &HashMap<String, u32>) -> u32 {
    let text = normalize(text);
    if text.is_empty() { 0 } else { ids.get(&text).copied().unwrap_or(UNKNOWN_ID) }
}

impl OperandValue for NameList {
    const TYPE: &'static str = "names";

    type Document = NameListDocument;

    fn check(document: &NameListDocument) -> Result<(), InvalidInput> {
        document.check_columns()?;
        for entry in 0..document.num_entries() {
            for position in 0..document.names_of(entry).len() {
                document.compared_name(entry, position)?;
            }
        }
        Ok(())
    }

    fn from_document(document: &NameListDocument, context: &RunContext<'_>) -> Result<Self, KernelError> {
        Self::build(document, context)
    }

    fn summary(&self) -> serde_json::Value {
        json!({ "entries": self.num_entries(), "names": self.num_names(), "normalize": self.document.normalize })
    }

    fn bytes(&self) -> u64 {
        let arrays: u64 = self.arrays().iter().map(|array| array.bytes.len() as u64).sum();
        let tokens: u64 = self.token_ids.keys().map(|token| token.len() as u64 + 64).sum();
        arrays + tokens + self.plain.host_bytes() + self.document.byte_len()
    }

    fn to_tensors(&self) -> Tensors {
        self.document.to_tensors()
    }

    fn arrays(&self) -> Vec<OperandArray<'_>> {
        fn words<'a>(name: &'static str, elements: &'a [u32]) -> OperandArray<'a> {
            OperandArray { name, dtype: DType::U32, bytes: bytemuck::cast_slice(elements) }
        }
        fn long_words<'a>(name: &'static str, elements: &'a [u64]) -> OperandArray<'a> {
            OperandArray { name, dtype: DType::U64, bytes: bytemuck::cast_slice(elements) }
        }
        fn bytes<'a>(name: &'static str, elements: &'a [u16]) -> OperandArray<'a> {
            OperandArray { name, dtype: DType::U8, bytes: bytemuck::cast_slice(elements) }
        }
        let mut arrays = vec![
            words("name_offsets", &self.plain.offsets),
            bytes("name_codes", &self.plain.codes),
            long_words("name_signatures", &self.plain.signatures),
            words("sorted_offsets", &self.sorted.offsets),
            bytes("sorted_codes", &self.sorted.codes),
            long_words("sorted_signatures", &self.sorted.signatures),
            long_words("keys", &self.keys),
            words("set_lengths", &self.set_lengths),
            words("token_offsets", &self.token_offsets),
            words("tokens", &self.tokens),
            long_words("token_signatures", &self.token_signatures),
        ];
        if !self.attributes.is_empty() {
            arrays.push(words("attributes", &self.attributes));
        }
        arrays
    }
}
