// SPDX-License-Identifier: Apache-2.0
use crate::error::{check, check_length, Error, Status};
use crate::options::enumeration;
use crate::sys;
use std::ffi::CString;
use std::fmt;
use std::mem::{size_of, MaybeUninit};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{self, NonNull};

enumeration! {
    /// How frequencies are estimated.
    FrequencyMethod {
        /// From the steps between batches that have the item: the probability that a batch has it. Follows items whose
        /// frequency changes.
        #[default]
        Streaming = NEGCOS_FREQUENCY_STREAMING,
        /// A count-min sketch: the item's share of all ids so far, never below the true one.
        CountMin = NEGCOS_FREQUENCY_COUNT_MIN,
    }
}

/// Options of a [`Frequency`], from [`Frequency::builder`].
#[derive(Debug, Clone, Copy)]
pub struct FrequencyBuilder(sys::negcos_frequency_options);

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty => $value:expr;)*) => { $(
        $(#[$doc])*
        pub fn $name(mut self, $name: $type) -> Self {
            self.0.$name = $value;
            self
        }
    )* };
}

impl FrequencyBuilder {
    // Numbers that C's type does not hold become its largest, which is out of range too.
    setters! {
        /// [`FrequencyMethod::Streaming`].
        method: FrequencyMethod => method as i32;
        /// Hashes per item, in [1, 64]; 4.
        hashes: u32 => i32::try_from(hashes).unwrap_or(i32::MAX);
        /// Buckets of each hash, in [1, 2^32]; 2^20. They take hashes · buckets · 16 bytes, with
        /// [`CountMin`](FrequencyMethod::CountMin) 8.
        buckets: u64 => i64::try_from(buckets).unwrap_or(i64::MAX);
        /// In (0, 1], [`Streaming`](FrequencyMethod::Streaming) only: the weight of an item's latest gap; 0.01.
        learning_rate: f64 => learning_rate;
        /// [`Streaming`](FrequencyMethod::Streaming) only: where averages begin, in [1, 2^53]; 0, with an item's first
        /// gap.
        initial_gap: f64 => initial_gap;
        /// Of the hashes; 0.
        seed: u64 => seed;
    }

    /// Creates an estimator that has seen nothing.
    ///
    /// # Errors
    /// [`Value`](Status::Value), [`Unsupported`](Status::Unsupported) (`learning_rate` or `initial_gap` with
    /// [`CountMin`](FrequencyMethod::CountMin)), [`UnsupportedIsa`](Status::UnsupportedIsa) (`NEGCOS_ISA` in the
    /// environment), [`OutOfMemory`](Status::OutOfMemory).
    pub fn build(self) -> Result<Frequency, Error> {
        let mut raw = ptr::null_mut();
        // SAFETY: both live through the call.
        check(unsafe { sys::negcos_frequency_create(&self.0, &mut raw) })?;
        Ok(Frequency::own(raw))
    }
}

/// How often is an item a candidate? An estimator of log Q, for [`Batch::log_probability`](crate::Batch::log_probability),
/// in memory that does not grow with the number of items: item ids in, one batch a training step, log-probabilities
/// out.
///
/// ```
/// # fn main() -> Result<(), negcos::Error> {
/// let mut frequency = negcos::Frequency::builder().buckets(1 << 12).build()?;
/// let item_ids = [7, 7, 12, 5];
/// let mut log_probability = [0.0; 4];
/// frequency.update(&item_ids)?; // once a step
/// frequency.log_probability(&item_ids, &mut log_probability)?;
/// # Ok(())
/// # }
/// ```
///
/// Any number of threads may read one at once.
pub struct Frequency {
    raw: NonNull<sys::negcos_frequency>,
}

// SAFETY: it is bound to no thread, and what takes `&self` leaves it as it is.
unsafe impl Send for Frequency {}
unsafe impl Sync for Frequency {}

impl fmt::Debug for Frequency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frequency").finish_non_exhaustive()
    }
}

impl Frequency {
    /// An estimator with the defaults.
    ///
    /// # Errors
    /// As [`FrequencyBuilder::build`].
    pub fn new() -> Result<Frequency, Error> {
        Frequency::builder().build()
    }

    /// The defaults, to be changed.
    pub fn builder() -> FrequencyBuilder {
        // SAFETY: the library fills the struct.
        unsafe {
            let mut options = MaybeUninit::<sys::negcos_frequency_options>::zeroed();
            sys::negcos_frequency_options_init(options.as_mut_ptr(), size_of::<sys::negcos_frequency_options>());
            FrequencyBuilder(options.assume_init())
        }
    }

    fn own(raw: *mut sys::negcos_frequency) -> Frequency {
        Frequency { raw: NonNull::new(raw).expect("an estimator") }
    }

    /// Counts a batch: ids of items, any numbers, in any order. One call is one training step, without ids one without
    /// items. Allocates nothing.
    ///
    /// # Errors
    /// [`Value`](Status::Value) after 2^53 steps (with [`CountMin`](FrequencyMethod::CountMin) ids); nothing was
    /// counted.
    pub fn update(&mut self, ids: &[i64]) -> Result<(), Error> {
        // SAFETY: a slice, and nobody else uses the estimator.
        check(unsafe { sys::negcos_frequency_update(self.raw.as_ptr(), ids.as_ptr(), ids.len() as i64) })
    }

    /// The log of the estimate for each id: natural, finite and at most 0. An item never seen gets what it would have
    /// if the next step, or draw, were its first. Allocates nothing.
    ///
    /// # Errors
    /// [`Shape`](Status::Shape) when `log_probability` is not as long as `ids`.
    pub fn log_probability(&self, ids: &[i64], log_probability: &mut [f64]) -> Result<(), Error> {
        check_length("log_probability", log_probability.len(), ids.len(), "one for each id")?;
        // SAFETY: slices of one length.
        check(unsafe {
            sys::negcos_frequency_log_probability(
                self.raw.as_ptr(),
                ids.as_ptr(),
                ids.len() as i64,
                log_probability.as_mut_ptr(),
            )
        })
    }

    /// Saves everything, options included, to be loaded on any machine. Whatever interrupts it, at `path` is the old
    /// file or the new one.
    ///
    /// # Errors
    /// [`Io`](Status::Io), [`OutOfMemory`](Status::OutOfMemory).
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = c_path(path.as_ref())?;
        // SAFETY: both live through the call.
        check(unsafe { sys::negcos_frequency_save(self.raw.as_ptr(), path.as_ptr()) })
    }

    /// Loads what [`save`](Frequency::save) saved; it goes on as the saved one would have.
    ///
    /// # Errors
    /// [`Io`](Status::Io), [`UnsupportedIsa`](Status::UnsupportedIsa), [`OutOfMemory`](Status::OutOfMemory).
    pub fn load(path: impl AsRef<Path>) -> Result<Frequency, Error> {
        let path = c_path(path.as_ref())?;
        let mut raw = ptr::null_mut();
        // SAFETY: both live through the call.
        check(unsafe { sys::negcos_frequency_load(path.as_ptr(), &mut raw) })?;
        Ok(Frequency::own(raw))
    }
}

impl Drop for Frequency {
    fn drop(&mut self) {
        // SAFETY: ours, and no call is running.
        unsafe { sys::negcos_frequency_destroy(self.raw.as_ptr()) }
    }
}

fn c_path(path: &Path) -> Result<CString, Error> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::new(Status::Io, format!("path is {path:?}, expected no byte 0 in it")))
}
