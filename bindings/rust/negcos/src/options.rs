// SPDX-License-Identifier: Apache-2.0
use crate::error::{check_length, Error, Status};
use crate::sys;
use std::mem::{size_of, MaybeUninit};
use std::ops::{BitOr, BitOrAssign};

macro_rules! enumeration {
    ($(#[$doc:meta])* $name:ident { $($(#[$item:meta])* $variant:ident = $value:ident,)* }) => {
        $(#[$doc])*
        #[non_exhaustive]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
        #[repr(i32)]
        pub enum $name {
            $($(#[$item])* $variant = sys::$value,)*
        }
    };
}
pub(crate) use enumeration;

enumeration! {
    /// The loss of a query, z(i,0) being the logit of its positive and z(i,k) those of its negatives.
    Objective {
        /// Softmax over a query's own candidates: -z(i,0) + log Σ_k exp z(i,k).
        #[default]
        Softmax = NEGCOS_OBJECTIVE_SOFTMAX,
        /// As the original layer's code does it: softmax of the positives over the batch; negatives play no part.
        BatchSoftmax = NEGCOS_OBJECTIVE_BATCH_SOFTMAX,
        /// Each candidate judged by itself; with [`Sampling::All`]: SigLIP.
        Sigmoid = NEGCOS_OBJECTIVE_SIGMOID,
        /// As [`Softmax`](Objective::Softmax) with the negatives alone in the sum.
        Decoupled = NEGCOS_OBJECTIVE_DECOUPLED,
    }
}
enumeration! {
    /// What compares a query and a document.
    Similarity {
        /// The cosine.
        #[default]
        Cosine = NEGCOS_SIMILARITY_COSINE,
        /// The dot product.
        Dot = NEGCOS_SIMILARITY_DOT,
    }
}
enumeration! {
    /// Where the negatives of a query come from.
    Sampling {
        /// Each round shuffles the positives of the batch; a query may get its own.
        #[default]
        Shuffle = NEGCOS_SAMPLING_SHUFFLE,
        /// As [`Shuffle`](Sampling::Shuffle), but no query gets its own positive. At least 2 queries.
        Derangement = NEGCOS_SAMPLING_DERANGEMENT,
        /// Each round shifts the positives by a random distance; the cheapest. At least 2 queries.
        Cyclic = NEGCOS_SAMPLING_CYCLIC,
        /// Independent uniform draws from all documents but the positive. At least 2 documents.
        Uniform = NEGCOS_SAMPLING_UNIFORM,
        /// As [`Uniform`](Sampling::Uniform) with P(j) ~ log((j+2)/(j+1)): documents sorted by falling frequency.
        LogUniform = NEGCOS_SAMPLING_LOG_UNIFORM,
        /// [`Batch::negatives`](crate::Batch::negatives).
        Given = NEGCOS_SAMPLING_GIVEN,
        /// Every document but the positive; `rounds` is ignored.
        All = NEGCOS_SAMPLING_ALL,
        /// The batch is dealt at random into groups of `rounds` + 1; a query's negatives are the positives of the
        /// others in its group. The fastest. More queries than `rounds`.
        Groups = NEGCOS_SAMPLING_GROUPS,
    }
}
enumeration! {
    /// How the losses of the queries become one.
    Reduction {
        /// Their mean, weighted by [`Batch::weights`](crate::Batch::weights).
        #[default]
        Mean = NEGCOS_REDUCTION_MEAN,
        /// Their sum, weighted likewise.
        Sum = NEGCOS_REDUCTION_SUM,
    }
}
enumeration! {
    /// Who looks for whom.
    Direction {
        /// Queries among documents.
        #[default]
        QueryToDocument = NEGCOS_DIRECTION_QUERY_TO_DOCUMENT,
        /// The mean of that and of documents among queries (CLIP); with [`Sampling::All`] and as many documents as
        /// queries.
        Both = NEGCOS_DIRECTION_BOTH,
    }
}
enumeration! {
    /// Which logits [`Batch::log_probability`](crate::Batch::log_probability) corrects.
    Correction {
        /// The positive's too.
        #[default]
        AllCandidates = NEGCOS_CORRECTION_ALL_CANDIDATES,
        /// The negatives' alone.
        NegativesOnly = NEGCOS_CORRECTION_NEGATIVES_ONLY,
    }
}

/// Which negatives are dropped: constants, joined by `|`. The default drops none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Exclude(i32);

impl Exclude {
    /// Documents with the positive's [`Batch::document_ids`](crate::Batch::document_ids).
    pub const SAME_DOCUMENT_ID: Exclude = Exclude(sys::NEGCOS_EXCLUDE_SAME_DOCUMENT_ID);
    /// Positives of queries with the query's [`Batch::query_ids`](crate::Batch::query_ids).
    pub const SAME_QUERY_ID: Exclude = Exclude(sys::NEGCOS_EXCLUDE_SAME_QUERY_ID);

    /// The bits as `negcos.h` has them.
    pub const fn bits(self) -> i32 {
        self.0
    }
}

impl BitOr for Exclude {
    type Output = Exclude;
    fn bitor(self, other: Exclude) -> Exclude {
        Exclude(self.0 | other.0)
    }
}

impl BitOrAssign for Exclude {
    fn bitor_assign(&mut self, other: Exclude) {
        *self = *self | other;
    }
}

/// What is computed: every option of a call, to be set one by one from the defaults. Plain data, cheap to copy.
///
/// ```
/// use negcos::{Options, Sampling};
/// let clip = Options::new().sampling(Sampling::All).temperature(0.07).scale(1.0);
/// # let _ = clip;
/// ```
///
/// A value out of its range and options that exclude each other are errors of the call.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    raw: sys::negcos_options,
    rounds: u32,
    prefix_dims: &'a [i32],
    prefix_weights: Option<&'a [f64]>,
}

// SAFETY: the pointers in `raw` stay NULL.
unsafe impl Send for Options<'_> {}
unsafe impl Sync for Options<'_> {}

impl Default for Options<'_> {
    fn default() -> Self {
        Options::new()
    }
}

macro_rules! plain {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => { $(
        $(#[$doc])*
        pub fn $name(mut self, $name: $type) -> Self {
            self.raw.$name = $name;
            self
        }
    )* };
}
macro_rules! enumerated {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => { $(
        $(#[$doc])*
        pub fn $name(mut self, $name: $type) -> Self {
            self.raw.$name = $name as i32;
            self
        }
    )* };
}

impl<'a> Options<'a> {
    /// The defaults.
    pub fn new() -> Self {
        // SAFETY: the library fills the struct.
        let raw = unsafe {
            let mut raw = MaybeUninit::<sys::negcos_options>::zeroed();
            sys::negcos_options_init(raw.as_mut_ptr(), size_of::<sys::negcos_options>());
            raw.assume_init()
        };
        Options { raw, rounds: raw.rounds as u32, prefix_dims: &[], prefix_weights: None }
    }

    enumerated! {
        /// The loss; [`Objective::Softmax`].
        objective: Objective;
        /// [`Similarity::Cosine`].
        similarity: Similarity;
        /// Where negatives come from; [`Sampling::Shuffle`].
        sampling: Sampling;
        /// [`Reduction::Mean`].
        reduction: Reduction;
        /// [`Direction::QueryToDocument`].
        direction: Direction;
        /// [`Correction::AllCandidates`].
        correction: Correction;
    }

    /// Negatives per query; 4.
    pub fn rounds(mut self, rounds: u32) -> Self {
        self.rounds = rounds;
        self
    }

    /// Which negatives are dropped; none.
    pub fn exclude(mut self, exclude: Exclude) -> Self {
        self.raw.exclude = exclude.0;
        self
    }

    plain! {
        /// With `step` and the round: the key of every draw; 0.
        seed: u64;
        /// The training step, so that each draws new negatives from one seed; 0.
        step: u64;
        /// z = scale · cos / temperature, under `BatchSoftmax` scale · cos; 20.
        scale: f64;
        /// More than 0; 1.
        temperature: f64;
        /// Added to every logit, with [`Objective::Sigmoid`] only; 0.
        bias: f64;
        /// Norms below it count as it; 1e-12.
        norm_floor: f64;
        /// Taken off the positive's cosine; 0.
        margin: f64;
        /// In [0, 1), with [`Objective::Softmax`] only: the part of the target that all candidates share; 0.
        label_smoothing: f64;
        /// hardness · cos is added to each negative's logit, as a constant; 0.
        hardness: f64;
        /// Negatives whose cosine is above the positive's by more than this are dropped; infinity, which is off.
        false_negative_margin: f64;
    }

    /// Nested prefixes of the columns (Matryoshka): the loss is the sum of the losses of the first `prefix_dims[p]`
    /// columns, each times its weight. Rising column counts, at most 32 of them; none, which is off.
    pub fn prefix_dims(mut self, prefix_dims: &'a [i32]) -> Self {
        self.prefix_dims = prefix_dims;
        self
    }

    /// A weight for each of `prefix_dims`; 1 each.
    pub fn prefix_weights(mut self, prefix_weights: &'a [f64]) -> Self {
        self.prefix_weights = Some(prefix_weights);
        self
    }

    pub(crate) fn is_given(&self) -> bool {
        self.raw.sampling == sys::NEGCOS_SAMPLING_GIVEN
    }

    pub(crate) fn rounds_count(&self) -> usize {
        self.rounds as usize
    }

    /// The struct for C, which borrows what this borrows.
    pub(crate) fn raw(&self) -> Result<sys::negcos_options, Error> {
        let mut raw = self.raw;
        let too_many = |name: &str, count: usize| {
            Error::new(Status::Value, format!("options.{name} is {count}, expected at most {}", i32::MAX))
        };
        raw.rounds = i32::try_from(self.rounds).map_err(|_| too_many("rounds", self.rounds_count()))?;
        let prefixes = self.prefix_dims.len();
        raw.prefix_count = i32::try_from(prefixes).map_err(|_| too_many("prefix_count", prefixes))?;
        if prefixes > 0 {
            raw.prefix_dims = self.prefix_dims.as_ptr();
        }
        if let Some(weights) = self.prefix_weights {
            check_length("options.prefix_weights", weights.len(), prefixes, "one for each of prefix_dims")?;
            raw.prefix_weights = weights.as_ptr();
        }
        Ok(raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_option_sets_its_field_and_no_other() {
        let (dims, weights) = ([2, 4], [0.5, 1.5]);
        let d = Options::new().raw().unwrap();
        assert_eq!((d.rounds, d.scale, d.temperature, d.norm_floor), (4, 20.0, 1.0, 1e-12));
        assert_eq!((d.false_negative_margin, d.prefix_count), (f64::INFINITY, 0));
        assert!(d.prefix_dims.is_null() && d.prefix_weights.is_null());

        let changed = Options::new()
            .objective(Objective::Decoupled)
            .similarity(Similarity::Dot)
            .sampling(Sampling::All)
            .rounds(9)
            .reduction(Reduction::Sum)
            .direction(Direction::Both)
            .exclude(Exclude::SAME_DOCUMENT_ID | Exclude::SAME_QUERY_ID)
            .seed(10)
            .step(11)
            .scale(12.0)
            .temperature(13.0)
            .bias(14.0)
            .norm_floor(15.0)
            .margin(16.0)
            .label_smoothing(17.0)
            .hardness(18.0)
            .false_negative_margin(19.0)
            .correction(Correction::NegativesOnly)
            .prefix_dims(&dims)
            .prefix_weights(&weights);
        let o = changed.raw().unwrap();
        assert_eq!((o.objective, o.similarity, o.sampling, o.rounds), (3, 1, 6, 9));
        assert_eq!((o.reduction, o.direction, o.exclude, o.seed, o.step), (1, 1, 3, 10, 11));
        assert_eq!((o.scale, o.temperature, o.bias, o.norm_floor), (12.0, 13.0, 14.0, 15.0));
        assert_eq!((o.margin, o.label_smoothing, o.hardness, o.false_negative_margin), (16.0, 17.0, 18.0, 19.0));
        assert_eq!((o.correction, o.prefix_count), (1, 2));
        assert_eq!((o.prefix_dims, o.prefix_weights), (dims.as_ptr(), weights.as_ptr()));
    }

    #[test]
    fn exclusions_are_joined() {
        let mut exclude = Exclude::default();
        assert_eq!(exclude.bits(), 0);
        exclude |= Exclude::SAME_QUERY_ID;
        assert_eq!(exclude, Exclude::SAME_QUERY_ID);
        assert_eq!((exclude | Exclude::SAME_DOCUMENT_ID).bits(), 3);
    }
}
