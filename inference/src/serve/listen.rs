//! Listeners: TCP, and Unix sockets that only their owner can open.

use std::fs::{self, Permissions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use super::ServeError;

/// Connections that the system keeps until they are accepted.
const BACKLOG: i32 = 1_024;

/// A Unix socket under its name, which is given up when this is dropped.
#[derive(Debug)]
pub struct UnixEndpoint {
    listener: UnixListener,
    path: PathBuf,
    /// Device and number of the file, so that nobody else's is removed.
    file: (u64, u64),
}

/// One listener for each of `threads` threads, all at one address; the system deals connections out.
pub(super) fn tcp(address: SocketAddr, threads: usize) -> Result<Vec<TcpListener>, ServeError> {
    let mut listeners: Vec<TcpListener> = Vec::with_capacity(threads);
    let mut at = address;
    let failed = |cause| ServeError::Listen { endpoint: address.to_string(), cause };
    if threads > 1 && address.port() != 0 {
        // Listeners that share an address share it with those of another server too, which would take its part unnoticed.
        bound(address, false).map_err(failed)?;
    }
    for _ in 0..threads {
        let listener = tcp_socket(at, threads > 1).map_err(failed)?;
        // The first one finds a free port where none was given.
        at = listener.local_addr().map_err(failed)?;
        listeners.push(listener);
    }
    Ok(listeners)
}

fn tcp_socket(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = bound(address, shared)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bound(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

impl UnixEndpoint {
    /// Makes a socket of mode 0600 under `path`. A socket that is there is replaced where nobody answers on it.
    ///
    /// # Errors
    /// A folder that others can write to, a name that is taken, or whatever the system says.
    pub fn bind(path: &Path) -> Result<Self, ServeError> {
        check_folder(path)?;
        check_place(path)?;
        let failed = |cause| ServeError::Listen { endpoint: path.display().to_string(), cause };
        // Nobody can connect before `listen`, and by then the mode is right; the name comes last.
        let temporary = path.with_extension(format!("{}.new", std::process::id()));
        let made = bind_private(&temporary).and_then(|listener| {
            let metadata = fs::symlink_metadata(&temporary)?;
            fs::rename(&temporary, path)?;
            Ok(UnixEndpoint { listener, path: path.to_owned(), file: (metadata.dev(), metadata.ino()) })
        });
        made.map_err(|cause| {
            let _ = fs::remove_file(&temporary);
            failed(cause)
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Another handle on the listener, for another thread. It does not block.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn share(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

impl Drop for UnixEndpoint {
    fn drop(&mut self) {
        let ours = |path: &Path| fs::symlink_metadata(path).is_ok_and(|file| (file.dev(), file.ino()) == self.file);
        if ours(&self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let _ = fs::remove_file(path);
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// In a folder where others may rename files, the socket could become theirs.
fn check_folder(path: &Path) -> Result<(), ServeError> {
    let refused = |reason: String| ServeError::File { path: path.to_owned(), reason };
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let metadata = fs::metadata(folder)
        .map_err(|error| refused(format!("its folder cannot be looked at: {error}; make it, or give another path")))?;
    let mode = metadata.mode();
    let owners = [0, rustix::process::geteuid().as_raw()];
    if !metadata.is_dir() || !owners.contains(&metadata.uid()) || mode & 0o022 != 0 && mode & 0o1000 == 0 {
        let mode = mode & 0o7777;
        return Err(refused(format!(
            "its folder (mode {mode:o}) is open to others; give one that you own and only you can write to"
        )));
    }
    Ok(())
}

/// What is there already may be a socket that was left behind, and nothing else.
fn check_place(path: &Path) -> Result<(), ServeError> {
    let refused = |reason: &str| ServeError::File { path: path.to_owned(), reason: reason.to_owned() };
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(refused("there is something else under this name; give another one"));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Ok(_) => Err(refused("somebody answers on this socket; stop them or give another name")),
        Err(_) => Err(refused("there is a socket that belongs to somebody else; give another name")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn private_folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn a_socket_is_its_owners_alone_and_goes_with_its_server() {
        let folder = private_folder();
        let path = folder.path().join("serve.sock");
        let endpoint = UnixEndpoint::bind(&path).unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(UnixStream::connect(endpoint.path()).is_ok());
        assert!(UnixEndpoint::bind(&path).unwrap_err().to_string().contains("somebody answers"));
        drop(endpoint);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_that_was_left_behind_is_replaced_and_nothing_else_is() {
        let folder = private_folder();
        let path = folder.path().join("serve.sock");
        drop(UnixListener::bind(&path).unwrap());
        let first = UnixEndpoint::bind(&path).unwrap();
        // Somebody puts a socket of their own in its place; it outlives ours.
        fs::remove_file(&path).unwrap();
        let other = UnixListener::bind(&path).unwrap();
        drop(first);
        assert!(path.exists());
        drop(other);
        let file = folder.path().join("notes.txt");
        fs::File::create_new(&file).unwrap();
        assert!(UnixEndpoint::bind(&file).is_err());
        assert!(file.exists());
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_refused() {
        let folder = private_folder();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        assert!(UnixEndpoint::bind(&folder.path().join("serve.sock")).is_err());
        assert!(UnixEndpoint::bind(&folder.path().join("absent/serve.sock")).is_err());
    }

    #[test]
    fn threads_share_an_address() {
        let listeners = tcp(([127, 0, 0, 1], 0).into(), 3).unwrap();
        let ports: Vec<u16> = listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        assert!(ports.iter().all(|port| *port == ports[0]) && ports[0] > 0);
        for threads in [1, 3] {
            let second = tcp(([127, 0, 0, 1], ports[0]).into(), threads);
            assert!(matches!(second, Err(ServeError::Listen { .. })), "another server with {threads} threads");
        }
    }
}
