//! The test's inputs, and all pairs of entities one after the other as the reference.

use super::{EntityResolution, EntityResolutionInput, EntityResolutionOutput, Weights};
use crate::kernels::authoring::{Cases, Expected, Random};
use crate::kernels::compliance::names::reference::{
    best_entries, misspelled, random_country, random_date, random_list, random_scorer, score,
};
use crate::kernels::compliance::names::{Entity, NameList, NameListDocument, normalize};
use crate::service::{Operand, OperandValue, Operands, RunContext};

/// The most entries of a list; the reference takes long.
const MOST_ENTRIES: usize = 200;

impl Cases for EntityResolution {
    /// Stored candidates, and one entity or a list of them, which are like some candidates.
    fn case(&self, size: usize, random: &mut Random) -> Option<EntityResolutionInput> {
        if size == 0 || size > 5_000 {
            return None;
        }
        let document = random_list(size.min(MOST_ENTRIES), random);
        let entities: Vec<Entity> = (0..=random.below(20))
            .map(|_| {
                let like = |random: &mut Random| {
                    let name = random.below(document.names.len() as u64) as usize;
                    misspelled(document.names.get(name), random)
                };
                Entity {
                    name: like(random),
                    aliases: (0..random.below(3)).map(|_| like(random)).collect(),
                    date: (random.below(2) > 0).then(|| random_date(random)),
                    country: (random.below(2) > 0).then(|| random_country(random)),
                    entity_type: (random.below(2) > 0).then(|| "person".to_owned()),
                    ..Entity::default()
                }
            })
            .collect();
        let list = NameList::from_document(&document, &RunContext::detached()).ok()?;
        let candidates: Operand<NameList> = Operands::default().put("list", list).ok()?;
        let mut input = EntityResolutionInput {
            scorer: random_scorer(random),
            weights: Weights { date: random.between(0.0, 2.0), ..Weights::default() },
            min_score: random.between(0.0, 0.9),
            max_matches: 1 + random.below(30) as u32,
            ..EntityResolutionInput::new(entities[0].clone(), candidates)
        };
        if entities.len() > 4 {
            input.query = None;
            input.queries = Some(Operand::inline(NameListDocument::from_entities(&entities, true)));
        }
        Some(input)
    }

    fn share(&self, input: &mut EntityResolutionInput, with: &EntityResolutionInput) {
        input.candidates = with.candidates.clone();
        input.scorer = with.scorer;
    }

    fn put_nan(&self, input: &mut EntityResolutionInput, _: usize) {
        input.weights.country = f64::NAN;
    }

    fn reference(&self, input: &EntityResolutionInput) -> Vec<Expected> {
        let candidates = input.candidates.value().expect("stored candidates").document();
        let queries = match (&input.query, &input.queries) {
            (Some(query), _) => NameListDocument::from_entities(std::slice::from_ref(query), true),
            (None, queries) => queries.as_ref().and_then(Operand::document).expect("inline queries").clone(),
        };
        let mut columns: [Vec<f64>; 5] = Default::default();
        columns[0].push(0.0);
        for query in 0..queries.num_entries() {
            let scores = (0..candidates.num_entries()).map(|entry| scores(input, &queries, query, candidates, entry));
            for (entry, score, position) in best_entries(scores, input.min_score, input.max_matches) {
                let values = [entry as f64, candidates.id(entry) as f64, score, position as f64];
                columns[1..].iter_mut().zip(values).for_each(|(column, value)| column.push(value));
            }
            columns[0].push(columns[1].len() as f64);
        }
        let names = ["match_offsets", "entries", "ids", "scores", "name_indices"];
        let exact = |(name, values): (&'static str, Vec<f64>)| Expected {
            name,
            values: values.into_iter().map(|value| (value, 1e-15)).collect(),
        };
        names.into_iter().zip(columns).map(exact).collect()
    }

    fn values(&self, output: &EntityResolutionOutput) -> Vec<Vec<f64>> {
        let words = |values: &[u32]| values.iter().map(|&value| value.into()).collect();
        vec![
            words(&output.match_offsets),
            words(&output.entries),
            output.ids.iter().map(|&id| id as f64).collect(),
            output.scores.to_vec(),
            words(&output.name_indices),
        ]
    }
}

/// The score of each name of a candidate.
fn scores(
    input: &EntityResolutionInput,
    queries: &NameListDocument,
    query: usize,
    candidates: &NameListDocument,
    entry: usize,
) -> Vec<f64> {
    let text = |column: &Option<_>, index| {
        column
            .as_ref()
            .map_or(String::new(), |texts: &crate::kernels::compliance::names::Texts| normalize(texts.get(index)))
    };
    let date = |list: &NameListDocument, index: usize| list.dates.as_ref().map_or(0, |dates| dates[index]);
    let (ours, theirs) = (date(queries, query), date(candidates, entry));
    let dates_agree = if ours == theirs {
        1.0
    } else if ours / 10_000 == theirs / 10_000 {
        0.5
    } else {
        0.0
    };
    let mut attributes = Vec::new();
    if ours != 0 && theirs != 0 {
        attributes.push((input.weights.date, dates_agree));
    }
    for (weight, ours, theirs) in [
        (input.weights.country, text(&queries.countries, query), text(&candidates.countries, entry)),
        (input.weights.entity_type, text(&queries.entity_types, query), text(&candidates.entity_types, entry)),
    ] {
        if !ours.is_empty() && !theirs.is_empty() {
            attributes.push((weight, f64::from(u8::from(ours == theirs))));
        }
    }
    let of_name = |name: usize| {
        let name = normalize(candidates.names.get(name));
        let of_query = |query: usize| score(input.scorer, &normalize(queries.names.get(query)), &name);
        let best = queries.names_of(query).map(of_query).fold(0.0, f64::max);
        let first = (input.weights.name * best, input.weights.name);
        let add =
            |(sum, total): (f64, f64), (weight, agreement): &(f64, f64)| (sum + weight * agreement, total + weight);
        let (sum, total) = attributes.iter().fold(first, add);
        sum / total
    };
    candidates.names_of(entry).map(of_name).collect()
}
