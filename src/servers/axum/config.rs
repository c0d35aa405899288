/// Which routes there are, and what they take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterConfig {
    /// What the paths of `/kernels` and `/execute` begin with, such as `/api/v1`. Probes and scrapers come by convention,
    /// so `/health` and `/metrics` stay where they are.
    pub prefix: String,
    /// Whether there is `/metrics`.
    pub enable_metrics: bool,
    /// Whether there are `/health`, `/health/live` and `/health/ready`.
    pub enable_health: bool,
    /// Whether scripts on pages of any other origin may call.
    pub cors_enabled: bool,
    /// The most bytes that the body of a request may have.
    pub max_request_size: usize,
}

/// No prefix, metrics and health, no other origins, bodies of up to 10 MiB.
impl Default for RouterConfig {
    fn default() -> Self {
        Self {
            prefix: String::new(),
            enable_metrics: true,
            enable_health: true,
            cors_enabled: false,
            max_request_size: 10 * 1024 * 1024,
        }
    }
}

impl RouterConfig {
    /// The path of a route behind the prefix, as axum wants it: one slash in front, none at the end, and braces, which
    /// name parameters there, doubled.
    pub(super) fn path(&self, route: &str) -> String {
        match self.prefix.trim_matches('/') {
            "" => route.to_owned(),
            prefix => format!("/{}{route}", prefix.replace('{', "{{").replace('}', "}}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RouterConfig;

    #[test]
    fn a_prefix_may_be_written_as_one_likes() {
        for prefix in ["/api/v1", "api/v1", "/api/v1/"] {
            let config = RouterConfig { prefix: prefix.to_owned(), ..RouterConfig::default() };
            assert_eq!(config.path("/kernels"), "/api/v1/kernels");
        }
        for prefix in ["", "/"] {
            let config = RouterConfig { prefix: prefix.to_owned(), ..RouterConfig::default() };
            assert_eq!(config.path("/kernels/{*path}"), "/kernels/{*path}");
        }
        let braces = RouterConfig { prefix: "/{a}".to_owned(), ..RouterConfig::default() };
        assert_eq!(braces.path("/execute"), "/{{a}}/execute");
    }
}
