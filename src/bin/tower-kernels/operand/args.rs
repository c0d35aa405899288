//! Arguments of `operand`.

use std::path::PathBuf;
use std::time::Duration;

use http::HeaderValue;
use tower_kernels::service::{InvalidInput, OperandReference, check_operand_name};

use super::source::TensorArgument;
use crate::client::ConnectionArgs;
use crate::config::Span;

/// Arguments of `operand`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Args {
    /// Store a value as the newest version of an operand, and print what was stored as JSON.
    #[command(after_help = crate::help(super::HELP))]
    Put(PutArgs),
    /// List the operands that requests can refer to.
    #[command(after_help = crate::exit::TABLE)]
    List(ListArgs),
    /// Print what the server knows of an operand as JSON.
    #[command(after_help = crate::exit::TABLE)]
    Show(ShowArgs),
    /// Remove an operand, and print what was removed as JSON. Its memory is freed when no request uses it.
    #[command(after_help = crate::exit::TABLE)]
    Rm(RemoveArgs),
}

/// The server, and how it is called.
#[derive(Debug, clap::Args)]
pub(crate) struct ServerArgs {
    /// URL of the REST server, with the prefix of its paths if it has one.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub(super) rest: String,
    #[command(flatten)]
    pub(super) connection: ConnectionArgs,
    /// Tenant of the request. A server with authentication takes that of the credentials.
    #[arg(long, value_name = "NAME")]
    pub(super) tenant: Option<String>,
    /// Time limit of the command, such as 30s.
    #[arg(long, value_name = "TIME", value_parser = str::parse::<Span>, default_value_t = Span(Duration::from_secs(600)))]
    pub(super) timeout: Span,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PutArgs {
    /// Name of the operand: 1 to 128 characters of A-Z a-z 0-9 - _ . of which the first is not a dot.
    #[arg(value_parser = name)]
    pub(super) name: String,
    /// Type of the operand, such as graph, vectors, names or tensors.
    #[arg(long, value_name = "TYPE")]
    pub(super) r#type: String,
    /// File with the value, a JSON document; `-` is stdin [default: - without --tensor].
    #[arg(conflicts_with = "tensors")]
    pub(super) file: Option<PathBuf>,
    /// Tensor of this name from a numpy file, for values of tensors; may be given several times.
    #[arg(long = "tensor", value_name = "NAME=FILE.npy")]
    pub(super) tensors: Vec<TensorArgument>,
    /// Let other tenants use the operand.
    #[arg(long)]
    pub(super) public: bool,
    /// Store it only if there is no operand of this name.
    #[arg(long, conflicts_with = "if_match")]
    pub(super) if_absent: bool,
    /// Store it only if the newest version has this entity tag, the `etag` of `show`; `*` is any version.
    #[arg(long, value_name = "TAG", value_parser = entity_tag)]
    pub(super) if_match: Option<HeaderValue>,
    #[command(flatten)]
    pub(super) server: ServerArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Print a JSON array instead of a table.
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) server: ServerArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    /// Name of the operand, or name@version.
    #[arg(value_parser = reference)]
    pub(super) name: String,
    #[command(flatten)]
    pub(super) server: ServerArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RemoveArgs {
    /// Name of the operand, or name@version.
    #[arg(value_parser = reference)]
    pub(super) name: String,
    /// Remove it only if the newest version has this entity tag, the `etag` of `show`.
    #[arg(long, value_name = "TAG", value_parser = entity_tag)]
    pub(super) if_match: Option<HeaderValue>,
    #[command(flatten)]
    pub(super) server: ServerArgs,
}

fn name(text: &str) -> Result<String, InvalidInput> {
    check_operand_name(text).map(|()| text.to_owned())
}

/// A name that is one segment of a path, with or without a version.
fn reference(text: &str) -> Result<String, InvalidInput> {
    match OperandReference::parse(text)?.tensor {
        None => Ok(text.to_owned()),
        Some(_) => Err(InvalidInput::new("operand", "name the operand without one of its tensors")),
    }
}

/// An entity tag, with the quotation marks that a shell may have removed.
fn entity_tag(text: &str) -> Result<HeaderValue, String> {
    let tag = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    if tag.is_empty() || !tag.bytes().all(|byte| byte.is_ascii_graphic() && !b"\",".contains(&byte)) {
        return Err("must be an entity tag, such as 3-00c0ffee00c0ffee".to_owned());
    }
    let value = if tag == "*" { tag.to_owned() } else { format!("\"{tag}\"") };
    value.parse().map_err(|error| format!("{error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_tags_are_quoted_once() {
        for (text, value) in [("3-0a", "\"3-0a\""), ("\"3-0a\"", "\"3-0a\""), ("*", "*")] {
            assert_eq!(entity_tag(text).unwrap(), value);
        }
        for text in ["", "\"\"", "a,b", "a\"b", "a b", "a\n", "é"] {
            assert!(entity_tag(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn names_are_one_segment_of_a_path() {
        assert_eq!((name("a.b"), reference("a@7")), (Ok("a.b".to_owned()), Ok("a@7".to_owned())));
        for text in ["", "..", "a/b", "a?b", "a@", "é"] {
            assert!(name(text).is_err() && reference(text).is_err(), "{text:?}");
        }
        assert!(name("a@7").is_err());
    }
}
