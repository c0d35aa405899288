//! Addresses of listeners, and how they are parsed.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Address on which a [`Listener`](super::Listener) accepts connections.
///
/// | written as | listens on |
/// |---|---|
/// | `127.0.0.1:8080`, `[::1]:8080` | this address |
/// | `0.0.0.0:8080` | all interfaces, IPv4 only |
/// | `:8080`, `[::]:8080` | all interfaces, IPv6 and IPv4; `:8080` is IPv4 only if the machine has no IPv6 |
/// | `localhost:8080` | those of `127.0.0.1` and `[::1]` that the machine has |
/// | `gpu-1.example.com:8080` | all addresses of the name, which must belong to this machine |
/// | `unix:/run/kernels.sock` | a Unix domain socket |
///
/// Port 0 lets the system choose one; a name with several addresses then has the same port on each.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListenAddress {
    /// An IP address and a port.
    Ip(SocketAddr),
    /// A host name and a port.
    Name(String, u16),
    /// A port on all interfaces.
    AllInterfaces(u16),
    /// The path of a Unix domain socket.
    Unix(PathBuf),
}

/// Error of parsing a [`ListenAddress`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an address to listen on: {reason}")]
pub struct InvalidListenAddress {
    text: String,
    reason: String,
}

impl ListenAddress {
    /// Whether other machines may be able to connect to it.
    pub fn is_public(&self) -> bool {
        match self {
            Self::Ip(address) => !address.ip().to_canonical().is_loopback(),
            Self::Name(name, _) => !is_localhost(name),
            Self::AllInterfaces(_) => true,
            Self::Unix(_) => false,
        }
    }

    /// Whether one process cannot listen on both addresses. Names are compared without resolving them. Port 0 never
    /// conflicts.
    pub fn conflicts_with(&self, other: &Self) -> bool {
        if let (Self::Unix(one), Self::Unix(other)) = (self, other) {
            return one == other;
        }
        let (Some(one), Some(two)) = (self.port(), other.port()) else { return false };
        one == two && one != 0 && self.hosts_overlap(other)
    }

    fn port(&self) -> Option<u16> {
        match self {
            Self::Ip(address) => Some(address.port()),
            Self::Name(_, port) | Self::AllInterfaces(port) => Some(*port),
            Self::Unix(_) => None,
        }
    }

    fn hosts_overlap(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::AllInterfaces(_), _) | (_, Self::AllInterfaces(_)) => true,
            (Self::Ip(one), Self::Ip(two)) => ips_overlap(one.ip(), two.ip()),
            (Self::Name(one, _), Self::Name(two, _)) => {
                one.eq_ignore_ascii_case(two) || (is_localhost(one) && is_localhost(two))
            }
            (Self::Name(name, _), Self::Ip(address)) | (Self::Ip(address), Self::Name(name, _)) => {
                let ip = address.ip();
                ip.is_unspecified() || (is_localhost(name) && LOCALHOST.contains(&ip.to_canonical()))
            }
            (Self::Unix(_), _) | (_, Self::Unix(_)) => false,
        }
    }
}

/// Addresses of `localhost`, whatever a resolver returns (RFC 6761, section 6.3).
pub(super) const LOCALHOST: [IpAddr; 2] = [IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

pub(super) fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// `::` also accepts IPv4; `0.0.0.0` does not accept IPv6.
fn ips_overlap(one: IpAddr, two: IpAddr) -> bool {
    let covers = |all: IpAddr, one: IpAddr| all.is_unspecified() && (all.is_ipv6() || one.to_canonical().is_ipv4());
    one.to_canonical() == two.to_canonical() || covers(one, two) || covers(two, one)
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
            Self::AllInterfaces(port) => write!(f, ":{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for ListenAddress {
    type Err = InvalidListenAddress;

    fn from_str(text: &str) -> Result<Self, InvalidListenAddress> {
        parse(text).map_err(|reason| InvalidListenAddress { text: text.to_owned(), reason })
    }
}

fn parse(text: &str) -> Result<ListenAddress, String> {
    const FORMS: &str = "use HOST:PORT such as 127.0.0.1:8080 or localhost:8080, :8080 for all interfaces, or \
                         unix:/path/to/socket";
    if let Some(path) = text.strip_prefix("unix:") {
        return unix(path);
    }
    if let Ok(address) = text.parse() {
        return Ok(ListenAddress::Ip(address));
    }
    if text.is_empty() {
        return Err(format!("it is empty; {FORMS}"));
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let rest = rest.split('/').next().unwrap_or_default();
        return Err(format!("it is a URL; leave out {scheme}:// and any path, as in {rest}"));
    }
    if text.starts_with(['/', '.']) {
        return Err(format!("for a Unix domain socket use unix:{text}"));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("a port needs a host: 127.0.0.1:{text} for this machine only, :{text} for all interfaces"));
    }
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Err(format!("an address needs a port, as in {}", SocketAddr::new(ip, 8080)));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(format!("it has no port; {FORMS}"));
    };
    let port: u16 = port.parse().map_err(|_| format!("the port {port:?} is not a number from 0 to 65535"))?;
    match host {
        "" => Ok(ListenAddress::AllInterfaces(port)),
        _ if is_host_name(host) => Ok(ListenAddress::Name(host.to_owned(), port)),
        _ if host.parse::<Ipv6Addr>().is_ok() => {
            Err(format!("write an IPv6 address in brackets, as in [{host}]:{port}"))
        }
        _ => Err(format!("{host:?} is neither an IP address nor a host name; {FORMS}")),
    }
}

/// Whether it is a host name: letters, digits and hyphens in labels of up to 63 characters, the last of which is not a
/// number (`300.0.0.1` is a mistyped address). Underscores are not valid in DNS, but some container networks use them.
fn is_host_name(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_label = |label: &str| {
        let inside = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        (1..=63).contains(&label.len()) && inside && !label.starts_with('-') && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= 253 && name.split('.').all(is_label) && !last.bytes().all(|byte| byte.is_ascii_digit())
}

/// Parses `unix:/path`, and `unix:///path` as gRPC and Docker write it.
fn unix(path: &str) -> Result<ListenAddress, String> {
    let path = match path.strip_prefix("//") {
        Some(path) if path.starts_with('/') => path,
        Some(path) => return Err(format!("unix:// is followed by an absolute path, as in unix:///{path}")),
        None => path,
    };
    if path.is_empty() || path.ends_with('/') {
        return Err("it names no file; use unix:/path/to/socket".to_owned());
    }
    if path.starts_with('@') {
        return Err("abstract sockets are not supported; use unix:/path/to/socket".to_owned());
    }
    check_path(Path::new(path)).map_err(|error| error.to_string())?;
    Ok(ListenAddress::Unix(path.into()))
}

/// Checks the length of the path, which is limited to 107 bytes on Linux.
#[cfg(unix)]
fn check_path(path: &Path) -> std::io::Result<()> {
    std::os::unix::net::SocketAddr::from_pathname(path).map(drop)
}

#[cfg(not(unix))]
fn check_path(_: &Path) -> std::io::Result<()> {
    Err(std::io::Error::new(std::io::ErrorKind::Unsupported, "this system has no Unix domain sockets"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> ListenAddress {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn addresses_are_parsed_in_every_form() {
        assert_eq!(address("127.0.0.1:80"), ListenAddress::Ip(([127, 0, 0, 1], 80).into()));
        assert_eq!(address("[::]:80"), ListenAddress::Ip((Ipv6Addr::UNSPECIFIED, 80).into()));
        assert_eq!(address(":80"), ListenAddress::AllInterfaces(80));
        assert_eq!(address("localhost:80"), ListenAddress::Name("localhost".to_owned(), 80));
        assert_eq!(address("gpu-1.example.com:0"), ListenAddress::Name("gpu-1.example.com".to_owned(), 0));
        for unix in ["unix:/run/a.sock", "unix:///run/a.sock"] {
            assert_eq!(address(unix), ListenAddress::Unix("/run/a.sock".into()));
        }
        assert_eq!(address("unix:a.sock"), ListenAddress::Unix("a.sock".into()));
        for text in ["127.0.0.1:80", "[::1]:80", ":80", "localhost:80", "unix:/run/a.sock"] {
            assert_eq!(address(text).to_string(), text);
        }
    }

    #[test]
    fn errors_say_how_to_write_the_address() {
        let long = format!("unix:/{}", "a".repeat(200));
        for (text, hint) in [
            ("", "empty"),
            ("8080", "127.0.0.1:8080"),
            ("127.0.0.1", "127.0.0.1:8080"),
            ("::1", "[::1]:8080"),
            ("[::1]", "[::1]:8080"),
            ("fe80::1:2:3:4:8080:99999", "not a number from 0 to 65535"),
            ("2001:db8:1:2:3:4:5:6:8080", "[2001:db8:1:2:3:4:5:6]:8080"),
            ("localhost", "no port"),
            ("localhost:http", "\"http\" is not a number"),
            ("localhost:65536", "from 0 to 65535"),
            ("300.0.0.1:80", "neither an IP address nor a host name"),
            ("a b:80", "neither an IP address nor a host name"),
            ("http://127.0.0.1:80/x", "as in 127.0.0.1:80"),
            ("/run/a.sock", "unix:/run/a.sock"),
            ("unix:", "names no file"),
            ("unix:/run/", "names no file"),
            ("unix://run/a.sock", "unix:///run/a.sock"),
            ("unix:@a", "abstract"),
            ("unix:/a\0b", "null"),
            (&long, "SUN_LEN"),
        ] {
            let error = text.parse::<ListenAddress>().expect_err(text).to_string();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }

    #[test]
    fn two_listeners_of_a_process_must_not_overlap() {
        for (one, two, conflict) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("[::]:80", "127.0.0.1:80", true),
            (":80", "[::1]:80", true),
            (":80", "localhost:80", true),
            ("localhost:80", "127.0.0.1:80", true),
            ("localhost:80", "[::1]:80", true),
            ("localhost:80", "127.0.0.2:80", false),
            ("LocalHost:80", "localhost.:80", true),
            ("unix:/a", "unix:/a", true),
            ("unix:/a", "unix:/b", false),
            ("unix:/a", ":80", false),
        ] {
            assert_eq!(address(one).conflicts_with(&address(two)), conflict, "{one} {two}");
            assert_eq!(address(two).conflicts_with(&address(one)), conflict, "{two} {one}");
        }
    }

    #[test]
    fn loopback_and_unix_addresses_are_not_public() {
        for text in ["127.0.0.1:80", "127.9.9.9:80", "[::1]:80", "[::ffff:127.0.0.1]:80", "localhost:80", "unix:/a"] {
            assert!(!address(text).is_public(), "{text}");
        }
        for text in ["0.0.0.0:80", ":80", "[::]:80", "10.0.0.1:80", "example.com:80"] {
            assert!(address(text).is_public(), "{text}");
        }
    }
}
