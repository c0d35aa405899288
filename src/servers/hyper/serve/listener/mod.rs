//! Listeners: TCP and Unix domain sockets from which a server accepts connections.

mod address;
mod socket;
#[cfg(unix)]
mod socket_file;

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context, Poll};

use socket2::{Domain, Protocol, Type};
use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::net::UnixListener;

pub use self::address::{InvalidListenAddress, ListenAddress};
pub(super) use self::socket::{Peer, Socket};
#[cfg(unix)]
pub use self::socket_file::SocketFile;

/// Length of the accept queue. Linux allows up to 4 096 by default.
const BACKLOG: u32 = 1024;

/// Creates a TCP listener for many clients. Its backlog is 1 024, longer than that of
/// [`TcpListener::bind`](tokio::net::TcpListener::bind), above which the system resets new connections. The address can
/// be bound again as soon as a server has ended. `[::]` also accepts IPv4.
///
/// [`Listener::bind`] accepts more kinds of addresses.
///
/// # Errors
/// The error of the system: the address is in use or does not belong to this machine.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // On Windows this would let other processes take over the address.
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(BACKLOG).unwrap_or(i32::MAX))?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

/// One or several sockets that a [`Server`](super::Server) accepts connections from.
///
/// Dropping it closes them, and removes the file of a Unix domain socket.
#[derive(Debug)]
pub struct Listener {
    sockets: Vec<Listening>,
    /// Which socket to poll first, so that a busy one does not starve the others.
    next: usize,
}

#[derive(Debug)]
enum Listening {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener, Option<SocketFile>),
}

impl Listener {
    /// Listens on an address of any kind.
    ///
    /// The owner and the group of a Unix domain socket may connect to it (mode 660). A stale socket of a process that
    /// has ended is replaced; a socket with a listener and any other file are not.
    ///
    /// # Errors
    /// What the system says: the address is in use, or none of this machine's; the name is not known.
    pub async fn bind(address: &ListenAddress) -> io::Result<Self> {
        match address {
            ListenAddress::Ip(address) => listen(*address).map(Self::from),
            ListenAddress::AllInterfaces(port) => all_interfaces(*port).map(Self::from),
            ListenAddress::Name(name, port) => {
                let sockets = listen_on_all(&resolve(name).await?, *port)?;
                Ok(Self { sockets: sockets.into_iter().map(Listening::Tcp).collect(), next: 0 })
            }
            #[cfg(unix)]
            ListenAddress::Unix(path) => {
                let path = path.clone();
                // Blocks on a lock of another process and on the file system.
                let bound = tokio::task::spawn_blocking(move || socket_file::bind(&path, BACKLOG)).await;
                let (listener, file) = bound.map_err(io::Error::other)??;
                Ok(Self { sockets: vec![Listening::Unix(listener, Some(file))], next: 0 })
            }
            #[cfg(not(unix))]
            ListenAddress::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Returns the addresses, with the ports that the system has chosen.
    ///
    /// # Errors
    /// The error of the system.
    pub fn local_addresses(&self) -> io::Result<Vec<ListenAddress>> {
        let of = |socket: &Listening| match socket {
            Listening::Tcp(tcp) => tcp.local_addr().map(ListenAddress::Ip),
            #[cfg(unix)]
            Listening::Unix(unix, _) => {
                let address = unix.local_addr()?;
                Ok(ListenAddress::Unix(address.as_pathname().map(Into::into).unwrap_or_default()))
            }
        };
        self.sockets.iter().map(of).collect()
    }

    /// Returns the file of the Unix domain socket that [`bind`](Self::bind) has created. Dropping the returned value
    /// removes the file. A program keeps it for exits that do not drop the listener.
    #[cfg(unix)]
    pub fn socket_file(&self) -> Option<SocketFile> {
        self.sockets.iter().find_map(|socket| match socket {
            Listening::Unix(_, file) => file.as_ref().map(SocketFile::another),
            Listening::Tcp(_) => None,
        })
    }

    /// Accepts the next connection. Cancel safe.
    pub(super) async fn accept(&mut self) -> io::Result<(Socket, Peer)> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Socket, Peer)>> {
        let count = self.sockets.len();
        for at in (0..count).map(|offset| (self.next + offset) % count) {
            if let Poll::Ready(accepted) = self.sockets[at].poll_accept(cx) {
                self.next = at + 1;
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    }
}

impl Listening {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Socket, Peer)>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_accept(cx).map(|accepted| {
                let (tcp, peer) = accepted?;
                // A response must not wait for the acknowledgement of the one before (Nagle's algorithm).
                tcp.set_nodelay(true)?;
                Ok((Socket::Tcp(tcp), Peer::Tcp(peer)))
            }),
            #[cfg(unix)]
            Self::Unix(unix, _) => unix.poll_accept(cx).map_ok(|(unix, _)| {
                let peer = Peer::of_unix(&unix);
                (Socket::Unix(unix), peer)
            }),
        }
    }
}

#[cfg(unix)]
impl Drop for Listening {
    /// Removes the file before the socket is closed, because another process may replace a socket without a listener.
    fn drop(&mut self) {
        if let Self::Unix(_, Some(file)) = self {
            file.remove();
        }
    }
}

impl From<TcpListener> for Listener {
    fn from(tcp: TcpListener) -> Self {
        Self { sockets: vec![Listening::Tcp(tcp)], next: 0 }
    }
}

/// The socket's file is not removed: that is up to whoever has bound it.
#[cfg(unix)]
impl From<UnixListener> for Listener {
    fn from(unix: UnixListener) -> Self {
        Self { sockets: vec![Listening::Unix(unix, None)], next: 0 }
    }
}

/// Listens on IPv6 and IPv4, or on IPv4 only if the machine has no IPv6.
fn all_interfaces(port: u16) -> io::Result<TcpListener> {
    match listen((Ipv6Addr::UNSPECIFIED, port).into()) {
        Err(error) if is_missing(&error) => listen((Ipv4Addr::UNSPECIFIED, port).into()),
        listening => listening,
    }
}

/// Whether the machine does not have this address family or address.
fn is_missing(error: &io::Error) -> bool {
    // EAFNOSUPPORT has the kind `Uncategorized`, which cannot be named.
    #[cfg(unix)]
    let no_family = error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error());
    #[cfg(not(unix))]
    let no_family = false;
    no_family || matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
}

async fn resolve(name: &str) -> io::Result<Vec<IpAddr>> {
    if address::is_localhost(name) {
        return Ok(address::LOCALHOST.to_vec());
    }
    let mut ips = Vec::new();
    for address in tokio::net::lookup_host((name, 0)).await? {
        if !ips.contains(&address.ip()) {
            ips.push(address.ip());
        }
    }
    Ok(ips)
}

/// Listens on those addresses that the machine has, all on the same port.
fn listen_on_all(ips: &[IpAddr], port: u16) -> io::Result<Vec<TcpListener>> {
    /// Maximum number of retries if the port that the system chose for one address is in use on another.
    const MAX_RETRIES: usize = 16;
    let mut retries = 0;
    loop {
        match try_listen_on_all(ips, port) {
            Err(error) if port == 0 && error.kind() == io::ErrorKind::AddrInUse && retries < MAX_RETRIES => {
                retries += 1
            }
            listening => return listening,
        }
    }
}

fn try_listen_on_all(ips: &[IpAddr], mut port: u16) -> io::Result<Vec<TcpListener>> {
    let mut listening = Vec::new();
    let mut missing = None;
    for ip in ips {
        match listen((*ip, port).into()) {
            Ok(tcp) => {
                port = tcp.local_addr()?.port();
                listening.push(tcp);
            }
            Err(error) if is_missing(&error) => missing = Some(error),
            Err(error) => {
                return Err(io::Error::new(error.kind(), format!("{}: {error}", SocketAddr::new(*ip, port))));
            }
        }
    }
    if listening.is_empty() {
        return Err(missing.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address")));
    }
    Ok(listening)
}
