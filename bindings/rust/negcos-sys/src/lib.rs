// SPDX-License-Identifier: Apache-2.0
//! The C interface of [negcos](https://crates.io/crates/negcos) as it stands in `negcos.h`, which says what each
//! function, field and number means. The crate `negcos` is the safe layer over it.
//!
//! The build script looks for an installed library with `pkg-config`; where there is none, or with
//! `NEGCOS_SYS_SOURCE=1` in the environment, it builds the library's sources with meson and links it statically. It
//! never uses the network. See the README for what a build from source needs.
#![allow(non_camel_case_types)]

use std::os::raw::{c_char, c_void};

pub const NEGCOS_STATUS_OK: i32 = 0;
pub const NEGCOS_STATUS_NULL_ARGUMENT: i32 = 10;
pub const NEGCOS_STATUS_SHAPE: i32 = 11;
pub const NEGCOS_STATUS_DTYPE: i32 = 12;
pub const NEGCOS_STATUS_VALUE: i32 = 13;
pub const NEGCOS_STATUS_OVERLAP: i32 = 14;
pub const NEGCOS_STATUS_STRUCT_SIZE: i32 = 15;
pub const NEGCOS_STATUS_OUT_OF_MEMORY: i32 = 20;
pub const NEGCOS_STATUS_WORKSPACE_LIMIT: i32 = 21;
pub const NEGCOS_STATUS_THREADS: i32 = 22;
pub const NEGCOS_STATUS_UNSUPPORTED_ISA: i32 = 30;
pub const NEGCOS_STATUS_UNSUPPORTED: i32 = 31;
pub const NEGCOS_STATUS_IO: i32 = 40;
pub const NEGCOS_STATUS_INTERNAL: i32 = 90;

pub const NEGCOS_DTYPE_F32: i32 = 0;
pub const NEGCOS_DTYPE_F64: i32 = 1;
pub const NEGCOS_DTYPE_F16: i32 = 2;
pub const NEGCOS_DTYPE_BF16: i32 = 3;

pub const NEGCOS_THREADING_DEFAULT: i32 = 0;
pub const NEGCOS_THREADING_SERIAL: i32 = 1;
pub const NEGCOS_THREADING_TBB: i32 = 2;
pub const NEGCOS_THREADING_OPENMP: i32 = 3;
pub const NEGCOS_THREADING_CALLBACK: i32 = 4;

pub const NEGCOS_OBJECTIVE_SOFTMAX: i32 = 0;
pub const NEGCOS_OBJECTIVE_BATCH_SOFTMAX: i32 = 1;
pub const NEGCOS_OBJECTIVE_SIGMOID: i32 = 2;
pub const NEGCOS_OBJECTIVE_DECOUPLED: i32 = 3;

pub const NEGCOS_SIMILARITY_COSINE: i32 = 0;
pub const NEGCOS_SIMILARITY_DOT: i32 = 1;

pub const NEGCOS_SAMPLING_SHUFFLE: i32 = 0;
pub const NEGCOS_SAMPLING_DERANGEMENT: i32 = 1;
pub const NEGCOS_SAMPLING_CYCLIC: i32 = 2;
pub const NEGCOS_SAMPLING_UNIFORM: i32 = 3;
pub const NEGCOS_SAMPLING_LOG_UNIFORM: i32 = 4;
pub const NEGCOS_SAMPLING_GIVEN: i32 = 5;
pub const NEGCOS_SAMPLING_ALL: i32 = 6;
pub const NEGCOS_SAMPLING_GROUPS: i32 = 8;

pub const NEGCOS_REDUCTION_MEAN: i32 = 0;
pub const NEGCOS_REDUCTION_SUM: i32 = 1;

pub const NEGCOS_DIRECTION_QUERY_TO_DOCUMENT: i32 = 0;
pub const NEGCOS_DIRECTION_BOTH: i32 = 1;

pub const NEGCOS_CORRECTION_ALL_CANDIDATES: i32 = 0;
pub const NEGCOS_CORRECTION_NEGATIVES_ONLY: i32 = 1;

pub const NEGCOS_EXCLUDE_SAME_DOCUMENT_ID: i32 = 1;
pub const NEGCOS_EXCLUDE_SAME_QUERY_ID: i32 = 2;

pub const NEGCOS_FREQUENCY_STREAMING: i32 = 0;
pub const NEGCOS_FREQUENCY_COUNT_MIN: i32 = 1;

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct negcos_const_matrix {
    pub data: *const c_void,
    pub rows: i64,
    pub cols: i64,
    pub row_stride: i64,
    pub dtype: i32,
    pub reserved: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct negcos_matrix {
    pub data: *mut c_void,
    pub rows: i64,
    pub cols: i64,
    pub row_stride: i64,
    pub dtype: i32,
    pub reserved: i32,
}

pub type negcos_parallel_for_fn = unsafe extern "C" fn(
    data: *mut c_void,
    count: i64,
    body: unsafe extern "C" fn(task: *mut c_void, index: i64),
    task: *mut c_void,
) -> i32;

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct negcos_context_options {
    pub struct_size: u32,
    pub threads: i32,
    pub threading: i32,
    pub reserved: i32,
    pub isa: *const c_char,
    pub parallel_for: Option<negcos_parallel_for_fn>,
    pub parallel_for_data: *mut c_void,
    pub workspace_limit: u64,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct negcos_options {
    pub struct_size: u32,
    pub objective: i32,
    pub similarity: i32,
    pub sampling: i32,
    pub rounds: i32,
    pub reduction: i32,
    pub direction: i32,
    pub exclude: i32,
    pub seed: u64,
    pub step: u64,
    pub scale: f64,
    pub temperature: f64,
    pub bias: f64,
    pub norm_floor: f64,
    pub margin: f64,
    pub label_smoothing: f64,
    pub hardness: f64,
    pub false_negative_margin: f64,
    pub correction: i32,
    pub prefix_count: i32,
    pub prefix_dims: *const i32,
    pub prefix_weights: *const f64,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct negcos_batch {
    pub struct_size: u32,
    pub reserved: u32,
    pub queries: negcos_const_matrix,
    pub documents: negcos_const_matrix,
    pub hard_negatives: negcos_const_matrix,
    pub positives: *const i64,
    pub negatives: *const i32,
    pub document_ids: *const i64,
    pub query_ids: *const i64,
    pub log_probability: *const f64,
    pub weights: *const f64,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct negcos_result {
    pub struct_size: u32,
    pub reserved: u32,
    pub loss: f64,
    pub grad_scale: f64,
    pub grad_bias: f64,
    pub accuracy: f64,
    pub mean_reciprocal_rank: f64,
    pub excluded: i64,
    pub zero_rows: i64,
    pub losses: negcos_matrix,
    pub hit_probability: negcos_matrix,
    pub logits: negcos_matrix,
    pub grad_queries: negcos_matrix,
    pub grad_documents: negcos_matrix,
    pub grad_hard_negatives: negcos_matrix,
    pub negatives: *mut i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct negcos_frequency_options {
    pub struct_size: u32,
    pub method: i32,
    pub hashes: i32,
    pub reserved: i32,
    pub buckets: i64,
    pub learning_rate: f64,
    pub initial_gap: f64,
    pub seed: u64,
}

/// Opaque.
#[repr(C)]
pub struct negcos_context {
    _private: [u8; 0],
}

/// Opaque.
#[repr(C)]
pub struct negcos_frequency {
    _private: [u8; 0],
}

extern "C" {
    pub fn negcos_version() -> u32;
    pub fn negcos_status_string(status: i32) -> *const c_char;
    pub fn negcos_last_error() -> *const c_char;

    pub fn negcos_isa_count() -> i32;
    pub fn negcos_isa_name(index: i32) -> *const c_char;
    pub fn negcos_isa_available(isa: *const c_char) -> i32;

    pub fn negcos_context_options_init(options: *mut negcos_context_options, size: usize);
    pub fn negcos_options_init(options: *mut negcos_options, size: usize);
    pub fn negcos_batch_init(batch: *mut negcos_batch, size: usize);
    pub fn negcos_result_init(result: *mut negcos_result, size: usize);

    pub fn negcos_context_create(options: *const negcos_context_options, context: *mut *mut negcos_context) -> i32;
    pub fn negcos_context_destroy(context: *mut negcos_context);
    pub fn negcos_context_isa(context: *const negcos_context) -> *const c_char;
    pub fn negcos_context_threads(context: *const negcos_context) -> i32;

    pub fn negcos_evaluate(
        context: *mut negcos_context,
        options: *const negcos_options,
        batch: *const negcos_batch,
        result: *mut negcos_result,
    ) -> i32;
    pub fn negcos_sample(
        context: *mut negcos_context,
        options: *const negcos_options,
        batch: i64,
        documents: i64,
        negatives: *mut i32,
    ) -> i32;

    pub fn negcos_frequency_options_init(options: *mut negcos_frequency_options, size: usize);
    pub fn negcos_frequency_create(
        options: *const negcos_frequency_options,
        frequency: *mut *mut negcos_frequency,
    ) -> i32;
    pub fn negcos_frequency_update(frequency: *mut negcos_frequency, ids: *const i64, count: i64) -> i32;
    pub fn negcos_frequency_log_probability(
        frequency: *const negcos_frequency,
        ids: *const i64,
        count: i64,
        log_probability: *mut f64,
    ) -> i32;
    pub fn negcos_frequency_save(frequency: *const negcos_frequency, path: *const c_char) -> i32;
    pub fn negcos_frequency_load(path: *const c_char, frequency: *mut *mut negcos_frequency) -> i32;
    pub fn negcos_frequency_destroy(frequency: *mut negcos_frequency);
}
