use std::sync::Arc;

/// The error of converting between a value and a payload.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// The payload is not JSON.
    #[error("the payload holds {holds} and not JSON")]
    NotJson {
        /// The kind of the payload: `tensors`, or the name of a type.
        holds: &'static str,
    },
    /// The document is not valid JSON, or does not decode as the type.
    #[error("{}cannot be read as `{type_name}`", match path { Some(path) => format!("`{path}` of the payload "), None => "the payload ".to_owned() })]
    Decode {
        /// The name of the type.
        type_name: &'static str,
        /// The path in the document, such as `scores[3]`; `None` is the whole document.
        path: Option<String>,
        /// The parser's error.
        #[source]
        error: Arc<serde_json::Error>,
    },
    /// The value cannot be written as JSON.
    #[error("a value of `{type_name}` cannot be written as JSON")]
    Encode {
        /// The name of the type.
        type_name: &'static str,
        /// The encoder's error.
        #[source]
        error: Arc<serde_json::Error>,
    },
}
