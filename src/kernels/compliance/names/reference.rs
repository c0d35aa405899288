//! Plain forms of the scores for tests: tables and loops over characters, without bits and bounds; and random names.

use super::{NameListDocument, Scorer};
use crate::kernels::authoring::Random;

/// The score of two names, as they are compared.
pub(in crate::kernels::compliance) fn score(scorer: Scorer, a: &str, b: &str) -> f64 {
    match scorer {
        Scorer::JaroWinkler => jaro_winkler(a, b),
        Scorer::Edit => {
            let (distance, longer) = (levenshtein(a, b), a.chars().count().max(b.chars().count()));
            1.0 - distance as f64 / longer as f64
        }
        Scorer::Ratio => ratio(a, b),
        Scorer::TokenSort => ratio(&join(&mut words(a)), &join(&mut words(b))),
        Scorer::TokenSet => token_set(a, b),
    }
}

fn words(name: &str) -> Vec<&str> {
    name.split_whitespace().collect()
}

fn join(words: &mut [&str]) -> String {
    words.sort_unstable();
    words.join(" ")
}

fn jaro_winkler(a: &str, b: &str) -> f64 {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let bound = (a.len().max(b.len()) / 2).saturating_sub(1);
    let mut taken = vec![false; a.len()];
    let mut of_b = Vec::new();
    for (j, character) in b.iter().enumerate() {
        let window = j.saturating_sub(bound)..a.len().min(j + bound + 1);
        if let Some(i) = window.into_iter().find(|&i| !taken[i] && a[i] == *character) {
            taken[i] = true;
            of_b.push(*character);
        }
    }
    if of_b.is_empty() {
        return 0.0;
    }
    let of_a = a.iter().zip(&taken).filter(|(_, taken)| **taken).map(|(character, _)| *character);
    let differing = of_a.zip(&of_b).filter(|(a, b)| a != *b).count();
    let common = of_b.len() as f64;
    let jaro = (common / a.len() as f64 + common / b.len() as f64 + (common - (differing / 2) as f64) / common) / 3.0;
    let prefix = a.iter().zip(&b).take(4).take_while(|(a, b)| a == b).count();
    if jaro > 0.7 { jaro + prefix as f64 * 0.1 * (1.0 - jaro) } else { jaro }
}

fn levenshtein(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let mut row: Vec<usize> = (0..=a.len()).collect();
    for character in b.chars() {
        let mut diagonal = row[0];
        row[0] += 1;
        for (index, other) in a.iter().enumerate() {
            let substituted = diagonal + usize::from(*other != character);
            diagonal = row[index + 1];
            row[index + 1] = substituted.min(diagonal + 1).min(row[index] + 1);
        }
    }
    row[a.len()]
}

/// The length of the longest common subsequence.
fn common_subsequence(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let mut row = vec![0; a.len() + 1];
    for character in b.chars() {
        let mut diagonal = 0;
        for (index, other) in a.iter().enumerate() {
            let longer = if *other == character { diagonal + 1 } else { row[index + 1].max(row[index]) };
            diagonal = row[index + 1];
            row[index + 1] = longer;
        }
    }
    row[a.len()]
}

fn ratio(a: &str, b: &str) -> f64 {
    let sum = a.chars().count() + b.chars().count();
    if sum == 0 { 1.0 } else { 1.0 - (sum - 2 * common_subsequence(a, b)) as f64 / sum as f64 }
}

fn token_set(a: &str, b: &str) -> f64 {
    let unique = |name| {
        let mut words = words(name);
        words.sort_unstable();
        words.dedup();
        words
    };
    let (a, b) = (unique(a), unique(b));
    let shared: Vec<&str> = a.iter().copied().filter(|word| b.contains(word)).collect();
    let others = |words: &[&str]| -> String {
        words.iter().copied().filter(|word| !shared.contains(word)).collect::<Vec<_>>().join(" ")
    };
    let (a, b, shared) = (others(&a), others(&b), shared.join(" "));
    if !shared.is_empty() && (a.is_empty() || b.is_empty()) {
        return 1.0;
    }
    let with_shared = |words: &str| format!("{shared} {words}").trim_start().to_owned();
    let (all_a, all_b) = (with_shared(&a), with_shared(&b));
    let whole = {
        // The distance of what is not shared, by the length of all.
        let distance = a.chars().count() + b.chars().count() - 2 * common_subsequence(&a, &b);
        1.0 - distance as f64 / (all_a.chars().count() + all_b.chars().count()) as f64
    };
    if shared.is_empty() { whole } else { whole.max(ratio(&shared, &all_a)).max(ratio(&shared, &all_b)) }
}

/// A random name of some words, few of which are long.
pub(in crate::kernels::compliance) fn random_name(random: &mut Random) -> String {
    const SYLLABLES: [&str; 20] = [
        "an", "be", "jo", "hn", "smi", "th", "mo", "ham", "ed", "al", "ivan", "ov", "li", "wei", "é", "ß", "дми",
        "три", "山", "田",
    ];
    let mut name = String::new();
    let words = if random.below(16) == 0 { 12 } else { 1 + random.below(4) };
    for word in 0..words {
        if word > 0 {
            name.push_str(if random.below(8) == 0 { ", " } else { " " });
        }
        for _ in 0..=random.below(4) {
            name.push_str(SYLLABLES[random.below(SYLLABLES.len() as u64) as usize]);
        }
    }
    name
}

/// The name with a few characters changed, or words in another order.
pub(in crate::kernels::compliance) fn misspelled(name: &str, random: &mut Random) -> String {
    let mut characters: Vec<char> = name.chars().collect();
    for _ in 0..random.below(4) {
        let at = random.below(characters.len() as u64) as usize;
        match random.below(3) {
            0 if characters.len() > 2 => drop(characters.remove(at)),
            1 => characters.insert(at, 'e'),
            _ => characters[at] = 'x',
        }
    }
    let name: String = characters.into_iter().collect();
    if random.below(4) > 0 {
        return name;
    }
    name.rsplit(' ').collect::<Vec<_>>().join(" ")
}

/// A random list with up to three names an entry, and dates, countries and types of some.
pub(in crate::kernels::compliance) fn random_list(entries: usize, random: &mut Random) -> NameListDocument {
    let entities: Vec<super::Entity> = (0..entries)
        .map(|index| super::Entity {
            id: Some(1_000 + index as u64),
            name: random_name(random),
            aliases: (0..random.below(6).saturating_sub(3)).map(|_| random_name(random)).collect(),
            date: (random.below(3) > 0).then(|| random_date(random)),
            country: (random.below(3) > 0).then(|| random_country(random)),
            entity_type: (random.below(2) > 0).then(|| "Person".to_owned()),
            source: (random.below(2) > 0).then(|| "OFAC".to_owned()),
            program: None,
        })
        .collect();
    NameListDocument::from_entities(&entities, true)
}

pub(in crate::kernels::compliance) fn random_date(random: &mut Random) -> u32 {
    (1960 + random.below(3) as u32) * 10_000 + 101 + random.below(2) as u32
}

pub(in crate::kernels::compliance) fn random_country(random: &mut Random) -> String {
    ["US", "us", "FR", "Côte d'Ivoire", "COTE D IVOIRE"][random.below(5) as usize].to_owned()
}

/// A scorer that is as likely as the others.
pub(in crate::kernels::compliance) fn random_scorer(random: &mut Random) -> Scorer {
    let all = [Scorer::JaroWinkler, Scorer::Edit, Scorer::Ratio, Scorer::TokenSort, Scorer::TokenSet];
    all[random.below(all.len() as u64) as usize]
}

/// The best entries by these scores, an entry having one for each of its names: entry, score and index of the name.
pub(in crate::kernels::compliance) fn best_entries(
    scores: impl Iterator<Item = Vec<f64>>,
    min_score: f64,
    max_matches: u32,
) -> Vec<(usize, f64, usize)> {
    let best = |scores: Vec<f64>| {
        let first = (0, scores[0]);
        scores.into_iter().enumerate().fold(first, |best, next| if next.1 > best.1 { next } else { best })
    };
    let mut matches: Vec<(usize, f64, usize)> = scores
        .enumerate()
        .map(|(entry, scores)| (entry, best(scores)))
        .map(|(entry, (position, score))| (entry, score, position))
        .filter(|(_, score, _)| *score >= min_score)
        .collect();
    matches.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    matches.truncate(max_matches as usize);
    matches
}
