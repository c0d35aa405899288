//! Which routes there are. The router is made from this and so is its OpenAPI document: neither can have one more.

use super::RouterConfig;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Kernels,
    /// All that is below `/kernels/`: an id holds slashes, so it takes the rest of the path, and with it what is done
    /// with the kernel.
    Kernel,
    Execute,
    Health,
    Live,
    Ready,
    Metrics,
    OpenApi,
    #[cfg(feature = "docs")]
    Docs,
    #[cfg(feature = "docs")]
    DocsPage,
    #[cfg(feature = "docs")]
    DocsFile,
}

impl Route {
    const ALL: &[Self] = &[
        Self::Kernels,
        Self::Kernel,
        Self::Execute,
        Self::Health,
        Self::Live,
        Self::Ready,
        Self::Metrics,
        Self::OpenApi,
        #[cfg(feature = "docs")]
        Self::Docs,
        #[cfg(feature = "docs")]
        Self::DocsPage,
        #[cfg(feature = "docs")]
        Self::DocsFile,
    ];

    /// Those that a router of this configuration has.
    pub(super) fn of(config: &RouterConfig, openapi: bool) -> impl Iterator<Item = Self> {
        let (health, metrics) = (config.enable_health, config.enable_metrics);
        Self::ALL.iter().copied().filter(move |route| match route {
            Self::Kernels | Self::Kernel | Self::Execute => true,
            Self::Health | Self::Live | Self::Ready => health,
            Self::Metrics => metrics,
            Self::OpenApi => openapi,
            #[cfg(feature = "docs")]
            Self::Docs | Self::DocsPage | Self::DocsFile => openapi,
        })
    }

    /// The path as axum wants it.
    pub(super) fn path(self, config: &RouterConfig) -> String {
        match self {
            Self::Kernels => config.path("/kernels"),
            Self::Kernel => config.path("/kernels/{*path}"),
            Self::Execute => config.path("/execute"),
            Self::Health => "/health".to_owned(),
            Self::Live => "/health/live".to_owned(),
            Self::Ready => "/health/ready".to_owned(),
            Self::Metrics => "/metrics".to_owned(),
            Self::OpenApi => "/openapi.json".to_owned(),
            #[cfg(feature = "docs")]
            Self::Docs => "/docs".to_owned(),
            #[cfg(feature = "docs")]
            Self::DocsPage => "/docs/".to_owned(),
            #[cfg(feature = "docs")]
            Self::DocsFile => "/docs/{file}".to_owned(),
        }
    }
}
