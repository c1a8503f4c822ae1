// SPDX-License-Identifier: Apache-2.0
//
// The golden calls: the same bits as in C.
mod common;

use common::{pattern, repository, Number};
use negcos::*;
use std::collections::BTreeMap;
use std::str::FromStr;

/// The keys of a line, each to be taken once.
struct Call<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Call<'a> {
    fn of(line: &'a str) -> Self {
        Call(line.split_whitespace().map(|pair| pair.split_once('=').expect(line)).collect())
    }

    fn text(&mut self, key: &str) -> Option<&'a str> {
        self.0.remove(key)
    }

    fn number<N: FromStr>(&mut self, key: &str) -> Option<N> {
        self.text(key).map(|text| text.parse().unwrap_or_else(|_| panic!("{key}={text}")))
    }

    fn hex(&mut self, key: &str) -> Option<u64> {
        self.text(key).map(|text| u64::from_str_radix(text, 16).unwrap_or_else(|_| panic!("{key}={text}")))
    }
}

fn named<E: Copy>(name: &str, all: &[(&str, E)]) -> E {
    all.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("an unknown enumerator: {name}")).1
}

type Setter = fn(Options<'static>, f64) -> Options<'static>;

fn options_of(call: &mut Call<'_>) -> (Options<'static>, usize) {
    let mut options = Options::new();
    let mut rounds = 4;
    if let Some(name) = call.text("objective") {
        let all = [
            ("softmax", Objective::Softmax),
            ("batch-softmax", Objective::BatchSoftmax),
            ("sigmoid", Objective::Sigmoid),
            ("decoupled", Objective::Decoupled),
        ];
        options = options.objective(named(name, &all));
    }
    if let Some(name) = call.text("similarity") {
        options = options.similarity(named(name, &[("cosine", Similarity::Cosine), ("dot", Similarity::Dot)]));
    }
    if let Some(name) = call.text("sampling") {
        let all = [
            ("shuffle", Sampling::Shuffle),
            ("derangement", Sampling::Derangement),
            ("cyclic", Sampling::Cyclic),
            ("uniform", Sampling::Uniform),
            ("log-uniform", Sampling::LogUniform),
            ("all", Sampling::All),
            ("groups", Sampling::Groups),
        ];
        options = options.sampling(named(name, &all));
    }
    if let Some(name) = call.text("reduction") {
        options = options.reduction(named(name, &[("mean", Reduction::Mean), ("sum", Reduction::Sum)]));
    }
    if let Some(name) = call.text("direction") {
        let all = [("query-to-document", Direction::QueryToDocument), ("both", Direction::Both)];
        options = options.direction(named(name, &all));
    }
    if let Some(value) = call.number("rounds") {
        rounds = value;
        options = options.rounds(value);
    }
    if let Some(value) = call.number("seed") {
        options = options.seed(value);
    }
    if let Some(value) = call.number("step") {
        options = options.step(value);
    }
    let setters: [(&str, Setter); 7] = [
        ("scale", Options::scale),
        ("temperature", Options::temperature),
        ("bias", Options::bias),
        ("margin", Options::margin),
        ("label_smoothing", Options::label_smoothing),
        ("hardness", Options::hardness),
        ("false_negative_margin", Options::false_negative_margin),
    ];
    for (key, set) in setters {
        if let Some(value) = call.number(key) {
            options = set(options, value);
        }
    }
    (options, rounds as usize)
}

/// FNV-1a of the elements' little-endian bytes.
struct Hash(u64);

impl Hash {
    fn new() -> Self {
        Hash(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bits: u64, bytes: usize) {
        for byte in &bits.to_le_bytes()[..bytes] {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}

/// An output with a gap between its rows, that a line may ask for.
struct Output<T> {
    key: &'static str,
    expected: Option<u64>,
    rows: usize,
    cols: usize,
    row_stride: usize,
    data: Vec<T>,
}

impl<T: Number> Output<T> {
    fn of(call: &mut Call<'_>, key: &'static str, rows: usize, cols: usize, padding: usize) -> Self {
        let row_stride = cols + padding;
        let expected = call.hex(key);
        let data = vec![T::of(7.0); rows * row_stride];
        Output { key, expected, rows, cols, row_stride, data }
    }

    fn wanted(&mut self) -> Option<MatrixMut<'_, T>> {
        self.expected?;
        Some(MatrixMut::strided(&mut self.data, self.rows, self.cols, self.row_stride).unwrap())
    }

    fn check(&self, line: &str) {
        let mut hash = Hash::new();
        for (i, value) in self.data.iter().enumerate() {
            if i % self.row_stride < self.cols {
                hash.add(value.bits(), T::BYTES);
            }
            if i % self.row_stride >= self.cols || self.expected.is_none() {
                assert_eq!(value.f64(), 7.0, "{} was written where it should not be: {line}", self.key);
            }
        }
        if let Some(expected) = self.expected {
            assert_eq!(hash.0, expected, "{}: {line}", self.key);
        }
    }
}

fn run<T: Number>(context: &mut Context, line: &str, mut call: Call<'_>) {
    let (mut options, rounds) = options_of(&mut call);
    let queries: usize = call.number("queries").unwrap();
    let documents: usize = call.number("documents").unwrap();
    let dim: usize = call.number("dim").unwrap();
    let padding: usize = call.number("row_padding").unwrap_or(0);
    let hard: usize = call.number("hard").unwrap_or(0);
    let exclude: i32 = call.number("exclude").unwrap_or(0);

    let row_stride = dim + padding;
    let input = |rows, salt| pattern::<T>(rows, dim, row_stride, salt);
    let (q, d, h) = (input(queries, 7), input(documents, 14), input(queries * hard, 21));
    let matrix = |data, rows| Matrix::strided(data, rows, dim, row_stride).unwrap();
    let mut batch = Batch::new(matrix(&q, queries), matrix(&d, documents));
    if hard > 0 {
        batch = batch.hard_negatives(matrix(&h, queries * hard));
    }
    let document_ids: Vec<i64> = (0..documents as i64).map(|i| i % 5).collect();
    let query_ids: Vec<i64> = (0..queries as i64).map(|i| i % 7).collect();
    if exclude != 0 {
        let all = [
            ("1", Exclude::SAME_DOCUMENT_ID),
            ("2", Exclude::SAME_QUERY_ID),
            ("3", Exclude::SAME_DOCUMENT_ID | Exclude::SAME_QUERY_ID),
        ];
        options = options.exclude(named(&exclude.to_string(), &all));
        batch = batch.document_ids(&document_ids).query_ids(&query_ids);
    }

    let mut losses = Output::<T>::of(&mut call, "losses", queries, 1, padding);
    let mut hit_probability = Output::<T>::of(&mut call, "hit_probability", queries, 1, padding);
    let mut logits = Output::<T>::of(&mut call, "logits", queries, 1 + rounds + hard, padding);
    let mut grad_queries = Output::<T>::of(&mut call, "grad_queries", queries, dim, padding);
    let mut grad_documents = Output::<T>::of(&mut call, "grad_documents", documents, dim, padding);
    let mut grad_hard = Output::<T>::of(&mut call, "grad_hard_negatives", queries * hard, dim, padding);
    let mut negatives = vec![-7; queries * rounds];
    let expected_negatives = call.hex("negatives");

    let mut outputs = Outputs::new();
    macro_rules! ask {
        ($($method:ident: $output:ident;)*) => { $(
            if let Some(matrix) = $output.wanted() {
                outputs = outputs.$method(matrix);
            }
        )* };
    }
    ask! {
        losses: losses;
        hit_probability: hit_probability;
        logits: logits;
        grad_queries: grad_queries;
        grad_documents: grad_documents;
        grad_hard_negatives: grad_hard;
    }
    if expected_negatives.is_some() {
        outputs = outputs.negatives(&mut negatives);
    }
    let evaluation = context.evaluate(&options, &batch, outputs).unwrap_or_else(|error| panic!("{error}: {line}"));

    for output in [&losses, &hit_probability, &logits, &grad_queries, &grad_documents, &grad_hard] {
        output.check(line);
    }
    if let Some(expected) = expected_negatives {
        let mut hash = Hash::new();
        negatives.iter().for_each(|&row| hash.add(row as u32 as u64, 4));
        assert_eq!(hash.0, expected, "negatives: {line}");
        let mut sampled = vec![-7; negatives.len()];
        context.sample(&options, queries, documents, &mut sampled).unwrap();
        assert_eq!(sampled, negatives, "sample: {line}");
    }
    for (key, value) in [
        ("loss", evaluation.loss),
        ("grad_scale", evaluation.grad_scale),
        ("grad_bias", evaluation.grad_bias),
        ("accuracy", evaluation.accuracy),
        ("mean_reciprocal_rank", evaluation.mean_reciprocal_rank),
    ] {
        if let Some(expected) = call.hex(key) {
            assert_eq!(value.to_bits(), expected, "{key} is {value}: {line}");
        }
    }
    for (key, value) in [("excluded", evaluation.excluded), ("zero_rows", evaluation.zero_rows)] {
        if let Some(expected) = call.number::<i64>(key) {
            assert_eq!(value, expected, "{key}: {line}");
        }
    }
    assert!(call.0.is_empty(), "unknown keys {:?}: {line}", call.0);
}

fn run_all(context: &mut Context) {
    let text = repository("tests/golden/calls.txt");
    let mut calls = 0;
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let mut call = Call::of(line);
        call.text("name");
        match call.text("dtype").expect(line) {
            "f32" => run::<f32>(context, line, call),
            "f64" => run::<f64>(context, line, call),
            "f16" => run::<F16>(context, line, call),
            "bf16" => run::<Bf16>(context, line, call),
            other => panic!("an unknown dtype: {other}"),
        }
        calls += 1;
    }
    assert!(calls >= 40, "only {calls} calls");
}

#[test]
fn golden_calls() {
    run_all(&mut Context::new().unwrap());
}

#[test]
fn golden_calls_on_every_instruction_set_here() {
    for isa in isas().filter(|isa| isa_available(isa)) {
        let mut context = Context::builder().isa(isa).threading(Threading::Serial).build().unwrap();
        assert_eq!((context.isa(), context.threads()), (isa, 1));
        run_all(&mut context);
    }
}

#[test]
fn golden_calls_on_the_callers_threads() {
    let mut context = Context::builder()
        .threads(3)
        .parallel_for(|tasks| {
            std::thread::scope(|scope| {
                for _ in 0..tasks.count() {
                    scope.spawn(|| tasks.run());
                }
            })
        })
        .build()
        .unwrap();
    run_all(&mut context);
}
