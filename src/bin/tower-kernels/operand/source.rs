//! What `put` sends: a JSON document, or tensors from numpy files.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Cursor, IsTerminal, Read};
use std::path::{Path, PathBuf};

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::json;
use tower_kernels::request::check_name;

use super::npy::NpyFile;

/// A body, with the headers that describe it.
pub(super) struct Source {
    pub(super) headers: HeaderMap,
    pub(super) parts: Vec<Part>,
    /// The length of all parts; `None` if it is not known, as that of a pipe.
    pub(super) length: Option<u64>,
}

/// A part of a body.
pub(super) struct Part {
    /// The file, for errors.
    pub(super) name: String,
    pub(super) reader: Box<dyn Read + Send>,
    /// The bytes to read; `None` for all until the end.
    pub(super) length: Option<u64>,
}

/// A tensor of the command line: `NAME=FILE`.
#[derive(Clone, Debug)]
pub(super) struct TensorArgument {
    name: String,
    path: PathBuf,
}

impl std::str::FromStr for TensorArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = text.split_once('=').filter(|(_, path)| !path.is_empty()).ok_or("must be NAME=FILE.npy")?;
        check_name(name).map_err(|error| format!("the name of the tensor: {error}"))?;
        Ok(Self { name: name.to_owned(), path: path.into() })
    }
}

impl Source {
    /// A JSON document in a file; `-` is stdin.
    ///
    /// # Errors
    /// The file, and why it cannot be opened.
    pub(super) fn json(path: &Path) -> Result<Self, String> {
        let headers = [(CONTENT_TYPE, "application/json".parse().expect("a literal"))].into_iter().collect();
        if path == "-" {
            if std::io::stdin().is_terminal() {
                eprintln!("Reading a JSON document from the terminal; end it with Ctrl-D, or name a FILE.");
            }
            let part = Part { name: "stdin".to_owned(), reader: Box::new(std::io::stdin()), length: None };
            return Ok(Self { headers, parts: vec![part], length: None });
        }
        let name = path.display().to_string();
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
        let (metadata, file) = opened.map_err(|error| format!("{name}: {error}"))?;
        if metadata.is_dir() {
            return Err(format!("{name}: it is a directory"));
        }
        let length = metadata.is_file().then_some(metadata.len());
        Ok(Self { headers, parts: vec![Part { name, reader: Box::new(file), length }], length })
    }

    /// Tensors in numpy files, as the binary tensor data extension of the Open Inference Protocol: a JSON head that
    /// describes them, and their elements.
    ///
    /// # Errors
    /// The file, and what is wrong with it.
    pub(super) fn tensors(arguments: &[TensorArgument]) -> Result<Self, String> {
        let mut names = HashSet::new();
        if let Some(twice) = arguments.iter().find(|argument| !names.insert(&argument.name)) {
            return Err(format!("two tensors are named `{}`", twice.name));
        }
        let files: Vec<NpyFile> =
            arguments.iter().map(|argument| NpyFile::open(&argument.path)).collect::<Result<_, _>>()?;
        let inputs = arguments.iter().zip(&files).map(|(argument, file)| {
            json!({
                "name": argument.name, "datatype": file.datatype, "shape": file.shape,
                "parameters": { "binary_data_size": file.bytes },
            })
        });
        let head = json!({ "inputs": inputs.collect::<Vec<_>>() }).to_string();
        let head_length = head.len() as u64;
        let headers = [
            (CONTENT_TYPE, "application/octet-stream".parse().expect("a literal")),
            (super::HEAD_LENGTH, head_length.into()),
        ];
        let mut parts =
            vec![Part { name: "the head".to_owned(), reader: Box::new(Cursor::new(head)), length: Some(head_length) }];
        parts.extend(files.into_iter().map(|file| Part {
            name: file.path.display().to_string(),
            reader: Box::new(file.file),
            length: Some(file.bytes),
        }));
        let length = parts.iter().filter_map(|part| part.length).try_fold(0_u64, u64::checked_add);
        let length = length.ok_or_else(|| "the tensors together have more than 2^64 bytes".to_owned())?;
        Ok(Self { headers: headers.into_iter().collect(), parts, length: Some(length) })
    }
}
