// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]
#![warn(missing_docs, missing_debug_implementations)]

use negcos_sys as sys;
use std::ffi::{CStr, CString};

#[cfg(feature = "ndarray")]
mod arrays;
mod call;
mod context;
mod element;
mod error;
mod frequency;
mod matrix;
mod options;

pub use call::{Batch, Evaluation, Outputs};
pub use context::{Context, ContextBuilder, Tasks, Threading};
pub use element::{Bf16, Element, F16};
pub use error::{Error, Status};
pub use frequency::{Frequency, FrequencyBuilder, FrequencyMethod};
pub use matrix::{Matrix, MatrixMut};
pub use options::{Correction, Direction, Exclude, Objective, Options, Reduction, Sampling, Similarity};

/// The version of the library: major, minor, patch.
pub fn version() -> (u32, u32, u32) {
    // SAFETY: no arguments.
    let version = unsafe { sys::negcos_version() };
    (version >> 16, version >> 8 & 0xff, version & 0xff)
}

/// The instruction sets built into the library, best first.
pub fn isas() -> impl Iterator<Item = &'static str> {
    // SAFETY: an index in range gives static text.
    unsafe {
        (0..sys::negcos_isa_count())
            .map(|index| CStr::from_ptr(sys::negcos_isa_name(index)).to_str().expect("a name in ASCII"))
    }
}

/// Whether an instruction set is built in and can run here.
pub fn isa_available(isa: &str) -> bool {
    // SAFETY: a string that lives through the call.
    CString::new(isa).map_or(false, |isa| unsafe { sys::negcos_isa_available(isa.as_ptr()) == 1 })
}
