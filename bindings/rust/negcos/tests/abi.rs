// SPDX-License-Identifier: Apache-2.0
//
// Every recorded enumerator has its name here.
mod common;

use common::repository;
use negcos::*;

#[test]
fn every_recorded_enumerator_has_its_name_here() {
    // What the types of this crate say in another way: success is no error, dtypes are types, CALLBACK is parallel_for.
    let otherwise = ["STATUS_OK", "DTYPE_F32", "DTYPE_F64", "DTYPE_F16", "DTYPE_BF16", "THREADING_CALLBACK"];
    let here = [
        ("STATUS_NULL_ARGUMENT", Status::NullArgument as i32),
        ("STATUS_SHAPE", Status::Shape as i32),
        ("STATUS_DTYPE", Status::Dtype as i32),
        ("STATUS_VALUE", Status::Value as i32),
        ("STATUS_OVERLAP", Status::Overlap as i32),
        ("STATUS_STRUCT_SIZE", Status::StructSize as i32),
        ("STATUS_OUT_OF_MEMORY", Status::OutOfMemory as i32),
        ("STATUS_WORKSPACE_LIMIT", Status::WorkspaceLimit as i32),
        ("STATUS_THREADS", Status::Threads as i32),
        ("STATUS_UNSUPPORTED_ISA", Status::UnsupportedIsa as i32),
        ("STATUS_UNSUPPORTED", Status::Unsupported as i32),
        ("STATUS_IO", Status::Io as i32),
        ("STATUS_INTERNAL", Status::Internal as i32),
        ("THREADING_DEFAULT", Threading::Default as i32),
        ("THREADING_SERIAL", Threading::Serial as i32),
        ("THREADING_TBB", Threading::Tbb as i32),
        ("THREADING_OPENMP", Threading::OpenMp as i32),
        ("OBJECTIVE_SOFTMAX", Objective::Softmax as i32),
        ("OBJECTIVE_BATCH_SOFTMAX", Objective::BatchSoftmax as i32),
        ("OBJECTIVE_SIGMOID", Objective::Sigmoid as i32),
        ("OBJECTIVE_DECOUPLED", Objective::Decoupled as i32),
        ("SIMILARITY_COSINE", Similarity::Cosine as i32),
        ("SIMILARITY_DOT", Similarity::Dot as i32),
        ("SAMPLING_SHUFFLE", Sampling::Shuffle as i32),
        ("SAMPLING_DERANGEMENT", Sampling::Derangement as i32),
        ("SAMPLING_CYCLIC", Sampling::Cyclic as i32),
        ("SAMPLING_UNIFORM", Sampling::Uniform as i32),
        ("SAMPLING_LOG_UNIFORM", Sampling::LogUniform as i32),
        ("SAMPLING_GIVEN", Sampling::Given as i32),
        ("SAMPLING_ALL", Sampling::All as i32),
        ("SAMPLING_GROUPS", Sampling::Groups as i32),
        ("REDUCTION_MEAN", Reduction::Mean as i32),
        ("REDUCTION_SUM", Reduction::Sum as i32),
        ("DIRECTION_QUERY_TO_DOCUMENT", Direction::QueryToDocument as i32),
        ("DIRECTION_BOTH", Direction::Both as i32),
        ("CORRECTION_ALL_CANDIDATES", Correction::AllCandidates as i32),
        ("CORRECTION_NEGATIVES_ONLY", Correction::NegativesOnly as i32),
        ("EXCLUDE_SAME_DOCUMENT_ID", Exclude::SAME_DOCUMENT_ID.bits()),
        ("EXCLUDE_SAME_QUERY_ID", Exclude::SAME_QUERY_ID.bits()),
        ("FREQUENCY_STREAMING", FrequencyMethod::Streaming as i32),
        ("FREQUENCY_COUNT_MIN", FrequencyMethod::CountMin as i32),
    ];
    let mut recorded = 0;
    for line in repository("capi/negcos.layout").lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.first() != Some(&"constant") {
            continue;
        }
        recorded += 1;
        let name = words[1].strip_prefix("NEGCOS_").unwrap();
        let known = otherwise.contains(&name) || here.contains(&(name, words[2].parse().unwrap()));
        assert!(known, "{line}");
    }
    assert_eq!(recorded, otherwise.len() + here.len());
}
