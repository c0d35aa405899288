//! [`Entity`]: an entry of a list in JSON, and lists of entities.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::document::NameListDocument;
use super::texts::Texts;
use crate::service::optional_sequence;

/// An entry of a list in JSON, or the query of a request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Entity {
    /// What the output says of the entity. Default: its index in the list.
    #[serde(default)]
    pub id: Option<u64>,
    /// The name.
    pub name: String,
    /// Other names.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// A date as YYYYMMDD, such as that of birth; month and day may be 00.
    #[serde(default, alias = "dob")]
    pub date: Option<u32>,
    /// The country.
    #[serde(default)]
    pub country: Option<String>,
    /// The type, such as `person`.
    #[serde(default)]
    pub entity_type: Option<String>,
    /// The list that has the entry.
    #[serde(default)]
    pub source: Option<String>,
    /// The programme under which it is listed.
    #[serde(default)]
    pub program: Option<String>,
}

impl NameListDocument {
    /// Creates a list of entities.
    pub fn from_entities(entities: &[Entity], normalize: bool) -> Self {
        let names = entities.iter().flat_map(|entity| std::iter::once(&entity.name).chain(&entity.aliases));
        let has = |is_given: fn(&Entity) -> bool| entities.iter().any(is_given);
        let texts = |is_given: fn(&Entity) -> bool, field: fn(&Entity) -> &Option<String>| {
            has(is_given).then(|| Texts::new(entities.iter().map(|entity| field(entity).as_deref().unwrap_or(""))))
        };
        let entry_offsets = has(|entity| !entity.aliases.is_empty()).then(|| {
            let mut next = 0_u32;
            let ends = entities.iter().map(|entity| {
                next = next.saturating_add(u32::try_from(1 + entity.aliases.len()).unwrap_or(u32::MAX));
                next
            });
            std::iter::once(0).chain(ends.collect::<Vec<_>>()).collect()
        });
        let ids = has(|entity| entity.id.is_some())
            .then(|| (0..).zip(entities).map(|(index, entity)| entity.id.unwrap_or(index)).collect());
        let dates = has(|entity| entity.date.is_some())
            .then(|| entities.iter().map(|entity| entity.date.unwrap_or(0)).collect());
        Self {
            names: Texts::new(names.map(String::as_str)),
            entry_offsets,
            ids,
            dates,
            countries: texts(|entity| entity.country.is_some(), |entity| &entity.country),
            entity_types: texts(|entity| entity.entity_type.is_some(), |entity| &entity.entity_type),
            sources: texts(|entity| entity.source.is_some(), |entity| &entity.source),
            programs: texts(|entity| entity.program.is_some(), |entity| &entity.program),
            normalize,
        }
    }
}

impl NameListDocument {
    /// Returns the entries of a list whose columns were checked.
    pub(super) fn to_entities(&self) -> Vec<Entity> {
        let text = |column: &Option<Texts>, entry: usize| {
            column.as_ref().map(|texts| texts.get(entry)).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let entity = |entry: usize| {
            let mut names = self.names_of(entry).map(|name| self.names.get(name).to_owned());
            Entity {
                id: self.ids.as_ref().map(|ids| ids[entry]),
                name: names.next().expect("an entry has a name"),
                aliases: names.collect(),
                date: self.dates.as_ref().map(|dates| dates[entry]).filter(|date| *date != 0),
                country: text(&self.countries, entry),
                entity_type: text(&self.entity_types, entry),
                source: text(&self.sources, entry),
                program: text(&self.programs, entry),
            }
        };
        (0..self.num_entries()).map(entity).collect()
    }
}

/// The JSON form of a list.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "NameList", extend("examples" = [
    { "entries": [{ "name": "John Smith" }, { "name": "Jane Doe" }] },
    { "entries": [{ "id": 7, "name": "Smith, John", "aliases": ["Johnny Smith"], "country": "US", "dob": 19600131,
        "source": "OFAC", "program": "SDGT" }] },
]))]
pub(super) struct JsonDocument {
    /// The entries, at least one.
    #[serde(default, deserialize_with = "optional_sequence", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<Entity>", length(min = 1), required)]
    pub(super) entries: Option<Vec<Entity>>,
    /// Whether names are compared without case, accents and punctuation.
    #[serde(default = "yes")]
    pub(super) normalize: bool,
}

pub(super) fn yes() -> bool {
    true
}
