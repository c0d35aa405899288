//! The list of operands.

use http::Method;
use serde::Deserialize;
use serde_json::Value;

use super::request::Server;
use crate::client::Failure;
use crate::output::columns;

/// Number of operands in a request; the most that a server allows.
const PAGE: &str = "1000";

#[derive(Deserialize)]
struct Page {
    operands: Vec<Value>,
    next: Option<String>,
}

/// What the table shows of an operand.
#[derive(Deserialize)]
struct Row {
    name: String,
    version: u64,
    r#type: String,
    bytes: u64,
    public: bool,
    uses: u64,
    summary: Value,
}

/// All operands, page by page.
pub(super) async fn operands(server: &Server) -> Result<Vec<Value>, Failure> {
    let mut operands = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let mut query = vec![("limit", PAGE)];
        query.extend(after.as_deref().map(|after| ("after", after)));
        let page = server.call(Method::GET, "/operands", &query, None).await?;
        let page: Page = serde_json::from_value(page).map_err(|error| malformed(&error))?;
        operands.extend(page.operands);
        match page.next {
            // A server that sent the same page again would never end.
            Some(next) if after.as_ref().is_none_or(|after| *after < next) => after = Some(next),
            Some(_) => return Err(malformed(&"its next page is not after this one")),
            None => return Ok(operands),
        }
    }
}

fn malformed(why: &dyn std::fmt::Display) -> Failure {
    Failure::new(super::request::NOT_AN_OPERAND, format!("the response is not a list of operands: {why}"))
}

pub(super) fn json(operands: &[Value]) -> serde_json::Result<String> {
    serde_json::to_string_pretty(operands).map(|text| text + "\n")
}

pub(super) fn table(operands: &[Value]) -> Result<String, Failure> {
    let mut rows = vec![["NAME", "VERSION", "TYPE", "BYTES", "PUBLIC", "USES", "SUMMARY"].map(str::to_owned)];
    for operand in operands {
        let Row { name, version, r#type, bytes, public, uses, summary } =
            Row::deserialize(operand).map_err(|error| malformed(&error))?;
        let public = if public { "yes" } else { "no" }.to_owned();
        rows.push([name, version.to_string(), r#type, bytes.to_string(), public, uses.to_string(), text(&summary)]);
    }
    Ok(columns(rows, ""))
}

/// `nodes 3, edges 2` for `{"nodes": 3, "edges": 2}`, and how many tensors a set has.
fn text(summary: &Value) -> String {
    let field = |(name, value): (&String, &Value)| match value {
        Value::Object(fields) => format!("{} {name}", fields.len()),
        Value::String(value) => format!("{name} {value}"),
        value => format!("{name} {value}"),
    };
    let fields = summary.as_object().into_iter().flatten();
    fields.map(field).collect::<Vec<_>>().join(", ")
}
