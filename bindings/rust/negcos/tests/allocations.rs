// SPDX-License-Identifier: Apache-2.0
//
// A call allocates nothing once its context is warm: neither Rust, whose allocator is counted here, nor, with the GNU C
// library, the library's C++, whose malloc is counted too. Each thread counts its own: the test harness has others.
#![allow(clippy::declare_interior_mutable_const)] // a false alarm of 1.63 in thread_local

use negcos::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static RUST: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    RUST.with(|count| count.set(count.get() + 1));
}

struct Counting;

// SAFETY: the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        System.alloc(layout)
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        System.dealloc(pointer, layout)
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        System.realloc(pointer, layout, size)
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Takes the place of the C library's functions, for every library of the process.
#[cfg(target_env = "gnu")]
mod interposed {
    use std::cell::Cell;
    use std::os::raw::{c_int, c_void};

    thread_local! {
        pub static C: Cell<usize> = const { Cell::new(0) };
    }

    extern "C" {
        fn __libc_malloc(size: usize) -> *mut c_void;
        fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
        fn __libc_realloc(pointer: *mut c_void, size: usize) -> *mut c_void;
        fn __libc_memalign(alignment: usize, size: usize) -> *mut c_void;
    }

    fn count() {
        C.with(|count| count.set(count.get() + 1));
    }

    #[no_mangle]
    unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
        count();
        __libc_malloc(size)
    }

    #[no_mangle]
    unsafe extern "C" fn calloc(number: usize, size: usize) -> *mut c_void {
        count();
        __libc_calloc(number, size)
    }

    #[no_mangle]
    unsafe extern "C" fn realloc(pointer: *mut c_void, size: usize) -> *mut c_void {
        count();
        __libc_realloc(pointer, size)
    }

    #[no_mangle]
    unsafe extern "C" fn aligned_alloc(alignment: usize, size: usize) -> *mut c_void {
        count();
        __libc_memalign(alignment, size)
    }

    #[no_mangle]
    unsafe extern "C" fn posix_memalign(pointer: *mut *mut c_void, alignment: usize, size: usize) -> c_int {
        count();
        *pointer = __libc_memalign(alignment, size);
        if (*pointer).is_null() {
            12 // ENOMEM
        } else {
            0
        }
    }
}

/// What this thread has allocated so far, by Rust and through C.
fn allocations() -> (usize, usize) {
    #[cfg(target_env = "gnu")]
    let c = interposed::C.with(|count| count.get());
    #[cfg(not(target_env = "gnu"))]
    let c = 0;
    (RUST.with(|count| count.get()), c)
}

const BATCH: usize = 300;
const DIM: usize = 48;
const ROUNDS: usize = 3;

struct Buffers {
    queries: Vec<f32>,
    documents: Vec<f32>,
    hard_negatives: Vec<f32>,
    ids: Vec<i64>,
    log_probability: Vec<f64>,
    grad_queries: Vec<f32>,
    grad_documents: Vec<f32>,
    grad_hard_negatives: Vec<f32>,
    losses: Vec<f32>,
    negatives: Vec<i32>,
}

impl Buffers {
    fn new() -> Self {
        let rows = |salt: usize| (0..BATCH * DIM).map(|k| ((k * 31 + salt) % 41) as f32 - 20.0).collect();
        Buffers {
            queries: rows(1),
            documents: rows(2),
            hard_negatives: rows(3),
            ids: (0..BATCH as i64).map(|i| i % 50).collect(),
            log_probability: vec![0.0; BATCH],
            grad_queries: rows(0),
            grad_documents: rows(0),
            grad_hard_negatives: rows(0),
            losses: vec![0.0; BATCH],
            negatives: vec![0; BATCH * ROUNDS],
        }
    }
}

/// A training step with everything that a binding hands over.
fn step(context: &mut Context, frequency: &mut Frequency, buffers: &mut Buffers, step: u64) -> Result<f64, Error> {
    let b = buffers;
    frequency.update(&b.ids)?;
    frequency.log_probability(&b.ids, &mut b.log_probability)?;
    let dims = [16, DIM as i32];
    let options = Options::new().rounds(ROUNDS as u32).step(step).exclude(Exclude::SAME_DOCUMENT_ID).prefix_dims(&dims);
    context.sample(&options, BATCH, BATCH, &mut b.negatives)?;
    let batch = Batch::new(Matrix::new(&b.queries, BATCH, DIM)?, Matrix::new(&b.documents, BATCH, DIM)?)
        .hard_negatives(Matrix::new(&b.hard_negatives, BATCH, DIM)?)
        .document_ids(&b.ids)
        .log_probability(&b.log_probability);
    let outputs = Outputs::new()
        .grad_queries(MatrixMut::new(&mut b.grad_queries, BATCH, DIM)?)
        .grad_documents(MatrixMut::new(&mut b.grad_documents, BATCH, DIM)?)
        .grad_hard_negatives(MatrixMut::new(&mut b.grad_hard_negatives, BATCH, DIM)?)
        .losses(&mut b.losses)
        .negatives(&mut b.negatives);
    Ok(context.evaluate(&options, &batch, outputs)?.loss)
}

#[test]
fn a_warm_context_allocates_nothing() {
    let mut frequency = Frequency::builder().buckets(1 << 10).build().unwrap();
    let mut buffers = Buffers::new();
    let contexts = [
        Context::builder().threading(Threading::Serial),
        Context::builder().threads(2).parallel_for(|tasks| tasks.run()),
        Context::builder().threads(2),
    ];
    for (index, builder) in contexts.into_iter().enumerate() {
        let mut context = builder.build().unwrap();
        let cold = allocations();
        step(&mut context, &mut frequency, &mut buffers, 0).unwrap();
        let warm = allocations();
        if cfg!(target_env = "gnu") {
            assert!(warm.1 > cold.1, "the first call allocates, or nothing is counted");
        }
        assert_eq!(warm.0, cold.0, "Rust allocates in the first call");

        for number in 1..20 {
            step(&mut context, &mut frequency, &mut buffers, number).unwrap();
        }
        let after = allocations();
        assert_eq!(after.0, warm.0, "Rust allocates in a call, context {index}");
        // The first two run in this thread alone. oneTBB has memory of its own; there only this crate is judged.
        if index < 2 {
            assert_eq!(after.1, warm.1, "the library allocates in a call, context {index}");
        }
    }
}
