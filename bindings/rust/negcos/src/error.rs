// SPDX-License-Identifier: Apache-2.0
use crate::sys;
use std::ffi::CStr;
use std::fmt;

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $code:ident,)*) => {
        /// What kind of failure an [`Error`] is: the statuses of `negcos.h`.
        #[non_exhaustive]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(i32)]
        pub enum Status {
            $($(#[$doc])* $name = sys::$code,)*
            /// One that only a newer library knows; the message says more.
            Unknown = -1,
        }

        impl Status {
            pub(crate) fn of(code: i32) -> Status {
                match code {
                    $(sys::$code => Status::$name,)*
                    _ => Status::Unknown,
                }
            }
        }
    };
}
statuses! {
    /// An argument that is needed was not given.
    NullArgument = NEGCOS_STATUS_NULL_ARGUMENT,
    /// Rows, columns, strides or lengths do not fit.
    Shape = NEGCOS_STATUS_SHAPE,
    /// An element type differs from the queries'. The types of this crate rule it out.
    Dtype = NEGCOS_STATUS_DTYPE,
    /// An option or an index is out of its range.
    Value = NEGCOS_STATUS_VALUE,
    /// An output overlaps an input or another output. Borrowing rules it out.
    Overlap = NEGCOS_STATUS_OVERLAP,
    /// The library is older than this crate, and an option was used that it does not know.
    StructSize = NEGCOS_STATUS_STRUCT_SIZE,
    /// Out of memory.
    OutOfMemory = NEGCOS_STATUS_OUT_OF_MEMORY,
    /// The call needs more than [`ContextBuilder::workspace_limit`](crate::ContextBuilder::workspace_limit).
    WorkspaceLimit = NEGCOS_STATUS_WORKSPACE_LIMIT,
    /// The threading back end failed.
    Threads = NEGCOS_STATUS_THREADS,
    /// An instruction set that is not built in, or that this machine cannot run.
    UnsupportedIsa = NEGCOS_STATUS_UNSUPPORTED_ISA,
    /// Two options that exclude each other, or threads that are not built in.
    Unsupported = NEGCOS_STATUS_UNSUPPORTED,
    /// A file cannot be read or written, or is not what it should be.
    Io = NEGCOS_STATUS_IO,
    /// A bug in the library; please report it.
    Internal = NEGCOS_STATUS_INTERNAL,
}

/// A call that failed. No output was written.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What kind of failure it is.
    pub status: Status,
    /// A sentence that says which argument it was about, what it was and what was expected.
    pub message: String,
}

impl Error {
    pub(crate) fn new(status: Status, message: String) -> Error {
        Error { status, message }
    }

    pub(crate) fn shape(message: String) -> Error {
        Error::new(Status::Shape, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// A status of the C interface as a result; to be called in the thread of the call that returned it.
pub(crate) fn check(status: i32) -> Result<(), Error> {
    if status == sys::NEGCOS_STATUS_OK {
        return Ok(());
    }
    // SAFETY: never NULL, and valid until this thread's next failure.
    let message = unsafe { CStr::from_ptr(sys::negcos_last_error()) };
    Err(Error::new(Status::of(status), message.to_string_lossy().into_owned()))
}

/// An array that goes with a batch: its length is known here alone, C sees a pointer.
pub(crate) fn check_length(name: &str, length: usize, expected: usize, of: &str) -> Result<(), Error> {
    if length == expected {
        return Ok(());
    }
    Err(Error::shape(format!("{name} has {length} elements, expected {expected}, {of}")))
}
