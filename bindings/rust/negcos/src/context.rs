// SPDX-License-Identifier: Apache-2.0
use crate::call::{Batch, Evaluation, Outputs};
use crate::element::Element;
use crate::error::{check, check_length, Error, Status};
use crate::options::{enumeration, Options};
use crate::sys;
use std::any::Any;
use std::ffi::{CStr, CString};
use std::fmt;
use std::mem::{size_of, MaybeUninit};
use std::os::raw::c_void;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

enumeration! {
    /// What runs the library's tasks, unless [`ContextBuilder::parallel_for`] does.
    Threading {
        /// oneTBB where it is built in, then OpenMP, then the calling thread.
        #[default]
        Default = NEGCOS_THREADING_DEFAULT,
        /// The calling thread alone.
        Serial = NEGCOS_THREADING_SERIAL,
        /// oneTBB.
        Tbb = NEGCOS_THREADING_TBB,
        /// OpenMP.
        OpenMp = NEGCOS_THREADING_OPENMP,
    }
}

/// The tasks of one phase of a call, to be run by [`ContextBuilder::parallel_for`] on any threads.
#[derive(Debug)]
pub struct Tasks {
    body: unsafe extern "C" fn(*mut c_void, i64),
    task: *mut c_void,
    count: i64,
    next: AtomicI64,
}

// SAFETY: the library's tasks may run on any thread, and the counter hands out each of them once.
unsafe impl Sync for Tasks {}

impl Tasks {
    /// How many there are, which is as many threads as have anything to do.
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// Runs tasks that no thread has begun, until none is left. To be called on as many threads as shall take part.
    pub fn run(&self) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= self.count {
                return;
            }
            // SAFETY: once for each index, and before parallel_for returns, as `self` is borrowed for no longer.
            unsafe { (self.body)(self.task, index) }
        }
    }
}

type ParallelFor = dyn Fn(&Tasks) + Send + Sync;

/// The caller's closure, and what it panicked with.
struct Callback {
    run: Box<ParallelFor>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Callback {
    fn panic(&self) -> std::sync::MutexGuard<'_, Option<Box<dyn Any + Send>>> {
        self.panic.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// # Safety
/// As `negcos_parallel_for_fn`; `data` is a [`Callback`].
unsafe extern "C" fn parallel_for(
    data: *mut c_void,
    count: i64,
    body: unsafe extern "C" fn(*mut c_void, i64),
    task: *mut c_void,
) -> i32 {
    let callback = &*(data as *const Callback);
    let tasks = Tasks { body, task, count, next: AtomicI64::new(0) };
    // Nothing unwinds into C: the panic goes on when the call has returned.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        (callback.run)(&tasks);
        tasks.run(); // what the closure has left
    }));
    match outcome {
        Ok(()) => 0,
        Err(payload) => {
            *callback.panic() = Some(payload);
            1
        }
    }
}

/// Threads, instruction set and limits of a [`Context`], from [`Context::builder`].
pub struct ContextBuilder {
    threads: u32,
    threading: Threading,
    isa: Option<String>,
    parallel_for: Option<Box<ParallelFor>>,
    workspace_limit: u64,
}

impl fmt::Debug for ContextBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContextBuilder")
            .field("threads", &self.threads)
            .field("threading", &self.threading)
            .field("isa", &self.isa)
            .field("parallel_for", &self.parallel_for.is_some())
            .field("workspace_limit", &self.workspace_limit)
            .finish()
    }
}

impl ContextBuilder {
    /// Threads that a call may use; 0, as many as the CPUs that the calling thread may use, capped by `NEGCOS_THREADS` in
    /// the environment or, without it, by the container's quota and `OMP_NUM_THREADS`.
    pub fn threads(mut self, threads: u32) -> Self {
        self.threads = threads;
        self
    }

    /// What runs the tasks; [`Threading::Default`]. Takes the place of an earlier `parallel_for`.
    pub fn threading(mut self, threading: Threading) -> Self {
        self.threading = threading;
        self.parallel_for = None;
        self
    }

    /// The caller's own threads: the closure calls [`Tasks::run`] on as many of them as it likes, and returns when
    /// they are done. Whatever it leaves runs in the calling thread. Takes the place of an earlier `threading`.
    ///
    /// When it panics, the call is given up, no output is written, and the panic goes on in the caller of
    /// [`Context::evaluate`] or [`Context::sample`]; the context stays usable.
    ///
    /// ```
    /// # fn main() -> Result<(), negcos::Error> {
    /// let context = negcos::Context::builder()
    ///     .threads(4)
    ///     .parallel_for(|tasks| {
    ///         std::thread::scope(|scope| {
    ///             for _ in 1..tasks.count() {
    ///                 scope.spawn(|| tasks.run());
    ///             }
    ///             tasks.run();
    ///         })
    ///     })
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn parallel_for(mut self, parallel_for: impl Fn(&Tasks) + Send + Sync + 'static) -> Self {
        self.parallel_for = Some(Box::new(parallel_for));
        self
    }

    /// The instruction set, one of [`isas`](crate::isas); the best one (`NEGCOS_ISA` in the environment caps that).
    pub fn isa(mut self, isa: impl Into<String>) -> Self {
        self.isa = Some(isa.into());
        self
    }

    /// Bytes that a call may use beyond inputs and outputs; 0, no limit.
    pub fn workspace_limit(mut self, workspace_limit: u64) -> Self {
        self.workspace_limit = workspace_limit;
        self
    }

    /// Creates the context.
    ///
    /// # Errors
    /// [`Value`](Status::Value) (threads, `NEGCOS_THREADS`), [`UnsupportedIsa`](Status::UnsupportedIsa),
    /// [`Unsupported`](Status::Unsupported) (threads that are not built in), [`OutOfMemory`](Status::OutOfMemory),
    /// [`Threads`](Status::Threads).
    pub fn build(self) -> Result<Context, Error> {
        let isa = match self.isa {
            None => None,
            Some(name) => Some(CString::new(name).map_err(|error| {
                let name = error.into_vec();
                let name = String::from_utf8_lossy(&name);
                Error::new(Status::UnsupportedIsa, format!("options.isa is {name:?}, expected one of isas()"))
            })?),
        };
        let callback = self.parallel_for.map(|run| Arc::new(Callback { run, panic: Mutex::new(None) }));
        let mut raw = ptr::null_mut();
        // SAFETY: the library fills the struct; the pointers live through the call, and the callback as long as the
        // context, which owns a share of it.
        unsafe {
            let mut options = MaybeUninit::<sys::negcos_context_options>::zeroed();
            sys::negcos_context_options_init(options.as_mut_ptr(), size_of::<sys::negcos_context_options>());
            let mut options = options.assume_init();
            options.threads = i32::try_from(self.threads).unwrap_or(i32::MAX); // more than it accepts
            options.threading = self.threading as i32;
            options.isa = isa.as_ref().map_or(ptr::null(), |name| name.as_ptr());
            options.workspace_limit = self.workspace_limit;
            if let Some(callback) = &callback {
                options.threading = sys::NEGCOS_THREADING_CALLBACK;
                options.parallel_for = Some(parallel_for);
                options.parallel_for_data = Arc::as_ptr(callback) as *mut c_void;
            }
            check(sys::negcos_context_create(&options, &mut raw))?;
        }
        Ok(Context { raw: NonNull::new(raw).expect("a context"), callback })
    }
}

/// Threads, a set of kernels and a workspace, in which calls run.
///
/// One thread at a time: calls take `&mut self`, a context can be sent to another thread, and not be shared. Each
/// thread has its own, or they take turns by a `Mutex`.
///
/// ```compile_fail,E0277
/// fn shared<T: Sync>() {}
/// shared::<negcos::Context>();
/// ```
pub struct Context {
    raw: NonNull<sys::negcos_context>,
    callback: Option<Arc<Callback>>,
}

// SAFETY: a context is bound to no thread, and the callback is Send and Sync.
unsafe impl Send for Context {}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("isa", &self.isa())
            .field("threads", &self.threads())
            .field("parallel_for", &self.callback.is_some())
            .finish()
    }
}

impl Context {
    /// A context with the defaults.
    ///
    /// # Errors
    /// As [`ContextBuilder::build`].
    pub fn new() -> Result<Context, Error> {
        Context::builder().build()
    }

    /// The defaults, to be changed.
    pub fn builder() -> ContextBuilder {
        ContextBuilder { threads: 0, threading: Threading::Default, isa: None, parallel_for: None, workspace_limit: 0 }
    }

    /// The instruction set in force.
    pub fn isa(&self) -> &'static str {
        // SAFETY: static text.
        unsafe { CStr::from_ptr(sys::negcos_context_isa(self.raw.as_ptr())) }.to_str().expect("a name in ASCII")
    }

    /// The number of threads that a call may use.
    pub fn threads(&self) -> usize {
        // SAFETY: the context lives.
        unsafe { sys::negcos_context_threads(self.raw.as_ptr()) as usize }
    }

    /// The loss of a batch, and every array in `outputs`. After the first call of a shape it allocates nothing.
    ///
    /// Outputs overlap nothing, as they are borrowed mutably:
    ///
    /// ```compile_fail,E0502
    /// use negcos::{Batch, Context, Matrix, MatrixMut, Options, Outputs};
    /// let mut queries = vec![1.0_f32; 8];
    /// let documents = vec![1.0_f32; 8];
    /// let batch = Batch::new(Matrix::new(&queries, 4, 2).unwrap(), Matrix::new(&documents, 4, 2).unwrap());
    /// let outputs = Outputs::new().grad_queries(MatrixMut::new(&mut queries, 4, 2).unwrap());
    /// Context::new().unwrap().evaluate(&Options::new(), &batch, outputs);
    /// ```
    ///
    /// # Errors
    /// Any but [`UnsupportedIsa`](Status::UnsupportedIsa) and [`Io`](Status::Io); nothing was written then.
    ///
    /// # Panics
    /// With the panic of the caller's [`parallel_for`](ContextBuilder::parallel_for).
    pub fn evaluate<T: Element>(
        &mut self,
        options: &Options<'_>,
        batch: &Batch<'_, T>,
        mut outputs: Outputs<'_, T>,
    ) -> Result<Evaluation, Error> {
        let raw_options = options.raw()?;
        let raw_batch = batch.raw(options)?;
        let mut raw_result = outputs.raw(batch, options)?;
        // SAFETY: all of it is borrowed through the call, and lengths that C cannot see have been checked.
        let status = unsafe { sys::negcos_evaluate(self.raw.as_ptr(), &raw_options, &raw_batch, &mut raw_result) };
        self.check(status)?;
        Ok(Evaluation::of(&raw_result))
    }

    /// The negatives alone: those that [`evaluate`](Context::evaluate) would use for `batch` queries, whose positives
    /// are the first rows, and `documents` documents. `negatives`: `batch` x rounds.
    ///
    /// # Errors
    /// [`Shape`](Status::Shape), [`Value`](Status::Value) ([`Given`](crate::Sampling::Given) and
    /// [`All`](crate::Sampling::All) draw nothing), [`OutOfMemory`](Status::OutOfMemory),
    /// [`WorkspaceLimit`](Status::WorkspaceLimit), [`Threads`](Status::Threads), [`Unsupported`](Status::Unsupported).
    ///
    /// # Panics
    /// As [`evaluate`](Context::evaluate).
    pub fn sample(
        &mut self,
        options: &Options<'_>,
        batch: usize,
        documents: usize,
        negatives: &mut [i32],
    ) -> Result<(), Error> {
        let raw_options = options.raw()?;
        let count = batch.saturating_mul(options.rounds_count());
        check_length("negatives", negatives.len(), count, "batch x rounds")?;
        let size = |count: usize| i64::try_from(count).unwrap_or(i64::MAX); // more than it accepts
                                                                            // SAFETY: as in evaluate.
        let status = unsafe {
            sys::negcos_sample(self.raw.as_ptr(), &raw_options, size(batch), size(documents), negatives.as_mut_ptr())
        };
        self.check(status)
    }

    fn check(&self, status: i32) -> Result<(), Error> {
        if let Some(payload) = self.callback.as_ref().and_then(|callback| callback.panic().take()) {
            resume_unwind(payload);
        }
        check(status)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: ours, and no call is running.
        unsafe { sys::negcos_context_destroy(self.raw.as_ptr()) }
    }
}
