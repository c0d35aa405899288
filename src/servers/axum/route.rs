//! The routes, from which the router and its OpenAPI document are built.

use super::RouterConfig;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Kernels,
    /// All paths below `/kernels/`: ids contain slashes, so the wildcard includes `/execute`.
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

    /// Routes of a router with this configuration.
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

    /// Path in axum's form.
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

/// Whether this is a path of the documentation: `/openapi.json`, or Swagger UI and its files. Use it to exempt them
/// from authentication.
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
