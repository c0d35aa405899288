use std::sync::Arc;

/// Why a value cannot become a payload, or a payload a value.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// The payload is not JSON.
    #[error("the payload holds {holds} and not JSON")]
    NotJson {
        /// What it holds: `tensors`, or the name of a type.
        holds: &'static str,
    },
    /// The document is not JSON, or does not fit the type.
    #[error("{}cannot be read as `{type_name}`", match path { Some(path) => format!("`{path}` of the payload "), None => "the payload ".to_owned() })]
    Decode {
        /// The name of the type.
        type_name: &'static str,
        /// Where in the document, such as `scores[3]`; `None` is the whole.
        path: Option<String>,
        /// What the parser says.
        #[source]
        error: Arc<serde_json::Error>,
    },
    /// The value has no form in JSON.
    #[error("a value of `{type_name}` cannot be written as JSON")]
    Encode {
        /// The name of its type.
        type_name: &'static str,
        /// What the encoder says.
        #[source]
        error: Arc<serde_json::Error>,
    },
}
