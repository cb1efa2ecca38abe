//! What went wrong: a status a program can switch on, an errno where the system gave one, a sentence for a person.

use std::borrow::Cow;
use std::fmt;
use std::io;

/// Every way a call can fail. The numbers are those of the C interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(i32)]
pub enum Status {
    Invalid = -1,
    Timeout = -2,
    End = -3,
    NotFound = -4,
    TooLarge = -5,
    NoSpace = -6,
    NoMemory = -7,
    Io = -8,
    Corrupt = -9,
    Locked = -10,
    Closed = -11,
    Busy = -12,
    ReadOnly = -13,
    Version = -14,
    Unsupported = -15,
    NotDurable = -16,
    Poisoned = -17,
    Panic = -18,
    Forked = -19,
    Reentrant = -20,
}

/// A status, the errno behind it (0 if none), and a sentence that names the argument or the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    status: Status,
    errno: i32,
    message: Cow<'static, str>,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(status: Status, message: impl Into<Cow<'static, str>>) -> Error {
        Error { status, errno: 0, message: message.into() }
    }

    /// A failed system call; `what` says what was being done, and to which file.
    pub fn system(what: impl fmt::Display, cause: io::Error) -> Error {
        let errno = cause.raw_os_error().unwrap_or(0);
        let status = match errno {
            libc::ENOSPC | libc::EDQUOT | libc::EFBIG => Status::NoSpace,
            libc::ENOMEM => Status::NoMemory,
            libc::ENOENT => Status::NotFound,
            libc::EOPNOTSUPP => Status::Unsupported,
            _ => Status::Io,
        };
        Error { status, errno, message: format!("{what}: {cause}").into() }
    }

    pub fn status(&self) -> Status {
        self.status
    }

    pub fn errno(&self) -> i32 {
        self.errno
    }

    /// A file could not be opened: nothing was written, synced or lost.
    pub(crate) fn is_want_of_descriptors(&self) -> bool {
        matches!(self.errno, libc::EMFILE | libc::ENFILE)
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn closed() -> Error {
        Error::new(Status::Closed, "the queue is closed")
    }

    /// What kept a record from being durable that is appended all the same.
    pub(crate) fn not_durable(self) -> Error {
        let message = format!("appended, but not known to be durable: {}", self.message);
        Error { status: Status::NotDurable, message: message.into(), ..self }
    }

    pub(crate) fn with_status(self, status: Status) -> Error {
        Error { status, ..self }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
