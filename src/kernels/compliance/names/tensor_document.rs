//! [`TensorDocument`]: a list of names as tensors.

use serde::{Deserialize, Serialize};

use super::document::NameListDocument;
use super::entity::yes;
use super::texts::Texts;
use crate::service::{Buffer, InvalidInput};

/// The form of a list as tensors.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TensorDocument {
    text: Buffer<u8>,
    offsets: Buffer<u32>,
    #[serde(default)]
    entry_offsets: Option<Buffer<u32>>,
    #[serde(default)]
    ids: Option<Buffer<u64>>,
    #[serde(default)]
    dates: Option<Buffer<u32>>,
    #[serde(default)]
    country_text: Option<Buffer<u8>>,
    #[serde(default)]
    country_offsets: Option<Buffer<u32>>,
    #[serde(default)]
    entity_type_text: Option<Buffer<u8>>,
    #[serde(default)]
    entity_type_offsets: Option<Buffer<u32>>,
    #[serde(default)]
    source_text: Option<Buffer<u8>>,
    #[serde(default)]
    source_offsets: Option<Buffer<u32>>,
    #[serde(default)]
    program_text: Option<Buffer<u8>>,
    #[serde(default)]
    program_offsets: Option<Buffer<u32>>,
    #[serde(default = "yes")]
    normalize: bool,
}

/// The columns share their memory.
impl From<&NameListDocument> for TensorDocument {
    fn from(document: &NameListDocument) -> Self {
        let pair = |column: &Option<Texts>| column.clone().map(|Texts { text, offsets }| (text, offsets)).unzip();
        let (country_text, country_offsets) = pair(&document.countries);
        let (entity_type_text, entity_type_offsets) = pair(&document.entity_types);
        let (source_text, source_offsets) = pair(&document.sources);
        let (program_text, program_offsets) = pair(&document.programs);
        Self {
            text: document.names.text.clone(),
            offsets: document.names.offsets.clone(),
            entry_offsets: document.entry_offsets.clone(),
            ids: document.ids.clone(),
            dates: document.dates.clone(),
            country_text,
            country_offsets,
            entity_type_text,
            entity_type_offsets,
            source_text,
            source_offsets,
            program_text,
            program_offsets,
            normalize: document.normalize,
        }
    }
}

impl TensorDocument {
    /// Pairs texts with their offsets.
    ///
    /// # Errors
    /// One of the two is missing.
    pub(super) fn into_document(self) -> Result<NameListDocument, InvalidInput> {
        let pair = |[text_name, offsets_name]: [&str; 2], text, offsets| match (text, offsets) {
            (Some(text), Some(offsets)) => Ok(Some(Texts { text, offsets })),
            (None, None) => Ok(None),
            (None, Some(_)) => Err(InvalidInput::new(text_name, "missing tensor")),
            (Some(_), None) => Err(InvalidInput::new(offsets_name, "missing tensor")),
        };
        Ok(NameListDocument {
            names: Texts { text: self.text, offsets: self.offsets },
            entry_offsets: self.entry_offsets,
            ids: self.ids,
            dates: self.dates,
            countries: pair(["country_text", "country_offsets"], self.country_text, self.country_offsets)?,
            entity_types: pair(
                ["entity_type_text", "entity_type_offsets"],
                self.entity_type_text,
                self.entity_type_offsets,
            )?,
            sources: pair(["source_text", "source_offsets"], self.source_text, self.source_offsets)?,
            programs: pair(["program_text", "program_offsets"], self.program_text, self.program_offsets)?,
            normalize: self.normalize,
        })
    }
}
