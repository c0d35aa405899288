//! Settings that cannot work together.

use std::fmt;
use std::path::Path;

use super::{Algorithm, Config, Jwt, MemoryMax};

/// Settings that cannot work, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InvalidInput {
    pub(crate) keys: Vec<&'static str>,
    pub(crate) message: String,
}

impl InvalidInput {
    pub(crate) fn new(keys: impl Into<Vec<&'static str>>, message: impl fmt::Display) -> Self {
        Self { keys: keys.into(), message: message.to_string() }
    }
}

/// A requirement: where it does not hold, these settings do not go together.
fn require<const N: usize>(
    holds: bool,
    keys: [&'static str; N],
    message: impl FnOnce() -> String,
) -> Result<(), InvalidInput> {
    if holds { Ok(()) } else { Err(InvalidInput::new(keys, message())) }
}

/// # Errors
/// The first settings that do not go together.
pub(super) fn check(config: &Config) -> Result<(), InvalidInput> {
    listeners(config)?;
    memory(config)?;
    config.tls.files().map(drop)?;
    jwt(&config.auth.jwt)?;
    tenants(config)?;
    batches(config)
}

fn listeners(config: &Config) -> Result<(), InvalidInput> {
    const KEYS: [&str; 2] = ["rest.listen", "grpc.listen"];
    match (&config.rest.listen.0, &config.grpc.listen.0) {
        (None, None) => {
            Err(InvalidInput::new(KEYS, "rest.listen and grpc.listen are both off, so there is nothing to serve"))
        }
        (Some(rest), Some(grpc)) => require(!rest.conflicts_with(grpc), KEYS, || {
            format!(
                "REST on {rest} and gRPC on {grpc} would take the same address; use different ports, for example \
                 127.0.0.1:8080 and 127.0.0.1:50051"
            )
        }),
        _ => Ok(()),
    }
}

/// A request that is larger than all requests together may be is rejected whatever is said of one.
fn memory(config: &Config) -> Result<(), InvalidInput> {
    let MemoryMax::Bytes(max) = config.memory.max else { return Ok(()) };
    let default = Config::default();
    let size = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
    // Less memory than a default asks for is a small server, and no contradiction.
    for (key, bytes, default) in [
        ("rest.max_request_size", size(config.rest.max_request_size), size(default.rest.max_request_size)),
        ("rest.max_response_size", config.rest.max_response_size, default.rest.max_response_size),
        ("grpc.max_request_size", size(config.grpc.max_request_size), size(default.grpc.max_request_size)),
        ("grpc.max_response_size", size(config.grpc.max_response_size), size(default.grpc.max_response_size)),
    ] {
        require(bytes <= max || bytes == default, [key, "memory.max"], || {
            format!(
                "{key} is {bytes} bytes, more than the {max} that memory.max lets all requests hold together; use at most \
                 {max}, or raise memory.max"
            )
        })?;
    }
    Ok(())
}

fn jwt(jwt: &Jwt) -> Result<(), InvalidInput> {
    const KEYS: [&str; 2] = ["auth.jwt.key_file", "auth.jwt.secret_env"];
    let default = Jwt::default();
    let (has_file, has_secret) = (jwt.key_file != Path::new(""), !jwt.secret_env.is_empty());
    require(!(has_file && has_secret), KEYS, || {
        "auth.jwt.key_file and auth.jwt.secret_env are both there: give one of the two".to_owned()
    })?;
    let is_hs256 = jwt.algorithm == Algorithm::HS256;
    require(!has_secret || is_hs256, ["auth.jwt.secret_env", "auth.jwt.algorithm"], || {
        format!(
            "auth.jwt.secret_env names the secret of HS256, and auth.jwt.algorithm is {:?}; set it to HS256, or use \
             auth.jwt.key_file",
            jwt.algorithm
        )
    })?;
    // Who sets these takes it that tokens are checked.
    for (key, is_set) in [
        ("auth.jwt.algorithm", jwt.algorithm != default.algorithm),
        ("auth.jwt.issuer", jwt.issuer != default.issuer),
        ("auth.jwt.audience", jwt.audience != default.audience),
        ("auth.jwt.tenant_claim", jwt.tenant_claim != default.tenant_claim),
    ] {
        require(!is_set || has_file || has_secret, [key], || {
            format!(
                "{key} is set without auth.jwt.key_file or auth.jwt.secret_env, so no token would be checked; set one of \
                 them, for example auth.jwt.key_file = \"/etc/tower-kernels/jwt.pem\""
            )
        })?;
    }
    Ok(())
}

fn tenants(config: &Config) -> Result<(), InvalidInput> {
    let rate = &config.rate_limit;
    require(rate.burst == 0 || rate.per_second > 0, ["rate_limit.burst"], || {
        format!(
            "rate_limit.burst is {} without rate_limit.per_second, and limits nothing; set rate_limit.per_second, for \
             example to 100",
            rate.burst
        )
    })?;
    let is_empty = |name: &String| name.trim().is_empty();
    let nameless = |key| move || format!("{key} has a tenant without a name; name each, as in [{key}.acme]");
    require(!config.tenants.named.keys().any(is_empty), ["tenants.named"], nameless("tenants.named"))?;
    require(!rate.tenants.keys().any(is_empty), ["rate_limit.tenants"], nameless("rate_limit.tenants"))
}

fn batches(config: &Config) -> Result<(), InvalidInput> {
    let (delay, timeout) = (config.batch.max_delay, config.timeout);
    require(!config.batch.enabled || delay.0 < timeout.0, ["batch.max_delay", "timeout"], || {
        format!(
            "a run may wait for {delay} (batch.max_delay), and its requests have {timeout} (timeout), so that they could \
             all be too late; use for example 200us"
        )
    })
}
