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

/// Whether this is the path of the documentation: `/openapi.json`, or the page with its files. It is what can be shown
/// without credentials where the kernels are not.
pub fn is_docs(path: &str) -> bool {
    // A file, and not `/docs/kernels` or `/docs/execute` behind the prefix `/docs`.
    let is_file = |name: &str| name.is_empty() || (name.contains('.') && !name.contains('/'));
    matches!(path, "/openapi.json" | "/docs") || path.strip_prefix("/docs/").is_some_and(is_file)
}

#[cfg(test)]
mod tests {
    use super::is_docs;

    #[test]
    fn the_documentation_is_no_path_behind_a_prefix_of_the_same_name() {
        for path in ["/openapi.json", "/docs", "/docs/", "/docs/index.html", "/docs/swagger-ui.css"] {
            assert!(is_docs(path), "{path}");
        }
        for path in [
            "/docs/kernels",
            "/docs/execute",
            "/docs/kernels/a.b/execute",
            "/docs/a/b.c",
            "/docs.html",
            "/openapi.json/kernels",
            "/",
        ] {
            assert!(!is_docs(path), "{path}");
        }
    }
}
