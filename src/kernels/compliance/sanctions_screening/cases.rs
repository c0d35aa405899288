//! The test's inputs, and all pairs of names one after the other as the reference.

use super::{SanctionsScreening, SanctionsScreeningInput, SanctionsScreeningOutput};
use crate::kernels::authoring::{Cases, Expected, Random};
use crate::kernels::compliance::names::reference::{
    best_entries, misspelled, random_list, random_name, random_scorer, score,
};
use crate::kernels::compliance::names::{NameList, normalize};
use crate::service::{Operand, OperandValue, Operands, RunContext};

/// The most entries of a list; the reference takes long.
const MOST_ENTRIES: usize = 400;

impl Cases for SanctionsScreening {
    /// A stored list, and names of which some are like those in it.
    fn case(&self, size: usize, random: &mut Random) -> Option<SanctionsScreeningInput> {
        if size == 0 || size > 5_000 {
            return None;
        }
        let document = random_list(size.min(MOST_ENTRIES), random);
        let queries = 1 + random.below(40) as usize;
        let names = (0..queries).map(|_| match random.below(3) {
            0 => random_name(random),
            _ => misspelled(document.names.get(random.below(document.names.len() as u64) as usize), random),
        });
        let names = names.collect();
        let list = NameList::from_document(&document, &RunContext::detached()).ok()?;
        let sanctions_list: Operand<NameList> = Operands::default().put("list", list).ok()?;
        Some(SanctionsScreeningInput {
            scorer: random_scorer(random),
            min_score: random.between(0.0, 0.9),
            max_matches: 1 + random.below(30) as u32,
            ..SanctionsScreeningInput::new(names, sanctions_list)
        })
    }

    fn share(&self, input: &mut SanctionsScreeningInput, with: &SanctionsScreeningInput) {
        input.sanctions_list = with.sanctions_list.clone();
        input.scorer = with.scorer;
    }

    fn put_nan(&self, input: &mut SanctionsScreeningInput, _: usize) {
        input.min_score = f64::NAN;
    }

    fn reference(&self, input: &SanctionsScreeningInput) -> Vec<Expected> {
        let list = input.sanctions_list.value().expect("a stored list").document();
        let mut columns: [Vec<f64>; 5] = Default::default();
        columns[0].push(0.0);
        let names: Vec<String> = (0..list.names.len()).map(|name| normalize(list.names.get(name))).collect();
        for query in input.names.iter().flatten() {
            let query = normalize(query);
            let of_entry = |entry| -> Vec<f64> {
                list.names_of(entry).map(|name| score(input.scorer, &query, &names[name])).collect()
            };
            let scores = (0..list.num_entries()).map(of_entry);
            for (entry, score, position) in best_entries(scores, input.min_score, input.max_matches) {
                let values = [entry as f64, list.id(entry) as f64, score, position as f64];
                columns[1..].iter_mut().zip(values).for_each(|(column, value)| column.push(value));
            }
            columns[0].push(columns[1].len() as f64);
        }
        let names = ["match_offsets", "entries", "ids", "scores", "name_indices"];
        let exact = |(name, values): (&'static str, Vec<f64>)| Expected {
            name,
            values: values.into_iter().map(|value| (value, 0.0)).collect(),
        };
        names.into_iter().zip(columns).map(exact).collect()
    }

    fn values(&self, output: &SanctionsScreeningOutput) -> Vec<Vec<f64>> {
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
