//! [`SharedFile`]: an object of POSIX shared memory.

/// An open object of POSIX shared memory, which is never mapped: its owner can truncate it at any time, and reading a
/// mapping beyond the end would then kill the process.
#[cfg(all(feature = "hyper", target_os = "linux"))]
mod linux {
    use std::fs::File;
    use std::io;
    use std::os::unix::fs::FileExt;
    use std::path::Path;

    use rustix::fs::{Mode, OFlags, open};
    use rustix::process::{Resource, getrlimit};

    /// Where the C library has the objects of `shm_open`.
    const DIRECTORY: &str = "/dev/shm";

    #[derive(Debug)]
    pub(in super::super) struct SharedFile(File);

    impl SharedFile {
        /// Opens the object with this name, which is one component of a path.
        pub(in super::super) fn open(name: &str) -> io::Result<Self> {
            // `NONBLOCK`, so that a FIFO or a device of this name does not block. It has no effect on regular files.
            let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            let file = File::from(open(Path::new(DIRECTORY).join(name), flags, Mode::empty())?);
            if file.metadata()?.is_file() {
                Ok(Self(file))
            } else {
                Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"))
            }
        }

        /// Returns its length, which its owner can change at any time, up to the limit on files of this process: a write
        /// beyond that would send `SIGXFSZ`, which ends the process.
        pub(in super::super) fn length(&self) -> io::Result<u64> {
            let limit = getrlimit(Resource::Fsize).current.unwrap_or(u64::MAX);
            Ok(self.0.metadata()?.len().min(limit))
        }

        /// Fills `data` from this position on.
        ///
        /// # Errors
        /// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) if the object ends before.
        pub(in super::super) fn read(&self, data: &mut [u8], position: u64) -> io::Result<()> {
            self.0.read_exact_at(data, position)
        }

        pub(in super::super) fn write(&self, data: &[u8], position: u64) -> io::Result<()> {
            self.0.write_all_at(data, position)
        }
    }
}

/// Without the server that knows the addresses of clients, and elsewhere than on Linux, no region can be registered.
#[cfg(not(all(feature = "hyper", target_os = "linux")))]
mod none {
    use std::io;

    #[derive(Debug)]
    pub(in super::super) enum SharedFile {}

    impl SharedFile {
        pub(in super::super) fn open(_: &str) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(in super::super) fn length(&self) -> io::Result<u64> {
            match *self {}
        }

        pub(in super::super) fn read(&self, _: &mut [u8], _: u64) -> io::Result<()> {
            match *self {}
        }

        pub(in super::super) fn write(&self, _: &[u8], _: u64) -> io::Result<()> {
            match *self {}
        }
    }
}

#[cfg(all(feature = "hyper", target_os = "linux"))]
pub(super) use self::linux::SharedFile;
#[cfg(not(all(feature = "hyper", target_os = "linux")))]
pub(super) use self::none::SharedFile;
