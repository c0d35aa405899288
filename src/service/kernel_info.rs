use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;

use crate::request::BackendKind;

/// How a kernel is used: one request at a time, or resident on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Runs once for each request and returns a response.
    Batch,
    /// Stays resident on a device and exchanges messages. Such a kernel is listed and described; running it needs a ring
    /// runtime.
    Ring,
}

/// The description of a kernel.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct KernelInfo {
    /// The kernel's id, `domain/name` in lower case.
    pub id: Cow<'static, str>,
    /// The version of the kernel's behaviour.
    pub version: Cow<'static, str>,
    /// What the kernel computes, in a sentence or two.
    pub description: Cow<'static, str>,
    /// Whether the kernel runs once for each request or stays resident on a device.
    pub mode: Mode,
    /// Other ids that resolve to this kernel.
    pub aliases: Vec<Cow<'static, str>>,
    /// The backends that the kernel has code for.
    pub backends: Vec<BackendKind>,
    /// Whether a run has no effect but its output, which depends on its input alone, so that it can be repeated and its
    /// output cached.
    #[serde(skip)]
    pub pure: bool,
}

impl KernelInfo {
    /// Describes a batch kernel with CPU code.
    pub fn new(
        id: impl Into<Cow<'static, str>>,
        version: impl Into<Cow<'static, str>>,
        description: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            id: id.into(),
            version: version.into(),
            description: description.into(),
            mode: Mode::Batch,
            aliases: Vec::new(),
            backends: vec![BackendKind::Cpu],
            pure: false,
        }
    }

    /// Returns the part of the id before the first slash.
    pub fn domain(&self) -> &str {
        self.id.split_once('/').map_or(&self.id, |(domain, _)| domain)
    }

    /// Makes it a ring kernel, which is described but needs a ring runtime to run.
    #[must_use]
    pub fn ring(mut self) -> Self {
        self.mode = Mode::Ring;
        self.backends.clear();
        self
    }

    /// Adds an id that resolves to this kernel.
    #[must_use]
    pub fn alias(mut self, id: impl Into<Cow<'static, str>>) -> Self {
        self.aliases.push(id.into());
        self
    }

    /// Declares CUDA code, in programs that are built with the feature `cuda`.
    #[must_use]
    pub fn cuda(mut self) -> Self {
        if cfg!(feature = "cuda") {
            self.backends.push(BackendKind::Cuda);
        }
        self
    }

    /// Declares that a run has no effect but its output, which depends on its input alone.
    ///
    /// A pure kernel's run that is interrupted by the loss of its device is repeated elsewhere, and its outputs can be
    /// cached and shared. The interrupted run of any other kernel fails.
    #[must_use]
    pub fn pure(mut self) -> Self {
        self.pure = true;
        self
    }

    /// Replaces the backends that the kernel has code for.
    #[must_use]
    pub fn backends(mut self, backends: impl Into<Vec<BackendKind>>) -> Self {
        self.backends = backends.into();
        self
    }

    /// Returns whether the kernel has code for this backend.
    pub fn supports(&self, backend: BackendKind) -> bool {
        self.backends.contains(&backend)
    }
}
