//! [`Query`]: one or several names of an entity, and its attributes.

use super::list::NameList;
use super::pattern::Pattern;
use super::scores::Scorer;

/// Attributes of an entity: date, country and type.
pub(super) const NUM_ATTRIBUTES: usize = 3;

/// How much each attribute weighs in the score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct AttributeWeights {
    pub(crate) name: f64,
    pub(crate) attributes: [f64; NUM_ATTRIBUTES],
}

/// An entity that is searched in a list.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    /// Its names, as they are compared.
    pub(crate) names: Vec<String>,
    /// The least score of a match.
    pub(crate) min_score: f64,
    /// A date as YYYYMMDD, 0 where unknown.
    pub(crate) date: u32,
    /// The country, empty where unknown.
    pub(crate) country: String,
    /// The type, empty where unknown.
    pub(crate) entity_type: String,
    pub(crate) weights: AttributeWeights,
}

impl Query {
    /// A query of one name alone, as it is compared.
    pub(crate) fn of_name(name: String, min_score: f64) -> Self {
        let weights = AttributeWeights { name: 1.0, attributes: [0.0; NUM_ATTRIBUTES] };
        Self { names: vec![name], min_score, date: 0, country: String::new(), entity_type: String::new(), weights }
    }
}

/// A [`Query`] prepared for a list.
#[derive(Debug, Clone)]
pub(super) struct PreparedQuery {
    /// Its names.
    pub(super) patterns: Vec<Pattern>,
    /// The least score of a match.
    pub(super) min_score: f64,
    /// Its attributes, 0 where unknown.
    pub(super) attributes: [u32; NUM_ATTRIBUTES],
    /// The weights of the name, and of the attributes that are compared.
    pub(super) weights: [f64; NUM_ATTRIBUTES + 1],
}

impl PreparedQuery {
    pub(super) fn new(query: &Query, list: &NameList, scorer: Scorer) -> Self {
        let patterns = query.names.iter().map(|name| Pattern::new(name, list, scorer)).collect();
        let attributes = [query.date, list.country_id(&query.country), list.type_id(&query.entity_type)];
        // Where no entry has any, there is nothing to compare.
        let is_compared = |attribute: u32| attribute != 0 && !list.attributes.is_empty();
        let [date, country, entity_type] =
            std::array::from_fn(
                |index| if is_compared(attributes[index]) { query.weights.attributes[index] } else { 0.0 },
            );
        let weights = [query.weights.name, date, country, entity_type];
        Self { patterns, min_score: query.min_score, attributes, weights }
    }

    /// Returns whether anything but the name decides.
    pub(super) fn has_attributes(&self) -> bool {
        self.weights[1..].iter().any(|&weight| weight != 0.0)
    }

    /// Returns the least score of the name with which the combined score can reach the threshold: where all attributes of
    /// the query agree with those of the entry.
    pub(super) fn name_threshold(&self, threshold: f64) -> f64 {
        let others = (self.weights[1] + self.weights[2] + self.weights[3]) / self.weights[0];
        threshold - (1.0 - threshold) * others
    }

    /// Returns the weighted mean of the score of the name and the agreement of the attributes that both have.
    pub(super) fn combine(&self, score: f64, entry: [u32; NUM_ATTRIBUTES]) -> f64 {
        if !self.has_attributes() {
            return score;
        }
        let [mut sum, mut total] = [self.weights[0] * score, self.weights[0]];
        for (index, (ours, theirs)) in self.attributes.into_iter().zip(entry).enumerate() {
            let weight = self.weights[index + 1];
            if weight == 0.0 || theirs == 0 {
                continue;
            }
            let is_same_year = index == 0 && ours / 10_000 == theirs / 10_000;
            sum += weight
                * if ours == theirs {
                    1.0
                } else if is_same_year {
                    0.5
                } else {
                    0.0
                };
            total += weight;
        }
        sum / total
    }
}

impl NameList {
    /// Returns date, country and type of an entry, 0 where unknown.
    pub(super) fn attributes_of(&self, entry: u32) -> [u32; NUM_ATTRIBUTES] {
        let start = NUM_ATTRIBUTES * entry as usize;
        match self.attributes.get(start..start + NUM_ATTRIBUTES) {
            Some(&[date, country, entity_type]) => [date, country, entity_type],
            _ => [0; NUM_ATTRIBUTES],
        }
    }
}
