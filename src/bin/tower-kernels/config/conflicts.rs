//! Checks that settings do not contradict each other.

use std::fmt;
use std::path::Path;

use super::{Algorithm, Config, IsolatedBackends, Jwt, MemoryMax};

/// The keys of settings that are invalid, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InvalidSettings {
    pub(crate) keys: Vec<&'static str>,
    pub(crate) message: String,
}

impl InvalidSettings {
    pub(crate) fn new(keys: impl Into<Vec<&'static str>>, message: impl fmt::Display) -> Self {
        Self { keys: keys.into(), message: message.to_string() }
    }
}

/// Returns an error for these settings unless the requirement holds.
fn require<const N: usize>(
    holds: bool,
    keys: [&'static str; N],
    message: impl FnOnce() -> String,
) -> Result<(), InvalidSettings> {
    if holds { Ok(()) } else { Err(InvalidSettings::new(keys, message())) }
}

/// # Errors
/// The first settings that contradict each other.
pub(super) fn check(config: &Config) -> Result<(), InvalidSettings> {
    listeners(config)?;
    shared_memory(config)?;
    memory(config)?;
    config.tls.files().map(drop)?;
    jwt(&config.auth.jwt)?;
    tenants(config)?;
    isolation(config)?;
    batches(config)
}

fn isolation(config: &Config) -> Result<(), InvalidSettings> {
    let is_off = config.isolation.backends == IsolatedBackends::None;
    require(is_off || cfg!(target_os = "linux"), ["isolation.backends"], || {
        "isolation.backends needs Linux, as only there are device processes; set it to none".to_owned()
    })
}

fn listeners(config: &Config) -> Result<(), InvalidSettings> {
    const KEYS: [&str; 2] = ["rest.listen", "grpc.listen"];
    match (&config.rest.listen.0, &config.grpc.listen.0) {
        (None, None) => {
            Err(InvalidSettings::new(KEYS, "rest.listen and grpc.listen are both off, so there is nothing to serve"))
        }
        (Some(rest), Some(grpc)) => require(!rest.conflicts_with(grpc), KEYS, || {
            format!(
                "REST on {rest} and gRPC on {grpc} use the same address; use different ports, for example \
                 127.0.0.1:8080 and 127.0.0.1:50051"
            )
        }),
        _ => Ok(()),
    }
}

fn shared_memory(config: &Config) -> Result<(), InvalidSettings> {
    require(!config.inference.shared_memory || cfg!(target_os = "linux"), ["inference.shared_memory"], || {
        "inference.shared_memory is on, and this system is not Linux, whose shared memory it is for; set it to false"
            .to_owned()
    })
}

/// Rejects a size limit above the memory limit of all requests together.
fn memory(config: &Config) -> Result<(), InvalidSettings> {
    let MemoryMax::Bytes(max) = config.memory.max else { return Ok(()) };
    let default = Config::default();
    let size = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
    // A default above memory.max is accepted: it may be a small server.
    for (key, bytes, default) in [
        ("rest.max_request_size", size(config.rest.max_request_size), size(default.rest.max_request_size)),
        ("rest.max_response_size", config.rest.max_response_size, default.rest.max_response_size),
        ("grpc.max_request_size", size(config.grpc.max_request_size), size(default.grpc.max_request_size)),
        ("grpc.max_response_size", size(config.grpc.max_response_size), size(default.grpc.max_response_size)),
    ] {
        require(bytes <= max || bytes == default, [key, "memory.max"], || {
            format!(
                "{key} is {bytes} bytes, more than memory.max, {max}, which limits all requests together; use at most \
                 {max}, or raise memory.max"
            )
        })?;
    }
    Ok(())
}

fn jwt(jwt: &Jwt) -> Result<(), InvalidSettings> {
    const KEYS: [&str; 2] = ["auth.jwt.key_file", "auth.jwt.secret_env"];
    let default = Jwt::default();
    let (has_file, has_secret) = (jwt.key_file != Path::new(""), !jwt.secret_env.is_empty());
    require(!(has_file && has_secret), KEYS, || {
        "auth.jwt.key_file and auth.jwt.secret_env are both set; set only one of them".to_owned()
    })?;
    let is_hs256 = jwt.algorithm == Algorithm::HS256;
    require(!has_secret || is_hs256, ["auth.jwt.secret_env", "auth.jwt.algorithm"], || {
        format!(
            "auth.jwt.secret_env needs auth.jwt.algorithm HS256, which is {:?}; set it to HS256, or use \
             auth.jwt.key_file",
            jwt.algorithm
        )
    })?;
    // Setting one of these suggests that tokens are checked.
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

fn tenants(config: &Config) -> Result<(), InvalidSettings> {
    let rate = &config.rate_limit;
    require(rate.burst == 0 || rate.per_second > 0, ["rate_limit.burst"], || {
        format!(
            "rate_limit.burst is {} without rate_limit.per_second, so nothing is limited; set rate_limit.per_second, for \
             example to 100",
            rate.burst
        )
    })?;
    let is_empty = |name: &String| name.trim().is_empty();
    let nameless = |key| move || format!("{key} has a tenant without a name; give it one, as in [{key}.acme]");
    require(!config.tenants.named.keys().any(is_empty), ["tenants.named"], nameless("tenants.named"))?;
    require(!rate.tenants.keys().any(is_empty), ["rate_limit.tenants"], nameless("rate_limit.tenants"))
}

fn batches(config: &Config) -> Result<(), InvalidSettings> {
    let (delay, timeout) = (config.batch.max_delay, config.timeout);
    require(!config.batch.enabled || delay.0 < timeout.0, ["batch.max_delay", "timeout"], || {
        format!(
            "batch.max_delay is {delay} and timeout is {timeout}, so requests could time out while their batch waits; use \
             a shorter batch.max_delay, for example 200us"
        )
    })
}
