// SPDX-License-Identifier: Apache-2.0
//
// What goes into a call and what comes out.
use crate::element::Element;
use crate::error::{check_length, Error};
use crate::matrix::{Matrix, MatrixMut};
use crate::options::Options;
use crate::sys;
use std::mem::{size_of, MaybeUninit};
use std::ptr;

macro_rules! inputs {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => { $(
        $(#[$doc])*
        pub fn $name(mut self, $name: $type) -> Self {
            self.$name = Some($name);
            self
        }
    )* };
}

/// The inputs of a call: B queries, M documents and what is known about them, all borrowed and used in place.
///
/// Inputs may overlap each other.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a, T> {
    queries: Matrix<'a, T>,
    documents: Matrix<'a, T>,
    hard_negatives: Option<Matrix<'a, T>>,
    positives: Option<&'a [i64]>,
    negatives: Option<&'a [i32]>,
    document_ids: Option<&'a [i64]>,
    query_ids: Option<&'a [i64]>,
    log_probability: Option<&'a [f64]>,
    weights: Option<&'a [f64]>,
}

impl<'a, T: Element> Batch<'a, T> {
    /// Queries, B x d, and documents, M x d. Row i of the documents is the positive of query i, M ≥ B, unless
    /// [`positives`](Batch::positives) says otherwise.
    pub fn new(queries: Matrix<'a, T>, documents: Matrix<'a, T>) -> Self {
        Batch {
            queries,
            documents,
            hard_negatives: None,
            positives: None,
            negatives: None,
            document_ids: None,
            query_ids: None,
            log_probability: None,
            weights: None,
        }
    }

    inputs! {
        /// (B·H) x d: rows i·H … i·H + H - 1 are negatives of query i alone and follow the rounds in its list.
        hard_negatives: Matrix<'a, T>;
        /// B rows of documents, each the positive of its query; several queries may share one.
        positives: &'a [i64];
        /// With [`Sampling::Given`](crate::Sampling::Given): B x rounds rows of documents, -1 = absent. Otherwise not
        /// read.
        negatives: &'a [i32];
        /// M, for [`Exclude::SAME_DOCUMENT_ID`](crate::Exclude::SAME_DOCUMENT_ID).
        document_ids: &'a [i64];
        /// B, for [`Exclude::SAME_QUERY_ID`](crate::Exclude::SAME_QUERY_ID).
        query_ids: &'a [i64];
        /// M finite numbers: the log of the probability that a document is drawn as a candidate, which is taken off
        /// its logits. [`Frequency`](crate::Frequency) estimates them.
        log_probability: &'a [f64];
        /// B numbers in [0, 2^60] (f64: 2^480). 0 takes a query out of the total and the gradients.
        weights: &'a [f64];
    }

    pub(crate) fn raw(&self, options: &Options<'_>) -> Result<sys::negcos_batch, Error> {
        // SAFETY: the library fills the struct.
        let mut raw = unsafe {
            let mut raw = MaybeUninit::<sys::negcos_batch>::zeroed();
            sys::negcos_batch_init(raw.as_mut_ptr(), size_of::<sys::negcos_batch>());
            raw.assume_init()
        };
        let (queries, documents) = (self.queries.rows(), self.documents.rows());
        raw.queries = self.queries.raw();
        raw.documents = self.documents.raw();
        if let Some(hard_negatives) = self.hard_negatives {
            raw.hard_negatives = hard_negatives.raw();
        }
        let of_queries = "one for each query";
        let of_documents = "one for each document";
        raw.positives = pointer("batch.positives", self.positives, queries, of_queries)?;
        if options.is_given() {
            // More rounds than fit are the library's to refuse: no slice is that long.
            let count = queries.saturating_mul(options.rounds_count());
            raw.negatives = pointer("batch.negatives", self.negatives, count, "queries x rounds")?;
        }
        raw.document_ids = pointer("batch.document_ids", self.document_ids, documents, of_documents)?;
        raw.query_ids = pointer("batch.query_ids", self.query_ids, queries, of_queries)?;
        raw.log_probability = pointer("batch.log_probability", self.log_probability, documents, of_documents)?;
        raw.weights = pointer("batch.weights", self.weights, queries, of_queries)?;
        Ok(raw)
    }
}

fn pointer<T>(name: &str, values: Option<&[T]>, expected: usize, of: &str) -> Result<*const T, Error> {
    match values {
        None => Ok(ptr::null()),
        Some(values) => {
            check_length(name, values.len(), expected, of)?;
            Ok(values.as_ptr())
        }
    }
}

macro_rules! outputs {
    ($($(#[$doc:meta])* $name:ident;)*) => { $(
        $(#[$doc])*
        pub fn $name(mut self, $name: impl Into<MatrixMut<'a, T>>) -> Self {
            self.$name = Some($name.into());
            self
        }
    )* };
}

/// The arrays that a call is asked for, each handed in to be written; those that are not are not computed.
///
/// Failure leaves them as they were.
#[derive(Debug)]
pub struct Outputs<'a, T> {
    losses: Option<MatrixMut<'a, T>>,
    hit_probability: Option<MatrixMut<'a, T>>,
    logits: Option<MatrixMut<'a, T>>,
    grad_queries: Option<MatrixMut<'a, T>>,
    grad_documents: Option<MatrixMut<'a, T>>,
    grad_hard_negatives: Option<MatrixMut<'a, T>>,
    negatives: Option<&'a mut [i32]>,
}

impl<T> Default for Outputs<'_, T> {
    fn default() -> Self {
        Outputs::new()
    }
}

impl<T> Outputs<'_, T> {
    /// No array: the numbers of the [`Evaluation`] alone.
    pub fn new() -> Self {
        Outputs {
            losses: None,
            hit_probability: None,
            logits: None,
            grad_queries: None,
            grad_documents: None,
            grad_hard_negatives: None,
            negatives: None,
        }
    }
}

impl<'a, T: Element> Outputs<'a, T> {
    outputs! {
        /// B x 1: the loss of each query; with [`Direction::Both`](crate::Direction::Both) the mean of it and its
        /// document's.
        losses;
        /// B x 1: exp(-loss).
        hit_probability;
        /// B x (1 + rounds + H): the positive's first, -∞ where absent or dropped. Not with
        /// [`Sampling::All`](crate::Sampling::All).
        logits;
        /// B x d: the gradient of the loss with respect to the queries.
        grad_queries;
        /// M x d: likewise, the documents.
        grad_documents;
        /// (B·H) x d: likewise, the hard negatives.
        grad_hard_negatives;
    }

    /// B x rounds: the rows of documents drawn as negatives, dropped ones included. Not with
    /// [`Sampling::All`](crate::Sampling::All).
    pub fn negatives(mut self, negatives: &'a mut [i32]) -> Self {
        self.negatives = Some(negatives);
        self
    }

    pub(crate) fn raw(&mut self, batch: &Batch<'_, T>, options: &Options<'_>) -> Result<sys::negcos_result, Error> {
        // SAFETY: the library fills the struct.
        let mut raw = unsafe {
            let mut raw = MaybeUninit::<sys::negcos_result>::zeroed();
            sys::negcos_result_init(raw.as_mut_ptr(), size_of::<sys::negcos_result>());
            raw.assume_init()
        };
        let matrices = [
            (&mut raw.losses, &mut self.losses),
            (&mut raw.hit_probability, &mut self.hit_probability),
            (&mut raw.logits, &mut self.logits),
            (&mut raw.grad_queries, &mut self.grad_queries),
            (&mut raw.grad_documents, &mut self.grad_documents),
            (&mut raw.grad_hard_negatives, &mut self.grad_hard_negatives),
        ];
        for (field, matrix) in matrices {
            if let Some(matrix) = matrix {
                *field = matrix.raw();
            }
        }
        if let Some(negatives) = &mut self.negatives {
            let count = batch.queries.rows().saturating_mul(options.rounds_count());
            check_length("result.negatives", negatives.len(), count, "queries x rounds")?;
            raw.negatives = negatives.as_mut_ptr();
        }
        Ok(raw)
    }
}

/// The numbers of a call.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// Weighted mean or sum of the losses; 0 for an empty batch.
    pub loss: f64,
    /// d loss / d scale.
    pub grad_scale: f64,
    /// d loss / d bias; 0 without [`Objective::Sigmoid`](crate::Objective::Sigmoid).
    pub grad_bias: f64,
    /// Share of queries whose positive's logit is above every negative's. NaN under
    /// [`Objective::BatchSoftmax`](crate::Objective::BatchSoftmax) and for an empty batch.
    pub accuracy: f64,
    /// Mean of 1 / (1 + number of negatives with a logit at least the positive's); NaN likewise.
    pub mean_reciprocal_rank: f64,
    /// Negatives that were dropped.
    pub excluded: i64,
    /// Rows whose norm is 0; their cosines and gradients are 0.
    pub zero_rows: i64,
}

impl Evaluation {
    pub(crate) fn of(raw: &sys::negcos_result) -> Evaluation {
        Evaluation {
            loss: raw.loss,
            grad_scale: raw.grad_scale,
            grad_bias: raw.grad_bias,
            accuracy: raw.accuracy,
            mean_reciprocal_rank: raw.mean_reciprocal_rank,
            excluded: raw.excluded,
            zero_rows: raw.zero_rows,
        }
    }
}
