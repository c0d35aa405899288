//! [`RequestOperands`]: the operands that a request refers to.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use memchr::memmem;
use serde::Deserialize;

use super::reference::OperandReference;
use super::store::Operands;
use super::version::OperandVersion;
use crate::request::OperandUse;
use crate::service::{DType, InvalidInput, Payload, Tensors};

/// Maximum number of references in a request.
const MAX_REFERENCES: usize = 64;

/// The suffix of the name of a tensor that has a reference in place of the value.
pub(crate) const SUFFIX: &str = ".operand";

/// The versions of operands that a request refers to, which it holds until it has ended.
///
/// References are resolved once, by [`KernelRequest::resolve_operands`](crate::service::KernelRequest::resolve_operands),
/// so that caching, the run, and the response all see the same versions.
///
/// A `Vec` behind a pointer, because a pointer to a slice would make the futures of all requests larger.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestOperands(Option<Arc<Vec<Arc<OperandVersion>>>>);

impl RequestOperands {
    /// Creates an empty set.
    pub(crate) const fn none() -> Self {
        Self(None)
    }

    /// Finds the operands that a payload refers to. References to operands that are not there are skipped here; decoding
    /// the input rejects them, with the name of the field.
    pub(crate) fn of(payload: &Payload, operands: &Operands, tenant: Option<&str>) -> Self {
        let mut versions: Vec<Arc<OperandVersion>> = Vec::new();
        let mut references = 0;
        for_each_reference(payload, |text| {
            references += 1;
            let found = if references <= MAX_REFERENCES { operands.get(tenant, text) } else { None };
            versions.extend(found.filter(|found| !contains(&versions, found)));
        });
        Self::counted(versions, operands)
    }

    /// Creates the operands of a typed input, which has handles of these versions.
    pub(crate) fn of_handles(handles: Vec<Arc<OperandVersion>>, operands: &Operands) -> Self {
        let mut versions = Vec::with_capacity(handles.len());
        for handle in handles {
            if !contains(&versions, &handle) {
                versions.push(handle);
            }
        }
        Self::counted(versions, operands)
    }

    /// Creates the operands of an input that another process has sent, where they were counted.
    pub(crate) fn uncounted(mut versions: Vec<Arc<OperandVersion>>) -> Self {
        let mut known = 0;
        while known < versions.len() {
            let (before, rest) = versions.split_at(known);
            if contains(before, &rest[0]) { drop(versions.swap_remove(known)) } else { known += 1 }
        }
        Self((!versions.is_empty()).then(|| Arc::new(versions)))
    }

    /// Counts the use of these versions, which are different ones.
    fn counted(versions: Vec<Arc<OperandVersion>>, operands: &Operands) -> Self {
        versions.iter().for_each(|version| version.count_use());
        operands.count_references(versions.len());
        Self((!versions.is_empty()).then(|| Arc::new(versions)))
    }

    /// Returns the versions.
    pub(crate) fn versions(&self) -> &[Arc<OperandVersion>] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }

    /// Keeps the uses of these operands among those of a run that several requests shared.
    pub(crate) fn uses_among(&self, all: &[OperandUse]) -> Vec<OperandUse> {
        let is_own = |operand: &&OperandUse| self.versions().iter().any(|own| own.id() == operand.id);
        all.iter().filter(is_own).cloned().collect()
    }

    /// Returns the version that a reference names.
    ///
    /// # Errors
    /// The request does not hold such a version.
    pub(super) fn get(&self, reference: &OperandReference<'_>) -> Result<&Arc<OperandVersion>, InvalidInput> {
        let is_named = |version: &&Arc<OperandVersion>| {
            version.name() == reference.name && reference.version.is_none_or(|number| number == version.version())
        };
        self.versions().iter().find(is_named).ok_or_else(|| {
            let whole = OperandReference { tensor: None, ..*reference };
            InvalidInput::new(
                "operand",
                format!("there is no operand `{whole}` (a request may have {MAX_REFERENCES} references)"),
            )
        })
    }
}

fn contains(versions: &[Arc<OperandVersion>], version: &Arc<OperandVersion>) -> bool {
    versions.iter().any(|known| Arc::ptr_eq(known, version))
}

/// Returns whether a payload may refer to operands.
pub(crate) fn has_references(payload: &Payload) -> bool {
    let mut any = false;
    for_each_reference(payload, |_| any = true);
    any
}

/// Calls `found` with the text of each reference in a payload.
///
/// A JSON document is searched as text, so that it is not parsed twice: the key `"operand"`, written without escapes, and a
/// string as its value. A find that is no reference, as within another string, does nothing but hold the operand.
fn for_each_reference(payload: &Payload, mut found: impl FnMut(&str)) {
    static KEY: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(r#""operand""#));
    match payload {
        Payload::Json(document) => {
            for at in KEY.find_iter(document) {
                if let Some(text) = string_value(&document[at + KEY.needle().len()..]) {
                    found(&text);
                }
            }
        }
        Payload::Tensors(tensors) => references_of(tensors).for_each(|(_, text)| found(text)),
        Payload::Typed(_) => {}
    }
}

/// Returns the string that follows a key: after a colon and white space.
fn string_value(rest: &[u8]) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

    /// The longest reference, of two names and a version, with each character escaped.
    const MAX_LEN: usize = 2048;
    let value = rest.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    let value = &value[..value.len().min(MAX_LEN)];
    Text::deserialize(&mut serde_json::Deserializer::from_slice(value)).ok().map(|Text(text)| text)
}

/// Returns the references in a set of tensors: the name of the field, and the text.
fn references_of(tensors: &Tensors) -> impl Iterator<Item = (&str, &str)> {
    tensors.iter().filter_map(|(name, tensor)| {
        let field = name.strip_suffix(SUFFIX)?;
        let is_text = tensor.dtype() == DType::U8 && tensor.shape().len() == 1;
        let text = is_text.then(|| std::str::from_utf8(tensor.data()).ok()).flatten()?;
        Some((field, text))
    })
}
