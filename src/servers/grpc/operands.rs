//! `GetOperand`, `ListOperands` and `DeleteOperand`, and the messages of `PutOperand`.

use super::proto::{
    DeleteOperandRequest, GetOperandRequest, ListOperandsRequest, ListOperandsResponse, Operand, PutOperandStart,
};
use super::registry::page_size;
use super::status::Rejection;
use crate::error::ErrorKind;
use crate::request::metadata::RequestMetadata;
use crate::servers::operands::{find_operand, remove_operand};
use crate::service::{InvalidInput, OperandError, OperandInfo, Operands, PutCondition, PutOptions, RemoveOptions};

/// Maximum number of entity tags in a request.
const MAX_TAGS: usize = 64;

pub(super) fn get(
    operands: &Operands,
    metadata: &RequestMetadata,
    request: &GetOperandRequest,
) -> Result<Operand, Rejection> {
    let found = find_operand(operands, metadata.tenant.as_deref(), &request.operand).map_err(rejection)?;
    operand(found.info())
}

/// A page token is the last name of the page before: operands that are stored in between move no others.
pub(super) fn list(
    operands: &Operands,
    metadata: &RequestMetadata,
    request: &ListOperandsRequest,
) -> Result<ListOperandsResponse, Rejection> {
    let all = operands.list(metadata.tenant.as_deref());
    let total_size = u32::try_from(all.len()).unwrap_or(u32::MAX);
    let mut rest = all.into_iter().skip_while(|operand| operand.name <= request.page_token);
    let page: Vec<Operand> = rest.by_ref().take(page_size(request.page_size)).map(operand).collect::<Result<_, _>>()?;
    let last = page.last().filter(|_| rest.next().is_some());
    let next_page_token = last.map_or_else(String::new, |last| last.name.clone());
    Ok(ListOperandsResponse { operands: page, next_page_token, total_size })
}

pub(super) async fn delete(
    operands: &Operands,
    metadata: RequestMetadata,
    request: DeleteOperandRequest,
) -> Result<Operand, Rejection> {
    let options = RemoveOptions { tenant: metadata.tenant, condition: condition(request.if_match, false)? };
    let removed = remove_operand(operands, &request.operand, options).await.map_err(rejection)?;
    operand(removed.info())
}

/// The options of an upload, without its tenant.
pub(super) fn put_options(start: &mut PutOperandStart) -> Result<PutOptions, Rejection> {
    let condition = condition(std::mem::take(&mut start.if_match), start.if_absent)?;
    Ok(PutOptions { public: start.public, condition, ..PutOptions::default() })
}

fn condition(tags: Vec<String>, if_absent: bool) -> Result<PutCondition, InvalidInput> {
    let is_quoted = |tag: &String| tag.len() >= 2 && tag.starts_with('"') && tag.ends_with('"');
    match (&*tags, if_absent) {
        ([], false) => Ok(PutCondition::Always),
        ([], true) => Ok(PutCondition::IfAbsent),
        (_, true) => Err(InvalidInput::new("if_absent", "if_match is set already")),
        ([any], false) if any == "*" => Ok(PutCondition::IfPresent),
        (tags, false) if tags.len() > MAX_TAGS => {
            Err(InvalidInput::new("if_match", format!("there are more than {MAX_TAGS} entity tags")))
        }
        (_, false) => match tags.iter().position(|tag| !is_quoted(tag)) {
            Some(index) => Err(InvalidInput::new(
                format!("if_match[{index}]"),
                "it is no entity tag in quotation marks, and not * alone",
            )),
            None => Ok(PutCondition::IfMatch(tags)),
        },
    }
}

/// Converts the description of a version.
pub(super) fn operand(info: OperandInfo) -> Result<Operand, Rejection> {
    let summary = serde_json::to_string(&info.summary)
        .map_err(|error| Rejection::new(ErrorKind::Internal, format!("a summary cannot be written: {error}")))?;
    Ok(Operand {
        name: info.name,
        version: info.version,
        r#type: info.r#type.to_owned(),
        bytes: info.bytes,
        public: info.public,
        created_ms: info.created_ms,
        uses: info.uses,
        summary,
        etag: info.etag,
    })
}

/// Rejects a call on operands, with the field that is invalid.
pub(super) fn rejection(error: OperandError) -> Rejection {
    match error {
        OperandError::Invalid(invalid) => invalid.into(),
        error => Rejection::of(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_entity_tags_or_any_or_no_version() {
        let tags = |tags: &[&str]| tags.iter().map(|&tag| tag.to_owned()).collect::<Vec<_>>();
        let good = [r#""1-a""#, r#""2-b""#];
        for (given, if_absent, expected) in [
            (&[][..], false, PutCondition::Always),
            (&[], true, PutCondition::IfAbsent),
            (&["*"], false, PutCondition::IfPresent),
            (&good, false, PutCondition::IfMatch(tags(&good))),
        ] {
            assert_eq!(condition(tags(given), if_absent), Ok(expected), "{given:?}");
        }
        for (given, if_absent, field) in [
            (&["*"][..], true, "if_absent"),
            (&["\"1-a\"", "*"], false, "if_match[1]"),
            (&["1-a"], false, "if_match[0]"),
            (&["\""], false, "if_match[0]"),
            (&[r#""1-a""#; MAX_TAGS + 1], false, "if_match"),
        ] {
            assert_eq!(condition(tags(given), if_absent).unwrap_err().field, field, "{given:?}");
        }
    }
}
