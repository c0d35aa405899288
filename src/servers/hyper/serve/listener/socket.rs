//! Socket of an accepted connection, over TCP or a Unix domain socket.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
#[cfg(unix)]
use std::os::fd::{AsFd, BorrowedFd};

use socket2::SockRef;
use tokio::io::{Interest, Ready};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

use super::super::forward_io::forward_io;

/// The socket of one connection.
#[derive(Debug)]
pub(in super::super) enum Socket {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

/// Calls a method of the inner stream.
macro_rules! within {
    ($socket:expr, $stream:ident => $call:expr) => {
        match $socket {
            Socket::Tcp($stream) => $call,
            #[cfg(unix)]
            Socket::Unix($stream) => $call,
        }
    };
}

impl Socket {
    /// As [`TcpStream::ready`].
    pub(in super::super) async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        within!(self, stream => stream.ready(interest).await)
    }

    /// Whether there is unread input. Makes a system call.
    pub(in super::super) fn has_unread(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        within!(self, stream => SockRef::from(stream).peek(&mut byte)).is_ok_and(|bytes| bytes > 0)
    }

    /// As [`TcpStream::peek`], which tokio's Unix sockets do not have: waits for input or its end, and does not consume
    /// it.
    #[cfg(feature = "tls")]
    pub(in super::super) async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.peek(buf).await,
            #[cfg(unix)]
            Self::Unix(unix) => {
                use rustix::net::{RecvFlags, recv};
                let peek = || Ok(recv(unix, &mut *buf, RecvFlags::PEEK)?.1);
                unix.async_io(Interest::READABLE, peek).await
            }
        }
    }
}

#[cfg(unix)]
impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        within!(self, stream => stream.as_fd())
    }
}

forward_io!(Socket, within);

impl From<TcpStream> for Socket {
    fn from(tcp: TcpStream) -> Self {
        Self::Tcp(tcp)
    }
}

/// The peer of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Peer {
    Tcp(SocketAddr),
    /// A process of this machine. The ids are set if the system reports them.
    #[cfg(unix)]
    Unix {
        pid: Option<i32>,
        uid: Option<u32>,
    },
}

impl Peer {
    /// `None` on a Unix domain socket.
    pub(in super::super) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            #[cfg(unix)]
            Self::Unix { .. } => None,
        }
    }

    /// `None` on a Unix domain socket, to which the per-address limit does not apply.
    pub(in super::super) fn ip(&self) -> Option<IpAddr> {
        self.address().map(|address| address.ip())
    }

    #[cfg(unix)]
    pub(super) fn of_unix(stream: &UnixStream) -> Self {
        // Only used in logs.
        let credentials = stream.peer_cred().ok();
        Self::Unix {
            pid: credentials.and_then(|credentials| credentials.pid()),
            uid: credentials.map(|credentials| credentials.uid()),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            #[cfg(unix)]
            Self::Unix { pid, uid } => {
                f.write_str("unix")?;
                pid.map_or(Ok(()), |pid| write!(f, " pid={pid}"))?;
                uid.map_or(Ok(()), |uid| write!(f, " uid={uid}"))
            }
        }
    }
}
