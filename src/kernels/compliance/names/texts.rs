//! [`Texts`]: many short strings in one buffer.

use crate::service::{Buffer, InvalidInput};

/// Strings, one after the other as UTF-8, and where each starts.
#[derive(Debug, Clone, PartialEq)]
pub struct Texts {
    /// The UTF-8 text of all strings.
    pub text: Buffer<u8>,
    /// Where each string starts in the text, and at the end the length of the text.
    pub offsets: Buffer<u32>,
}

impl Texts {
    /// Copies strings.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut text, mut offsets) = (Vec::new(), vec![0]);
        for part in texts {
            text.extend_from_slice(part.as_bytes());
            // A longer text is rejected by `check`, as the last offset is not its length.
            offsets.push(u32::try_from(text.len()).unwrap_or(u32::MAX));
        }
        Self { text: text.into(), offsets: offsets.into() }
    }

    /// Returns how many strings there are.
    pub fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns a string.
    ///
    /// # Panics
    /// There is no such string, or [`check`](Self::check) fails.
    pub fn get(&self, index: usize) -> &str {
        let range = self.offsets[index] as usize..self.offsets[index + 1] as usize;
        std::str::from_utf8(&self.text[range]).expect("checked UTF-8")
    }

    /// Returns the bytes of all strings and offsets.
    pub fn byte_len(&self) -> u64 {
        (size_of_val(&self.text[..]) + size_of_val(&self.offsets[..])) as u64
    }

    /// Checks that the offsets ascend from 0 to the length of the text, that each string is UTF-8, and that there are as many
    /// as `expected`. `names` are those of the text and of the offsets in errors.
    ///
    /// # Errors
    /// The first invalid field.
    pub fn check(&self, names: [&str; 2], expected: Option<usize>) -> Result<(), InvalidInput> {
        let invalid = |field: String, reason: String| Err(InvalidInput::new(field, reason));
        let [text, offsets] = names;
        if let Some(expected) = expected.filter(|&expected| expected != self.len()) {
            return invalid(offsets.into(), format!("{} strings where {expected} are expected", self.len()));
        }
        if self.offsets.first() != Some(&0) {
            return invalid(format!("{offsets}[0]"), "it is not 0".to_owned());
        }
        if let Some(index) = self.offsets.windows(2).position(|pair| pair[0] > pair[1]) {
            return invalid(format!("{offsets}[{}]", index + 1), "it is less than the one before it".to_owned());
        }
        let last = self.offsets.len() - 1;
        if self.offsets[last] as usize != self.text.len() {
            let reason =
                format!("{} where the length of the text, {}, is expected", self.offsets[last], self.text.len());
            return invalid(format!("{offsets}[{last}]"), reason);
        }
        match std::str::from_utf8(&self.text) {
            Err(error) => invalid(format!("{text}[{}]", error.valid_up_to()), "it is not UTF-8".to_owned()),
            Ok(all) => match self.offsets.iter().position(|&offset| !all.is_char_boundary(offset as usize)) {
                Some(index) => invalid(format!("{offsets}[{index}]"), "it is inside of a character".to_owned()),
                None => Ok(()),
            },
        }
    }
}
