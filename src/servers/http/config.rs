/// Configuration of the REST API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterConfig {
    /// Prefix of the paths `/kernels` and `/execute`, such as `/api/v1`; empty for none. `/health` and `/metrics` have
    /// no prefix, as probes and scrapers expect them there. [`check`](Self::check) validates it.
    pub prefix: String,
    /// Enables `/metrics`.
    pub enable_metrics: bool,
    /// Enables `/health`, `/health/live` and `/health/ready`.
    pub enable_health: bool,
    /// Enables CORS for every origin.
    pub cors_enabled: bool,
    /// Maximum size of a request body, in bytes.
    pub max_request_size: usize,
}

/// No prefix, metrics and health enabled, no CORS, bodies of up to 10 MiB.
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

/// The prefix is not a valid path, or contains a parameter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{prefix:?} is not the beginning of a path: {reason}; use one such as /api/v1, with segments of letters, digits and \
     -._~!$&'()+,;=:@ between single slashes, and everything else percent-encoded"
)]
pub struct InvalidPrefix {
    prefix: String,
    reason: String,
}

impl RouterConfig {
    /// Validates the configuration.
    ///
    /// # Errors
    /// If the prefix is invalid: it has an empty segment, a character that a path cannot have, or a segment that is a
    /// parameter or that clients resolve (`:id`, `*rest`, `{id}`, `..`). A slash at the end is ignored, and the one at
    /// the beginning is optional.
    pub fn check(&self) -> Result<(), InvalidPrefix> {
        let invalid = |reason: String| InvalidPrefix { prefix: self.prefix.clone(), reason };
        let prefix = self.prefix.strip_prefix('/').unwrap_or(&self.prefix);
        if prefix.is_empty() {
            return Ok(());
        }
        let path = prefix.strip_suffix('/').unwrap_or(prefix);
        path.split('/').try_for_each(check_segment).map_err(invalid)
    }

    /// Path of a route with the prefix: one slash at the beginning, none at the end.
    pub(crate) fn path(&self, route: &str) -> String {
        match self.prefix.trim_matches('/') {
            "" => route.to_owned(),
            prefix => format!("/{prefix}{route}"),
        }
    }

    /// Returns a path without the prefix, or `None` if it does not begin with it.
    pub(super) fn without_prefix<'a>(&self, path: &'a str) -> Option<&'a str> {
        match self.prefix.trim_matches('/') {
            "" => Some(path),
            prefix => path.strip_prefix('/')?.strip_prefix(prefix).filter(|rest| rest.starts_with('/')),
        }
    }
}

fn check_segment(segment: &str) -> Result<(), String> {
    if segment.is_empty() {
        return Err("there is nothing between two slashes".to_owned());
    }
    if matches!(segment, "." | "..") {
        return Err(format!("clients resolve {segment:?} before they send a request"));
    }
    if segment.starts_with([':', '*']) {
        return Err(format!("{segment:?} looks like a parameter, which a prefix cannot have"));
    }
    let mut rest = segment;
    while let Some(char) = rest.chars().next() {
        let is_escape = char == '%' && rest.len() >= 3 && rest.as_bytes()[1..3].iter().all(u8::is_ascii_hexdigit);
        if !is_escape && !char.is_ascii_alphanumeric() && !"-._~!$&'()+,;=:@".contains(char) {
            return Err(format!("{char:?} cannot be in a path"));
        }
        rest = &rest[if is_escape { 3 } else { char.len_utf8() }..];
    }
    Ok(())
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
    }

    #[test]
    fn a_prefix_is_the_beginning_of_a_path() {
        let check = |prefix: &str| RouterConfig { prefix: prefix.to_owned(), ..RouterConfig::default() }.check();
        for prefix in
            ["", "/", "/api/v1", "api/v1", "/api/v1/", "/@me", "/v1:beta", "/a%20b", "/a.b", "/...", "/a~(b)+c"]
        {
            assert_eq!(check(prefix), Ok(()), "{prefix}");
        }
        for prefix in [
            "//",
            "/a//b",
            "//a",
            "/a//",
            " ",
            "/a b",
            "/a?b",
            "/a#b",
            "/{x}",
            "/{*x}",
            "/a{b",
            "/*p",
            "/:p",
            "/a*b",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a%é",
            "/é",
            "/.",
            "/a/..",
            "/a\\b",
            "/a\nb",
            "/a\0b",
            "/\"a\"",
            "http://a/b",
        ] {
            let error = check(prefix).expect_err(prefix).to_string();
            assert!(error.contains(&format!("{prefix:?}")) && error.contains("/api/v1"), "{prefix}: {error}");
        }
    }
}
