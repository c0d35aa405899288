//! The host side on CUDA. `names.cu` describes the algorithm.

use super::best::{Best, Match};
use super::list::NameList;
use super::matches::ListSize;
use super::pattern::WORD;
use super::pattern_arrays::{PATTERN_WORDS, PatternArrays};
use super::query::{PreparedQuery, Query};
use super::scores::Scorer;
use super::{MAX_MATCHES, Search, search::search as search_cpu};
use crate::cuda::{Arg, DeviceBuffer, Launch, Module, device_code};
use crate::kernels::device::cancel::CancelSignal;
use crate::service::{KernelError, LaunchContext};

pub(in crate::kernels::compliance) static MODULE: Module = Module::embedded(device_code!("compliance/names"));

// As in `names.cu`.
const THREADS: u32 = 256;
const GROUP: usize = 32;
const NEEDED: usize = 5 * (WORD + 1);
/// Blocks that a multiprocessor holds at a time.
const BLOCKS_PER_MULTIPROCESSOR: u32 = 6;
/// Patterns of a batch.
const PATTERNS_PER_BATCH: usize = 1024;
/// Hits that there is memory for: pairs of a query and a name that one launch compares.
const MAX_HITS: usize = 1 << 23;
/// Names of the first launch, after which there may be thresholds. Each launch takes twice those of the one before.
const FIRST_NAMES: usize = 1 << 13;

/// Bytes that a run holds on the device.
pub(super) fn device_memory(list: &ListSize, queries: u64, max_matches: u32) -> u64 {
    let batch = queries.min(PATTERNS_PER_BATCH as u64);
    let hits = batch.saturating_mul(list.names).min(2 * MAX_HITS as u64);
    let kept = batch.saturating_mul(max_matches.min(MAX_MATCHES).into());
    // The list, of which names have some 30 characters.
    let list = list.names.saturating_mul(160);
    hits.saturating_add(kept).saturating_mul(16).saturating_add(batch.saturating_mul(1 << 10)).saturating_add(list)
}

/// Searches in the names of up to 64 characters on the device, and then in the others on the CPU. Queries with a name of
/// more than 64 characters are searched on the CPU.
pub(super) fn search(search: &Search<'_>, cuda: &mut LaunchContext<'_>) -> Result<Vec<Vec<Match>>, KernelError> {
    let Search { list, scorer, queries, max_matches } = search;
    let k = *max_matches as usize;
    let short_names = list.short_names;
    let is_short = |query: &Query| query.names.iter().all(|name| name.chars().count() <= WORD);
    let (short, long): (Vec<usize>, Vec<usize>) = (0..queries.len()).partition(|&query| is_short(&queries[query]));
    let mut matches: Vec<Vec<Match>> = vec![Vec::new(); queries.len()];
    let of_queries = |indices: &[usize]| indices.iter().map(|&index| queries[index].clone()).collect::<Vec<_>>();

    if short_names > 0 && !short.is_empty() {
        let arrays = ListArrays::new(list, *scorer, short_names, cuda)?;
        for batch in batches(&short, queries) {
            let prepared: Vec<PreparedQuery> =
                batch.iter().map(|&query| PreparedQuery::new(&queries[query], list, *scorer)).collect();
            let kept = Batch::new(&prepared, *scorer, k, &arrays, cuda)?.run(&arrays, cuda)?;
            for (&query, best) in batch.iter().zip(kept) {
                matches[query] = best;
            }
        }
    }
    if short_names < list.num_names() {
        let names = short_names..list.num_names();
        let mut queries_of_others = of_queries(&short);
        for (query, &index) in queries_of_others.iter_mut().zip(&short) {
            // A name that is not better than the best k so far is not among them.
            if let Some(last) = matches[index].get(k - 1) {
                query.min_score = last.score;
            }
        }
        let others = search_cpu(list, *scorer, &queries_of_others, k, names, cuda.context())?;
        for (&query, others) in short.iter().zip(others) {
            let threshold = queries[query].min_score.to_bits().into();
            let mut best = Best::new(k, &threshold);
            matches[query].drain(..).chain(others).for_each(|found| best.add(found));
            matches[query] = best.into_matches();
        }
    }
    let of_long = search_cpu(list, *scorer, &of_queries(&long), k, 0..list.num_names(), cuda.context())?;
    for (query, found) in long.into_iter().zip(of_long) {
        matches[query] = found;
    }
    Ok(matches)
}

/// Splits queries into batches that have memory for the hits of some names: each query has as much as the one with the most
/// names needs.
fn batches<'a>(indices: &'a [usize], queries: &[Query]) -> Vec<&'a [usize]> {
    let (mut batches, mut start, mut patterns, mut most) = (Vec::new(), 0, 0, 0);
    for (index, &query) in indices.iter().enumerate() {
        let names = queries[query].names.len();
        let hits_of_a_name = (index - start + 1) * most.max(names);
        let is_full = patterns + names > PATTERNS_PER_BATCH || hits_of_a_name > MAX_HITS / THREADS as usize;
        if index > start && is_full {
            batches.push(&indices[start..index]);
            (start, patterns, most) = (index, 0, 0);
        }
        patterns += names;
        most = most.max(names);
    }
    batches.push(&indices[start..]);
    batches
}

/// The arrays of a list on the device, in the form that a scorer compares.
struct ListArrays {
    num_names: usize,
    offsets: DeviceBuffer<u32>,
    codes: DeviceBuffer<u8>,
    signatures: DeviceBuffer<u64>,
    keys: DeviceBuffer<u64>,
    set_lengths: DeviceBuffer<u32>,
    token_offsets: DeviceBuffer<u32>,
    tokens: DeviceBuffer<u32>,
    token_signatures: DeviceBuffer<u64>,
    attributes: DeviceBuffer<u32>,
    space: u32,
}

impl ListArrays {
    fn new(
        list: &NameList,
        scorer: Scorer,
        num_names: usize,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Self, KernelError> {
        let form = if scorer.is_of_tokens() { &list.sorted } else { &list.plain };
        let is_set = scorer == Scorer::TokenSet;
        // What the scorer does not read is not uploaded.
        let of_set = |array| if is_set { array } else { &[][..] };
        Ok(Self {
            num_names,
            offsets: cuda.input(&form.offsets)?,
            codes: cuda.input(bytemuck::cast_slice(&form.codes))?,
            signatures: cuda.input(&form.signatures)?,
            keys: cuda.input(&list.keys)?,
            set_lengths: cuda.input(of_set(&list.set_lengths))?,
            token_offsets: cuda.input(of_set(&list.token_offsets))?,
            tokens: cuda.input(of_set(&list.tokens))?,
            token_signatures: cuda.input(if is_set { &list.token_signatures } else { &[] })?,
            attributes: cuda.input(&list.attributes)?,
            space: list.alphabet.code(' ').into(),
        })
    }
}

/// Queries that are searched together, on the device.
struct Batch {
    scorer: Scorer,
    k: usize,
    num_queries: usize,
    num_patterns: usize,
    /// The names of a launch, and the hits of a query that it can have.
    names_per_launch: usize,
    capacity: usize,
    any_attributes: bool,
    patterns: DeviceBuffer<u64>,
    masks: DeviceBuffer<u64>,
    rare_codes: DeviceBuffer<u32>,
    rare_masks: DeviceBuffer<u64>,
    tokens: DeviceBuffer<u32>,
    token_masks: DeviceBuffer<u64>,
    pattern_offsets: DeviceBuffer<u32>,
    needed: DeviceBuffer<u8>,
    weights: DeviceBuffer<f64>,
    attributes: DeviceBuffer<u32>,
    thresholds: DeviceBuffer<f64>,
    counts: DeviceBuffer<u32>,
    scores: DeviceBuffer<f64>,
    keys: DeviceBuffer<u64>,
    kept_counts: DeviceBuffer<u32>,
    kept_scores: DeviceBuffer<f64>,
    kept_keys: DeviceBuffer<u64>,
    cancel: CancelSignal,
}

impl Batch {
    fn new(
        queries: &[PreparedQuery],
        scorer: Scorer,
        k: usize,
        list: &ListArrays,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Self, KernelError> {
        let mut arrays = PatternArrays::default();
        let mut pattern_offsets = vec![0];
        for (index, query) in queries.iter().enumerate() {
            query.patterns.iter().for_each(|pattern| arrays.add(pattern, index));
            pattern_offsets.push((arrays.patterns.len() / PATTERN_WORDS) as u32);
        }
        let num_patterns = arrays.patterns.len() / PATTERN_WORDS;
        let most_patterns = queries.iter().map(|query| query.patterns.len()).max().unwrap_or(1);
        let names_per_launch = (MAX_HITS / (queries.len() * most_patterns)).max(THREADS as usize).min(list.num_names);
        let capacity = names_per_launch * most_patterns;
        let weights: Vec<f64> = queries.iter().flat_map(|query| query.weights).collect();
        let attributes: Vec<u32> = queries.iter().flat_map(|query| query.attributes).collect();
        let thresholds: Vec<f64> = queries.iter().map(|query| query.min_score).collect();
        Ok(Self {
            scorer,
            k,
            num_queries: queries.len(),
            num_patterns,
            names_per_launch,
            capacity,
            any_attributes: queries.iter().any(PreparedQuery::has_attributes),
            patterns: cuda.upload(&arrays.patterns)?,
            masks: cuda.upload(&arrays.masks)?,
            rare_codes: cuda.upload(&arrays.rare_codes)?,
            rare_masks: cuda.upload(&arrays.rare_masks)?,
            tokens: cuda.upload(&arrays.tokens)?,
            token_masks: cuda.upload(&arrays.token_masks)?,
            pattern_offsets: cuda.upload(&pattern_offsets)?,
            needed: cuda.alloc(num_patterns * NEEDED)?,
            weights: cuda.upload(&weights)?,
            attributes: cuda.upload(&attributes)?,
            thresholds: cuda.upload(&thresholds)?,
            counts: cuda.zeroed(queries.len())?,
            scores: cuda.alloc(queries.len() * capacity)?,
            keys: cuda.alloc(queries.len() * capacity)?,
            kept_counts: cuda.zeroed(queries.len())?,
            kept_scores: cuda.alloc(queries.len() * k)?,
            kept_keys: cuda.alloc(queries.len() * k)?,
            cancel: CancelSignal::new(cuda)?,
        })
    }

    /// Searches in all names of the list, and returns the best matches of each query.
    fn run(&self, list: &ListArrays, cuda: &mut LaunchContext<'_>) -> Result<Vec<Vec<Match>>, KernelError> {
        self.select(true, cuda)?;
        let (mut first, mut names) = (0, FIRST_NAMES);
        while first < list.num_names {
            let end = list.num_names.min(first + names.min(self.names_per_launch));
            self.compare(list, first as u32..end as u32, cuda)?;
            self.select(false, cuda)?;
            (first, names) = (end, 2 * names);
        }
        let counts = cuda.download(&self.kept_counts)?;
        let (scores, keys) = (cuda.download(&self.kept_scores)?, cuda.download(&self.kept_keys)?);
        let matches = |(query, &count): (usize, &u32)| {
            let kept = query * self.k..query * self.k + count as usize;
            let found = |(&score, &key): (&f64, &u64)| Match { score, entry: (key >> 32) as u32, position: key as u32 };
            scores[kept.clone()].iter().zip(&keys[kept]).map(found).collect()
        };
        Ok(counts.iter().enumerate().map(matches).collect())
    }

    /// Compares all patterns with these names.
    fn compare(
        &self,
        list: &ListArrays,
        names: std::ops::Range<u32>,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(), KernelError> {
        let entry = match self.scorer {
            Scorer::JaroWinkler => "names_jaro_winkler",
            Scorer::Edit => "names_edit",
            Scorer::Ratio | Scorer::TokenSort => "names_ratio",
            Scorer::TokenSet => "names_token_set",
        };
        let groups = self.num_patterns.div_ceil(GROUP) as u32;
        let resident = (cuda.device().multiprocessors * BLOCKS_PER_MULTIPROCESSOR).div_ceil(groups);
        let blocks = (names.end - names.start).div_ceil(THREADS).min(2 * resident);
        let launch = Launch { grid: [blocks, groups, 1], ..Launch::new(blocks, THREADS) };
        let (num_patterns, capacity) = (self.num_patterns as u32, self.capacity as u32);
        let any_attributes = u32::from(self.any_attributes);
        let args: [&dyn Arg; 30] = [
            &names.start,
            &names.end,
            &num_patterns,
            &list.offsets,
            &list.codes,
            &list.signatures,
            &list.keys,
            &list.set_lengths,
            &list.token_offsets,
            &list.tokens,
            &list.token_signatures,
            &list.space,
            &self.patterns,
            &self.masks,
            &self.rare_codes,
            &self.rare_masks,
            &self.tokens,
            &self.token_masks,
            &self.needed,
            &self.weights,
            &self.attributes,
            &list.attributes,
            &any_attributes,
            &capacity,
            &self.counts,
            &self.scores,
            &self.keys,
            &self.thresholds,
            &self.cancel.flag,
            &self.cancel.cancelled,
        ];
        cuda.launch(&MODULE, entry, launch, &args)
    }

    /// Merges the hits of a launch into the best matches, and says which characters it takes to be one of them.
    fn select(&self, is_first: bool, cuda: &mut LaunchContext<'_>) -> Result<(), KernelError> {
        let scorer: u32 = match self.scorer {
            Scorer::JaroWinkler => 0,
            Scorer::Edit => 1,
            Scorer::Ratio | Scorer::TokenSort => 2,
            Scorer::TokenSet => 3,
        };
        let (is_first, k, capacity) = (u32::from(is_first), self.k as u32, self.capacity as u32);
        let args: [&dyn Arg; 16] = [
            &is_first,
            &scorer,
            &k,
            &capacity,
            &self.counts,
            &self.scores,
            &self.keys,
            &self.kept_counts,
            &self.kept_scores,
            &self.kept_keys,
            &self.thresholds,
            &self.weights,
            &self.pattern_offsets,
            &self.patterns,
            &self.needed,
            &self.cancel.cancelled,
        ];
        cuda.launch(&MODULE, "names_select", Launch::new(self.num_queries as u32, THREADS), &args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_bounded_by_patterns_and_by_hits() {
        let query = |names: usize| Query { names: vec![String::new(); names], ..Query::of_name(String::new(), 0.0) };
        let mut queries = vec![query(1); 1_500];
        queries.extend(vec![query(256); 5]);
        queries.extend(vec![query(1); 800]);
        let indices: Vec<usize> = (0..queries.len()).collect();
        let batches = batches(&indices, &queries);
        assert_eq!(batches.concat(), indices);
        for batch in batches {
            let names = batch.iter().map(|&query| queries[query].names.len());
            let (sum, most) = (names.clone().sum::<usize>(), names.max().unwrap());
            assert!(sum <= PATTERNS_PER_BATCH && batch.len() * most * THREADS as usize <= MAX_HITS, "{sum}, {most}");
        }
    }
}
