//! [`NameListDocument`]: what clients send as a list of names.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};

use super::entity::JsonDocument;
use super::normalize::normalize;
use super::tensor_document::TensorDocument;
use super::texts::Texts;
use crate::service::{Buffer, DType, InvalidInput, Tensor, Tensors, is_transfer};

/// The most names of a list, aliases included.
pub const MAX_NAMES: usize = 1 << 27;
/// The most characters of a name as it is compared.
pub const MAX_NAME_CHARACTERS: usize = 1024;

/// A list of names in columns, before it is checked.
///
/// In JSON it is an object whose `entries` are objects, of which each has a `name`:
///
/// ```json
/// {"entries": [{"id": 7, "name": "Smith, John", "aliases": ["Johnny Smith"], "country": "US", "dob": 19600131}]}
/// ```
///
/// As tensors it is these columns:
///
/// | tensor | type | |
/// |---|---|---|
/// | `text` | `uint8`, `[bytes]` | UTF-8 of all names, those of an entry one after the other |
/// | `offsets` | `uint32`, `[names + 1]` | where each name starts in `text`, and the length of the text |
/// | `entry_offsets` | `uint32`, `[entries + 1]` | the first name of each entry, which is its name; the others are aliases. By default each name is an entry |
/// | `ids` | `uint64`, `[entries]` | what the output says of an entry; by default its index |
/// | `dates` | `uint32`, `[entries]` | YYYYMMDD, 0 where unknown |
/// | `country_text`, `country_offsets` | as the names, `[entries + 1]` | empty where unknown |
/// | `entity_type_text`, `entity_type_offsets` | as the names | |
/// | `source_text`, `source_offsets` | as the names | the list that has the entry |
/// | `program_text`, `program_offsets` | as the names | |
/// | `normalize` | bool, default true | whether names are [normalized](super::normalize()) |
#[derive(Debug, Clone, PartialEq)]
pub struct NameListDocument {
    /// The names of all entries.
    pub names: Texts,
    /// Where the names of each entry start; without it, each name is an entry.
    pub entry_offsets: Option<Buffer<u32>>,
    /// What the output says of each entry.
    pub ids: Option<Buffer<u64>>,
    /// A date of each entry as YYYYMMDD, such as that of birth; 0 where unknown.
    pub dates: Option<Buffer<u32>>,
    /// The country of each entry; empty where unknown.
    pub countries: Option<Texts>,
    /// The type of each entry; empty where unknown.
    pub entity_types: Option<Texts>,
    /// The list that each entry comes from.
    pub sources: Option<Texts>,
    /// The programme of each entry.
    pub programs: Option<Texts>,
    /// Whether names are normalized before they are compared.
    pub normalize: bool,
}

impl NameListDocument {
    /// Creates a list of names without aliases.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            names: Texts::new(names),
            entry_offsets: None,
            ids: None,
            dates: None,
            countries: None,
            entity_types: None,
            sources: None,
            programs: None,
            normalize: true,
        }
    }

    /// Returns how many entries there are.
    pub fn num_entries(&self) -> usize {
        self.entry_offsets.as_ref().map_or(self.names.len(), |offsets| offsets.len().saturating_sub(1))
    }

    /// Returns the names of an entry: the first is its name, and the others are aliases.
    pub fn names_of(&self, entry: usize) -> Range<usize> {
        match &self.entry_offsets {
            Some(offsets) => offsets[entry] as usize..offsets[entry + 1] as usize,
            None => entry..entry + 1,
        }
    }

    /// Returns the id of an entry.
    pub fn id(&self, entry: usize) -> u64 {
        self.ids.as_ref().map_or(entry as u64, |ids| ids[entry])
    }

    /// Returns the path of a name in errors.
    fn path(&self, entry: usize, position: usize) -> String {
        match position {
            0 => format!("entries[{entry}].name"),
            alias => format!("entries[{entry}].aliases[{}]", alias - 1),
        }
    }

    /// Checks everything but the names themselves.
    ///
    /// # Errors
    /// The first invalid field.
    pub(super) fn check_columns(&self) -> Result<(), InvalidInput> {
        self.names.check(["text", "offsets"], None)?;
        let names = self.names.len();
        if names == 0 {
            return Err(InvalidInput::new("entries", "there are none"));
        }
        if names > MAX_NAMES {
            return Err(InvalidInput::new("entries", format!("{names} names where at most {MAX_NAMES} are expected")));
        }
        if let Some(offsets) = &self.entry_offsets {
            check_entry_offsets(offsets, names)?;
        }
        let entries = self.num_entries();
        let lengths =
            [("ids", self.ids.as_ref().map(|ids| ids.len())), ("dates", self.dates.as_ref().map(|dates| dates.len()))];
        for (field, len) in lengths {
            if let Some(len) = len.filter(|&len| len != entries) {
                return Err(InvalidInput::new(field, format!("{len} elements, and there are {entries} entries")));
            }
        }
        for (index, &date) in self.dates.iter().flat_map(|dates| dates.iter()).enumerate() {
            check_date(date).map_err(|reason| InvalidInput::new(format!("entries[{index}].date"), reason))?;
        }
        for (column, fields) in self.text_columns() {
            column.map_or(Ok(()), |column| column.check(fields, Some(entries)))?;
        }
        for (column, field) in self.text_columns().into_iter().zip(["country", "entity_type", "source", "program"]) {
            let texts = column.0.into_iter().flat_map(|texts| (0..texts.len()).map(|index| texts.get(index)));
            for (entry, text) in texts.enumerate() {
                check_characters(text)
                    .map_err(|reason| InvalidInput::new(format!("entries[{entry}].{field}"), reason))?;
            }
        }
        Ok(())
    }

    /// Returns a name as it is compared.
    ///
    /// # Errors
    /// There is nothing to compare, or too much.
    pub(super) fn compared_name(&self, entry: usize, position: usize) -> Result<String, InvalidInput> {
        let name = self.names.get(self.names_of(entry).start + position);
        check_characters(name)
            .and_then(|()| compared(name, self.normalize))
            .map_err(|reason| InvalidInput::new(self.path(entry, position), reason))
    }

    fn text_columns(&self) -> [(Option<&Texts>, [&'static str; 2]); 4] {
        [
            (self.countries.as_ref(), ["country_text", "country_offsets"]),
            (self.entity_types.as_ref(), ["entity_type_text", "entity_type_offsets"]),
            (self.sources.as_ref(), ["source_text", "source_offsets"]),
            (self.programs.as_ref(), ["program_text", "program_offsets"]),
        ]
    }

    /// Returns the bytes of the columns.
    pub(super) fn byte_len(&self) -> u64 {
        let others: u64 = self.text_columns().iter().filter_map(|(column, _)| *column).map(Texts::byte_len).sum();
        let numbers = self.entry_offsets.as_ref().map_or(0, |offsets| 4 * offsets.len())
            + self.ids.as_ref().map_or(0, |ids| 8 * ids.len())
            + self.dates.as_ref().map_or(0, |dates| 4 * dates.len());
        self.names.byte_len() + others + numbers as u64
    }

    /// Returns the tensors that [`from_tensors`](Self::from_tensors) reads.
    pub(super) fn to_tensors(&self) -> Tensors {
        let mut tensors = Tensors::new();
        let mut insert = |name: &str, dtype, len: Option<usize>, data: Bytes| {
            let tensor = Tensor::new(dtype, len.into_iter().collect::<Vec<_>>(), data);
            tensor.and_then(|tensor| tensors.insert(name, tensor)).expect("the shape is that of the elements");
        };
        let texts =
            self.text_columns().into_iter().filter_map(|(column, fields)| column.map(|column| (column, fields)));
        for (column, [text, offsets]) in std::iter::once((&self.names, ["text", "offsets"])).chain(texts) {
            insert(text, DType::U8, Some(column.text.len()), column.text.clone().into_bytes());
            insert(offsets, DType::U32, Some(column.offsets.len()), column.offsets.clone().into_bytes());
        }
        for (name, column) in [("entry_offsets", &self.entry_offsets), ("dates", &self.dates)] {
            if let Some(column) = column {
                insert(name, DType::U32, Some(column.len()), column.clone().into_bytes());
            }
        }
        if let Some(ids) = &self.ids {
            insert("ids", DType::U64, Some(ids.len()), ids.clone().into_bytes());
        }
        insert("normalize", DType::Bool, None, Bytes::copy_from_slice(&[u8::from(self.normalize)]));
        tensors
    }
}

/// Checks that the offsets ascend from 0 to the number of names, and that each entry has one.
fn check_entry_offsets(offsets: &[u32], names: usize) -> Result<(), InvalidInput> {
    let invalid = |index: usize, reason: String| Err(InvalidInput::new(format!("entry_offsets[{index}]"), reason));
    match offsets {
        [] => return Err(InvalidInput::new("entry_offsets", "it is empty")),
        [first, ..] if *first != 0 => return invalid(0, "it is not 0".to_owned()),
        [.., last] if *last as usize != names => {
            return invalid(offsets.len() - 1, format!("{last} where the number of names, {names}, is expected"));
        }
        _ => {}
    }
    match offsets.windows(2).position(|pair| pair[0] >= pair[1]) {
        Some(index) => invalid(index + 1, "the entry has no name".to_owned()),
        None => Ok(()),
    }
}

/// Checks a date as YYYYMMDD; 0 stands for an unknown one, month and day.
pub(in crate::kernels::compliance) fn check_date(date: u32) -> Result<(), String> {
    let (year, month, day) = (date / 10_000, date / 100 % 100, date % 100);
    if date == 0 || (1..=9999).contains(&year) && month <= 12 && day <= 31 {
        return Ok(());
    }
    Err(format!("{date} is not a date as YYYYMMDD"))
}

/// Checks a text that outputs repeat.
fn check_characters(text: &str) -> Result<(), String> {
    if text.contains(|character: char| character.is_control()) {
        return Err(format!("{text:?} has a control character"));
    }
    Ok(())
}

/// Returns a name as it is compared.
pub(in crate::kernels::compliance) fn compared(name: &str, is_normalized: bool) -> Result<String, String> {
    // Arrays of strings are padded with zeros.
    let name = name.trim_end_matches('\0');
    let compared = if is_normalized { normalize(name) } else { name.to_owned() };
    if compared.trim().is_empty() {
        return Err(format!("{name:?} has no letter and no digit"));
    }
    let characters = compared.chars().count();
    if characters > MAX_NAME_CHARACTERS {
        return Err(format!("{characters} characters where at most {MAX_NAME_CHARACTERS} are expected"));
    }
    Ok(compared)
}

/// Serializes in each format as it is read there. To another process it crosses as columns.
impl Serialize for NameListDocument {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if is_transfer() || !serializer.is_human_readable() {
            return TensorDocument::from(self).serialize(serializer);
        }
        self.check_columns().map_err(ser::Error::custom)?;
        JsonDocument { entries: Some(self.to_entities()), normalize: self.normalize }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for NameListDocument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if is_transfer() || !deserializer.is_human_readable() {
            return TensorDocument::deserialize(deserializer)?.into_document().map_err(D::Error::custom);
        }
        let JsonDocument { entries, normalize } = JsonDocument::deserialize(deserializer)?;
        let entries = entries.ok_or_else(|| D::Error::missing_field("entries"))?;
        Ok(Self::from_entities(&entries, normalize))
    }
}

impl JsonSchema for NameListDocument {
    fn schema_name() -> Cow<'static, str> {
        JsonDocument::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        JsonDocument::json_schema(generator)
    }
}
