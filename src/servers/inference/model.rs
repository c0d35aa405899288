//! [`Model`]: a kernel by the name that a client of the protocol uses.

use crate::error::ErrorKind;
use crate::request::limits::check_name;
use crate::service::{KernelError, KernelRegistry, RegisteredKernel, Signature};

/// A kernel as a model.
#[derive(Clone)]
pub(crate) struct Model {
    kernel: RegisteredKernel,
    /// The name that the client used.
    name: String,
}

impl Model {
    /// Finds the kernel of a name and, unless it is empty, of a version.
    ///
    /// # Errors
    /// There is no such kernel, it cannot be run by requests, or it has another version.
    pub(crate) fn find(registry: &KernelRegistry, name: &str, version: &str) -> Result<Self, UnknownModel> {
        let unknown = || UnknownModel(format!("there is no model {:?}", crate::text::prefix(name, 128)));
        check_name(name).map_err(|_| unknown())?;
        let kernel = by_name(registry, name).filter(RegisteredKernel::is_batch).ok_or_else(unknown)?;
        let model = Self { kernel, name: name.to_owned() };
        if version.is_empty() || version == model.version() {
            return Ok(model);
        }
        Err(UnknownModel(format!("model {name:?} has version {}, and no other", model.version())))
    }

    /// Returns all kernels that can be run, by their ids, whether or not they have a signature.
    pub(crate) fn all_named(registry: &KernelRegistry) -> impl Iterator<Item = Self> + use<> {
        let batch = registry.list().into_iter().filter(RegisteredKernel::is_batch);
        batch.map(|kernel| Self { name: kernel.info().id.to_string(), kernel })
    }

    /// Returns all models, by the ids of their kernels.
    pub(crate) fn all(registry: &KernelRegistry) -> Vec<Self> {
        Self::all_named(registry).filter(|model| model.signature().is_ok()).collect()
    }

    /// Returns the name that the client used.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the id of the kernel.
    pub(crate) fn id(&self) -> &str {
        &self.kernel.info().id
    }

    /// Returns the first number of the kernel's version, as models have whole numbers as versions.
    pub(crate) fn version(&self) -> &str {
        let version = &self.kernel.info().version;
        version.split_once('.').map_or(version, |(major, _)| major)
    }

    /// Returns the kernel.
    pub(crate) fn kernel(&self) -> &RegisteredKernel {
        &self.kernel
    }

    /// Returns the model's tensors.
    ///
    /// # Errors
    /// [`KernelError::InvalidInput`] if the kernel's input or output has no form as tensors, and the error of its schemas.
    pub(crate) fn signature(&self) -> Result<&Signature, KernelError> {
        self.kernel.signature()
    }
}

/// A client has unloaded the model.
#[derive(Debug, thiserror::Error)]
#[error("model {0:?} is unloaded")]
pub(crate) struct UnloadedModel(pub(crate) String);

impl UnloadedModel {
    /// The kind of the error.
    pub(crate) const KIND: ErrorKind = ErrorKind::Unavailable;
}

/// The model does not exist, or not in this version.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UnknownModel(String);

impl UnknownModel {
    /// The kind of the error.
    pub(crate) const KIND: ErrorKind = ErrorKind::NotFound;
}

/// Finds a kernel by its id or alias, in which dots can stand for slashes: from the left, as a domain has no dot.
fn by_name(registry: &KernelRegistry, name: &str) -> Option<RegisteredKernel> {
    if let Some(kernel) = registry.get(name) {
        return Some(kernel);
    }
    let mut name = name.to_owned();
    while let Some(dot) = name.find('.') {
        name.replace_range(dot..=dot, "/");
        if let Some(kernel) = registry.get(&name) {
            return Some(kernel);
        }
    }
    None
}

#[cfg(all(test, feature = "kernels"))]
mod tests {
    use super::*;

    fn registry() -> KernelRegistry {
        let registry = KernelRegistry::new();
        crate::kernels::register_all(&registry).unwrap();
        registry
    }

    #[test]
    fn models_are_found_by_ids_and_aliases_with_slashes_or_dots() {
        let registry = registry();
        for name in ["graph/pagerank", "graph.pagerank"] {
            let model = Model::find(&registry, name, "").unwrap();
            assert_eq!((model.name(), model.id(), model.version()), (name, "graph/pagerank", "1"));
        }
        for (name, version) in [("graph.pagerank", "1"), ("graph/pagerank", "")] {
            assert!(Model::find(&registry, name, version).is_ok());
        }
        for (name, version) in [
            ("", ""),
            ("graph", ""),
            ("graph.page.rank", ""),
            ("graph/pagerank/", ""),
            ("graph.pagerank", "2"),
            ("graph.pagerank", "1.0.0"),
            ("orderbook.matching", ""),
            ("a\nb", ""),
            (&*"x".repeat(10_000), ""),
        ] {
            let Err(error) = Model::find(&registry, name, version) else { panic!("{name:?} {version:?}") };
            assert!(error.to_string().len() < 400 && !error.to_string().contains('\n'), "{error}");
        }
    }

    #[test]
    fn all_kernels_that_tensors_can_be_given_to_are_models() {
        let models = Model::all(&registry());
        let has = |id: &str| models.iter().any(|model| model.id() == id);
        assert!(has("linalg/saxpy") && has("graph/pagerank") && has("ml/semantic-similarity"));
        // A ring kernel, and lists of names.
        assert!(!has("orderbook/matching") && !has("compliance/sanctions-screening"));
    }
}
