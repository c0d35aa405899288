//! [`NameForm`]: names as codes of characters, with signatures; and the [`Alphabet`] of a list.

use std::collections::HashMap;

use crate::service::{InvalidInput, KernelError, RunContext};

/// Names between two checks of the context: some milliseconds if they are as long as can be.
const NAMES_PER_CHECK: usize = 1 << 9;
/// Characters whose codes are looked up in an array.
const ASCII: usize = 128;

/// The code of a character that the list does not have.
pub(super) const UNKNOWN: u16 = 0xFFFD;
/// What pads the prefix of a pattern, and that of a name: they never are equal.
pub(super) const PATTERN_PAD: u16 = 0xFFFE;
pub(super) const NAME_PAD: u16 = 0xFFFF;
/// Characters that count as a common prefix.
pub(super) const MAX_PREFIX: usize = 4;

/// The characters of a list, numbered from the most to the least frequent.
#[derive(Debug)]
pub(super) struct Alphabet {
    ascii: [u16; ASCII],
    others: HashMap<char, u16>,
}

impl Alphabet {
    /// Numbers the characters of names, and the space.
    pub(super) fn new<'a>(names: impl Iterator<Item = &'a str>, context: &RunContext<'_>) -> Result<Self, KernelError> {
        let mut ascii = [0_u64; ASCII];
        let mut others: HashMap<char, u64> = HashMap::new();
        ascii[usize::from(b' ')] = 1;
        for (index, name) in names.enumerate() {
            if index.is_multiple_of(NAMES_PER_CHECK) {
                context.check()?;
            }
            for character in name.chars() {
                match ascii.get_mut(character as usize) {
                    Some(count) => *count += 1,
                    None => *others.entry(character).or_insert(0) += 1,
                }
            }
        }
        let counts = ascii.iter().zip(0_u8..).filter(|(count, _)| **count > 0);
        let mut counts: Vec<(u64, char)> = counts.map(|(count, code)| (*count, char::from(code))).collect();
        counts.extend(others.into_iter().map(|(character, count)| (count, character)));
        if counts.len() > usize::from(UNKNOWN) {
            let reason = format!("{} different characters where at most {UNKNOWN} are expected", counts.len());
            return Err(InvalidInput::new("entries", reason).into());
        }
        counts.sort_unstable_by_key(|&(count, character)| (std::cmp::Reverse(count), character));
        let mut alphabet = Self { ascii: [UNKNOWN; ASCII], others: HashMap::new() };
        for ((_, character), code) in counts.into_iter().zip(0..) {
            match alphabet.ascii.get_mut(character as usize) {
                Some(entry) => *entry = code,
                None => drop(alphabet.others.insert(character, code)),
            }
        }
        Ok(alphabet)
    }

    /// Returns the code of a character.
    pub(super) fn code(&self, character: char) -> u16 {
        match self.ascii.get(character as usize) {
            Some(code) => *code,
            None => self.others.get(&character).copied().unwrap_or(UNKNOWN),
        }
    }
}

/// All names of a list in one form, in the order of [`NameList`](super::NameList).
#[derive(Debug)]
pub(super) struct NameForm {
    /// Where each name starts in `codes`.
    pub(super) offsets: Vec<u32>,
    pub(super) codes: Vec<u16>,
    /// Two words of each name, of [`signature`].
    pub(super) signatures: Vec<u64>,
    /// The first four codes of each name.
    pub(super) prefixes: Vec<u64>,
}

impl NameForm {
    pub(super) fn new<'a>(
        names: impl Iterator<Item = &'a str>,
        alphabet: &Alphabet,
        context: &RunContext<'_>,
    ) -> Result<Self, KernelError> {
        let mut form = Self { offsets: vec![0], codes: Vec::new(), signatures: Vec::new(), prefixes: Vec::new() };
        for (index, name) in names.enumerate() {
            if index.is_multiple_of(NAMES_PER_CHECK) {
                context.check()?;
            }
            let start = form.codes.len();
            form.codes.extend(name.chars().map(|character| alphabet.code(character)));
            form.offsets.push(form.codes.len() as u32);
            form.signatures.extend(signature(&form.codes[start..]));
            form.prefixes.push(prefix(&form.codes[start..], NAME_PAD));
        }
        Ok(form)
    }

    /// Returns the codes of a name.
    pub(super) fn codes(&self, name: usize) -> &[u16] {
        &self.codes[self.offsets[name] as usize..self.offsets[name + 1] as usize]
    }

    pub(super) fn signature(&self, name: usize) -> [u64; 2] {
        [self.signatures[2 * name], self.signatures[2 * name + 1]]
    }

    /// Bytes that devices do not get.
    pub(super) fn host_bytes(&self) -> u64 {
        2 * size_of_val(&self.prefixes[..]) as u64
    }
}

/// Returns a set of bits, one for each character, by its code and how many of the same class came before. Codes that are
/// congruent modulo 64 are a class.
///
/// Two names have at most as many characters in common as one has characters, less its bits that the other does not have.
pub(super) fn signature(codes: &[u16]) -> [u64; 2] {
    let mut counts = [0_u32; 64];
    let mut signature = [0, 0];
    for &code in codes {
        let class = u32::from(code) % 64;
        let before = counts[class as usize];
        counts[class as usize] += 1;
        match before {
            0 => signature[0] |= 1 << class,
            1 => signature[1] |= 1 << (class % 32),
            _ => signature[1] |= 1 << (32 + (class + before) % 32),
        }
    }
    signature
}

/// Returns the first four codes.
pub(super) fn prefix(codes: &[u16], pad: u16) -> u64 {
    let code = |index: usize| u64::from(codes.get(index).copied().unwrap_or(pad)) << (16 * index);
    (0..MAX_PREFIX).map(code).sum()
}

/// Returns the bit of a word's number.
pub(super) fn token_signature(id: u32) -> u64 {
    1 << (id.wrapping_mul(0x9E37_79B1) >> 26)
}
