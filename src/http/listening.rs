//! The gateway's listeners: TCP addresses, and a Unix socket.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tracing::warn;

use super::arrival::Peer;

/// Connections that the kernel queues until they are accepted.
const BACKLOG: i32 = 4096;

/// After how much idle time the kernel begins to probe whether the peer is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// If a peer acknowledges nothing for this long, the kernel closes the connection.
#[cfg(target_os = "linux")]
const UNREAD_FOR_MAX: Duration = Duration::from_secs(90);

/// A socket with more unsent bytes than this in the kernel accepts no more.
#[cfg(target_os = "linux")]
const NOTSENT_LOWAT: u32 = 16 << 10;

/// Listeners for `count` threads on one address, and the address.
///
/// # Errors
/// The address is taken, or does not belong to this machine.
pub(crate) fn listen(
    address: SocketAddr,
    count: usize,
) -> io::Result<(Vec<std::net::TcpListener>, SocketAddr)> {
    if address.port() != 0 {
        // SO_REUSEPORT would let a second gateway of the same user share the port unnoticed.
        drop(listener(address, false)?);
    }
    let first = listener(address, true)?;
    let address = first.local_addr()?;
    let others = (1..count).map(|_| listener(address, true));
    let listeners = std::iter::once(Ok(first)).chain(others).collect::<io::Result<_>>()?;
    Ok((listeners, address))
}

fn listener(address: SocketAddr, shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    // Accepted sockets inherit these. The low-water mark keeps stale messages out of the kernel's buffers:
    // lag shows when 16 KiB are unsent, not megabytes later.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    #[cfg(target_os = "linux")]
    {
        socket.set_tcp_notsent_lowat(NOTSENT_LOWAT)?;
        socket.set_tcp_user_timeout(Some(UNREAD_FOR_MAX))?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A Unix socket for `count` threads, with these permission bits. The leftover of a killed gateway is
/// replaced.
///
/// # Errors
/// Another gateway listens there, or the path is something other than a socket.
pub(crate) fn listen_unix(
    path: &Path,
    mode: u32,
    count: usize,
) -> io::Result<(Vec<std::os::unix::net::UnixListener>, UnixFile)> {
    remove_stale(path)?;
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Until it listens, nobody can connect, so nobody can connect with wider permissions.
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    let file = UnixFile { path: path.to_owned(), identity: identity(path)? };
    socket.listen(BACKLOG)?;
    // The clones share one queue; the first thread to look takes a connection.
    let others = (1..count).map(|_| socket.try_clone()).collect::<io::Result<Vec<_>>>()?;
    let all = std::iter::once(socket).chain(others);
    Ok((all.map(|socket| OwnedFd::from(socket).into()).collect(), file))
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !found.file_type().is_socket() {
        let problem = "the path exists and is not a socket; remove it, or choose another path";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, problem));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

/// The file of a Unix socket. Dropping this removes it, unless another process has replaced it.
#[derive(Debug)]
pub(crate) struct UnixFile {
    path: PathBuf,
    identity: Identity,
}

/// Device, inode, and time of the last change, because inode numbers are reused.
type Identity = (u64, u64, i64, i64);

fn identity(path: &Path) -> io::Result<Identity> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino(), found.ctime(), found.ctime_nsec()))
}

impl Drop for UnixFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            warn!(path = %self.path.display(), error = %error, "could not remove the Unix socket");
        }
    }
}

/// What connections are accepted from.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    pub(super) async fn accept(&self) -> io::Result<(TcpStream, Peer)> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(stream, peer)| (stream, Peer::Net(peer))),
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                // The kernel treats both kinds alike in reading, writing and shutdown, so the rest of the
                // code handles one type; only the addresses differ, and they are not queried.
                let stream = std::net::TcpStream::from(OwnedFd::from(stream.into_std()?));
                Ok((TcpStream::from_std(stream)?, Peer::Unix))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_was_left_behind_is_replaced_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gateway.sock");
        let (listeners, file) = listen_unix(&path, 0o600, 2).unwrap();
        assert_eq!(listeners.len(), 2);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let taken = listen_unix(&path, 0o600, 1).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        // As after a kill: nobody listens, and the file is still there.
        drop(listeners);
        assert!(path.exists());
        let (_listeners, of_another) = listen_unix(&path, 0o660, 1).unwrap();
        drop(file);
        assert!(path.exists(), "it is another one's now");
        drop(of_another);
        assert!(!path.exists());
        fs::write(&path, "precious").unwrap();
        let other = listen_unix(&path, 0o600, 1).unwrap_err();
        assert_eq!(other.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
