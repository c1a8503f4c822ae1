// SPDX-License-Identifier: Apache-2.0
//
// Every struct, constant and function against the recorded ABI, and nothing here that it does not have.
use negcos_sys::*;
use std::collections::BTreeSet;
use std::mem::size_of;

// The recorded names of types.
trait Kind {
    const KIND: &'static str;
}
macro_rules! kinds {
    ($($type:ty => $name:literal),* $(,)?) => { $(impl Kind for $type { const KIND: &'static str = $name; })* };
}
kinds! {
    u32 => "u32", i32 => "i32", u64 => "u64", i64 => "i64", f64 => "f64",
    negcos_const_matrix => "negcos_const_matrix", negcos_matrix => "negcos_matrix",
}
impl<T> Kind for *const T {
    const KIND: &'static str = "pointer";
}
impl<T> Kind for *mut T {
    const KIND: &'static str = "pointer";
}
impl Kind for Option<negcos_parallel_for_fn> {
    const KIND: &'static str = "pointer";
}

fn size_and_kind<T: Kind>(_: *const T) -> (usize, &'static str) {
    (size_of::<T>(), T::KIND)
}

// The facts of a struct; a field left out is a recorded fact that nobody states, and one too many does not compile.
macro_rules! structs {
    ($facts:ident, $($name:ident { $($field:ident),* })*) => { $(
        $facts.insert(format!("struct {} {}", stringify!($name), size_of::<$name>()));
        let place = std::mem::MaybeUninit::<$name>::uninit();
        let base = place.as_ptr();
        $({
            let field = unsafe { std::ptr::addr_of!((*base).$field) };
            let (size, kind) = size_and_kind(field);
            let offset = field as usize - base as usize;
            $facts.insert(format!("field {} {} {} {} {}", stringify!($name), stringify!($field), offset, size, kind));
        })*
    )* };
}
macro_rules! constants {
    ($facts:ident, $($name:ident)*) => { $($facts.insert(format!("constant {} {}", stringify!($name), $name));)* };
}
// Taking its address makes the linker look for it.
macro_rules! functions {
    ($facts:ident, $($name:ident)*) => { $(
        assert_ne!($name as *const () as usize, 0);
        $facts.insert(format!("function {}", stringify!($name)));
    )* };
}

fn declared() -> BTreeSet<String> {
    let mut facts = BTreeSet::new();
    structs! { facts,
        negcos_const_matrix { data, rows, cols, row_stride, dtype, reserved }
        negcos_matrix { data, rows, cols, row_stride, dtype, reserved }
        negcos_context_options {
            struct_size, threads, threading, reserved, isa, parallel_for, parallel_for_data, workspace_limit
        }
        negcos_options {
            struct_size, objective, similarity, sampling, rounds, reduction, direction, exclude, seed, step, scale,
            temperature, bias, norm_floor, margin, label_smoothing, hardness, false_negative_margin, correction,
            prefix_count, prefix_dims, prefix_weights
        }
        negcos_batch {
            struct_size, reserved, queries, documents, hard_negatives, positives, negatives, document_ids, query_ids,
            log_probability, weights
        }
        negcos_result {
            struct_size, reserved, loss, grad_scale, grad_bias, accuracy, mean_reciprocal_rank, excluded, zero_rows,
            losses, hit_probability, logits, grad_queries, grad_documents, grad_hard_negatives, negatives
        }
        negcos_frequency_options {
            struct_size, method, hashes, reserved, buckets, learning_rate, initial_gap, seed
        }
    }
    constants! { facts,
        NEGCOS_STATUS_OK NEGCOS_STATUS_NULL_ARGUMENT NEGCOS_STATUS_SHAPE NEGCOS_STATUS_DTYPE NEGCOS_STATUS_VALUE
        NEGCOS_STATUS_OVERLAP NEGCOS_STATUS_STRUCT_SIZE NEGCOS_STATUS_OUT_OF_MEMORY NEGCOS_STATUS_WORKSPACE_LIMIT
        NEGCOS_STATUS_THREADS NEGCOS_STATUS_UNSUPPORTED_ISA NEGCOS_STATUS_UNSUPPORTED NEGCOS_STATUS_IO
        NEGCOS_STATUS_INTERNAL
        NEGCOS_DTYPE_F32 NEGCOS_DTYPE_F64 NEGCOS_DTYPE_F16 NEGCOS_DTYPE_BF16
        NEGCOS_THREADING_DEFAULT NEGCOS_THREADING_SERIAL NEGCOS_THREADING_TBB NEGCOS_THREADING_OPENMP
        NEGCOS_THREADING_CALLBACK
        NEGCOS_OBJECTIVE_SOFTMAX NEGCOS_OBJECTIVE_BATCH_SOFTMAX NEGCOS_OBJECTIVE_SIGMOID NEGCOS_OBJECTIVE_DECOUPLED
        NEGCOS_SIMILARITY_COSINE NEGCOS_SIMILARITY_DOT
        NEGCOS_SAMPLING_SHUFFLE NEGCOS_SAMPLING_DERANGEMENT NEGCOS_SAMPLING_CYCLIC NEGCOS_SAMPLING_UNIFORM
        NEGCOS_SAMPLING_LOG_UNIFORM NEGCOS_SAMPLING_GIVEN NEGCOS_SAMPLING_ALL NEGCOS_SAMPLING_GROUPS
        NEGCOS_REDUCTION_MEAN NEGCOS_REDUCTION_SUM
        NEGCOS_DIRECTION_QUERY_TO_DOCUMENT NEGCOS_DIRECTION_BOTH
        NEGCOS_CORRECTION_ALL_CANDIDATES NEGCOS_CORRECTION_NEGATIVES_ONLY
        NEGCOS_EXCLUDE_SAME_DOCUMENT_ID NEGCOS_EXCLUDE_SAME_QUERY_ID
        NEGCOS_FREQUENCY_STREAMING NEGCOS_FREQUENCY_COUNT_MIN
    }
    functions! { facts,
        negcos_version negcos_status_string negcos_last_error negcos_isa_count negcos_isa_name negcos_isa_available
        negcos_context_options_init negcos_options_init negcos_batch_init negcos_result_init negcos_context_create
        negcos_context_destroy negcos_context_isa negcos_context_threads negcos_evaluate negcos_sample
        negcos_frequency_options_init negcos_frequency_create negcos_frequency_update
        negcos_frequency_log_probability negcos_frequency_save negcos_frequency_load negcos_frequency_destroy
    }
    facts
}

#[test]
#[cfg(target_pointer_width = "64")]
fn declarations_are_the_recorded_abi() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../capi/negcos.layout");
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let recorded: BTreeSet<String> = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert!(recorded.len() > 100, "{path} records only {} facts", recorded.len());
    let declared = declared();
    let missing: Vec<_> = recorded.difference(&declared).collect();
    let unknown: Vec<_> = declared.difference(&recorded).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "missing here: {missing:#?}\nnot in the ABI: {unknown:#?}");
}

#[test]
fn the_library_that_was_linked_is_this_version() {
    let version = unsafe { negcos_version() };
    let crate_version = format!("{}.{}.{}", version >> 16, version >> 8 & 0xff, version & 0xff);
    assert_eq!(crate_version, env!("CARGO_PKG_VERSION"));
}
