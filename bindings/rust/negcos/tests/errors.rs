// SPDX-License-Identifier: Apache-2.0
//
// Every argument wrong: the error says which, what it was and what was expected, and nothing was written.
use negcos::*;

const B: usize = 4;
const M: usize = 5;
const D: usize = 3;
const N: usize = 2;

/// Inputs and outputs that fit, a part of which each test gets wrong.
struct Fixture {
    rows: Vec<f32>,
    out: Vec<f32>,
    long: Vec<i64>,
    short: Vec<i32>,
    double: Vec<f64>,
    negatives: Vec<i32>,
}

impl Fixture {
    fn new() -> Self {
        Fixture {
            rows: (0..64).map(|k| k as f32 + 1.0).collect(),
            out: vec![-7.0; 64],
            long: vec![0; 64],
            short: vec![0; 64],
            double: vec![0.5; 64],
            negatives: vec![-7; 64],
        }
    }

    fn input(&self, rows: usize, cols: usize) -> Matrix<'_, f32> {
        Matrix::new(&self.rows[..rows * cols], rows, cols).unwrap()
    }
}

fn output(data: &mut [f32], rows: usize, cols: usize) -> MatrixMut<'_, f32> {
    MatrixMut::new(&mut data[..rows * cols], rows, cols).unwrap()
}

fn options() -> Options<'static> {
    Options::new().rounds(N as u32)
}

#[track_caller]
fn assert_error<T>(result: Result<T, Error>, status: Status, message: &str) {
    let error = result.err().expect("an error");
    assert_eq!((error.status, error.to_string().as_str()), (status, message));
}

/// An error of a call with this batch, by names of what is given; outputs stay as they were.
#[track_caller]
fn assert_refused<'a>(
    fixture: &'a mut Fixture,
    options: &Options<'_>,
    change: impl FnOnce(&'a Fixture, Batch<'a, f32>) -> Batch<'a, f32>,
    status: Status,
    message: &str,
) {
    let mut out = std::mem::take(&mut fixture.out);
    let mut negatives = std::mem::take(&mut fixture.negatives);
    let fixture = &*fixture;
    let batch = change(fixture, Batch::new(fixture.input(B, D), fixture.input(M, D)));
    let outputs = Outputs::new().grad_queries(output(&mut out, B, D)).negatives(&mut negatives[..B * N]);
    assert_error(Context::new().unwrap().evaluate(options, &batch, outputs), status, message);
    assert!(out.iter().all(|&value| value == -7.0) && negatives.iter().all(|&value| value == -7));
}

#[test]
fn matrices() {
    let mut data = [0.0_f32; 12];
    assert_error(Matrix::new(&data, 4, 4), Status::Shape, "data has 12 elements, expected 16 for 4 x 4");
    assert_error(MatrixMut::new(&mut data, 2, 3), Status::Shape, "data has 12 elements, expected 6 for 2 x 3");
    let message = "data has 12 elements, expected at least 13 for 3 x 3 with row_stride 5";
    assert_error(Matrix::strided(&data, 3, 3, 5), Status::Shape, message);
    assert_error(MatrixMut::strided(&mut data, 3, 3, 5), Status::Shape, message);
    let message = "row_stride is 2, expected at least cols = 3";
    assert_error(Matrix::strided(&data, 3, 3, 2), Status::Shape, message);
    assert_error(MatrixMut::strided(&mut data, 3, 3, 2), Status::Shape, message);
    let most = usize::MAX;
    for (rows, cols, stride) in [(most, 1, 1), (most, 0, 0), (2, 0, most), (3, most, most), (most / 2, 3, 3)] {
        let message = format!("{rows} x {cols} with row_stride {stride} is larger than the address space");
        assert_error(Matrix::strided(&data, rows, cols, stride), Status::Shape, &message);
    }
    let narrow = Matrix::strided(&data, 3, 2, 5).unwrap();
    assert_eq!((narrow.rows(), narrow.cols(), narrow.row_stride()), (3, 2, 5));
}

#[test]
fn shapes_of_inputs() {
    let f = &mut Fixture::new();
    let refused = |f: &mut Fixture, queries: (usize, usize), documents: (usize, usize), message: &str| {
        let batch = Batch::new(f.input(queries.0, queries.1), f.input(documents.0, documents.1));
        let result = Context::new().unwrap().evaluate(&options(), &batch, Outputs::new());
        assert_error(result, Status::Shape, message);
    };
    refused(f, (B, D), (B, D + 1), "batch.documents has 4 columns, expected the queries' 3");
    refused(f, (B, D), (B - 1, D), "batch.documents has 3 rows, expected at least the queries' 4");
    let message = "batch.hard_negatives has 3 rows, expected a multiple of the 4 queries";
    assert_refused(f, &options(), |f, batch| batch.hard_negatives(f.input(3, D)), Status::Shape, message);
}

#[test]
fn lengths_of_inputs() {
    let f = &mut Fixture::new();
    let given = options().sampling(Sampling::Given);
    let shape = Status::Shape;
    let message = "batch.positives has 3 elements, expected 4, one for each query";
    assert_refused(f, &options(), |f, batch| batch.positives(&f.long[..3]), shape, message);
    let f = &mut Fixture::new();
    let message = "batch.negatives has 9 elements, expected 8, queries x rounds";
    assert_refused(f, &given, |f, batch| batch.negatives(&f.short[..9]), shape, message);
    let f = &mut Fixture::new();
    let message = "batch.document_ids has 4 elements, expected 5, one for each document";
    assert_refused(f, &options(), |f, batch| batch.document_ids(&f.long[..4]), shape, message);
    let f = &mut Fixture::new();
    let message = "batch.query_ids has 5 elements, expected 4, one for each query";
    assert_refused(f, &options(), |f, batch| batch.query_ids(&f.long[..5]), shape, message);
    let f = &mut Fixture::new();
    let message = "batch.log_probability has 0 elements, expected 5, one for each document";
    assert_refused(f, &options(), |f, batch| batch.log_probability(&f.double[..0]), shape, message);
    let f = &mut Fixture::new();
    let message = "batch.weights has 5 elements, expected 4, one for each query";
    assert_refused(f, &options(), |f, batch| batch.weights(&f.double[..5]), shape, message);
}

#[test]
fn shapes_of_outputs() {
    let f = Fixture::new();
    let batch = Batch::new(f.input(B, D), f.input(M, D)).hard_negatives(f.input(B, D));
    let mut context = Context::new().unwrap();
    let mut out = vec![-7.0; 64];
    let mut negatives = vec![-7; 64];
    macro_rules! refused {
        ($name:ident, $rows:expr, $cols:expr, $message:literal) => {
            let outputs = Outputs::new().$name(output(&mut out, $rows, $cols));
            let result = context.evaluate(&options(), &batch, outputs);
            assert_error(result, Status::Shape, concat!("result.", stringify!($name), " is ", $message));
        };
    }
    refused!(losses, B, 2, "4 x 2, expected 4 x 1");
    refused!(hit_probability, 1, B, "1 x 4, expected 4 x 1");
    refused!(logits, B, N + 1, "4 x 3, expected 4 x 4");
    refused!(grad_queries, M, D, "5 x 3, expected 4 x 3");
    refused!(grad_documents, B, D, "4 x 3, expected 5 x 3");
    refused!(grad_hard_negatives, B, D + 1, "4 x 4, expected 4 x 3");
    let outputs = Outputs::new().negatives(&mut negatives[..B]);
    let message = "result.negatives has 4 elements, expected 8, queries x rounds";
    assert_error(context.evaluate(&options(), &batch, outputs), Status::Shape, message);
    let message = "negatives has 7 elements, expected 8, batch x rounds";
    assert_error(context.sample(&options(), B, M, &mut negatives[..7]), Status::Shape, message);
    assert!(out.iter().all(|&value| value == -7.0) && negatives.iter().all(|&value| value == -7));

    let without = Batch::new(f.input(B, D), f.input(M, D));
    let outputs = Outputs::new().grad_hard_negatives(output(&mut out, B, D));
    let message = "batch.hard_negatives is absent, expected rows for result.grad_hard_negatives";
    assert_error(context.evaluate(&options(), &without, outputs), Status::NullArgument, message);
}

#[test]
fn values_of_options() {
    let value = Status::Value;
    let refused = |options: Options<'_>, status, message: &str| {
        let f = &mut Fixture::new();
        assert_refused(f, &options, |_, batch| batch, status, message);
    };
    refused(options().temperature(-1.0), value, "options.temperature is -1, expected more than 0");
    refused(options().scale(f64::NAN), value, "options.scale is nan, expected a finite number");
    refused(options().norm_floor(-1.0), value, "options.norm_floor is -1, expected 0 or more");
    refused(options().margin(f64::INFINITY), value, "options.margin is inf, expected a finite number");
    refused(options().hardness(f64::NAN), value, "options.hardness is nan, expected a finite number");
    refused(options().label_smoothing(1.0), value, "options.label_smoothing is 1, expected at least 0 and less than 1");
    refused(
        options().false_negative_margin(f64::NAN),
        value,
        "options.false_negative_margin is nan, expected a number or +Inf",
    );
    refused(options().bias(1.0), Status::Unsupported, "options.objective SOFTMAX and options.bias exclude each other");
    refused(
        options().prefix_dims(&[2, 1]),
        value,
        "options.prefix_dims[1] is 1, expected more than 2 and at most 3 columns",
    );
    refused(options().prefix_dims(&[1; 33]), value, "options.prefix_count is 33, expected 0 to 32");
    refused(
        options().prefix_dims(&[1, 3]).prefix_weights(&[1.0]),
        Status::Shape,
        "options.prefix_weights has 1 elements, expected 2, one for each of prefix_dims",
    );
    let message = format!("options.rounds is {}, expected at most 2147483647", u32::MAX);
    refused(Options::new().rounds(u32::MAX), value, &message);
    let f = &mut Fixture::new();
    let message = "batch.document_ids is NULL, expected 5 with exclude SAME_DOCUMENT_ID";
    let options = options().exclude(Exclude::SAME_DOCUMENT_ID);
    assert_refused(f, &options, |_, batch| batch, Status::NullArgument, message);
}

#[test]
fn values_of_inputs() {
    let f = &mut Fixture::new();
    f.long[2] = 5;
    let message = "batch.positives[2] is 5, expected a row of the 5 documents";
    assert_refused(f, &options(), |f, batch| batch.positives(&f.long[..B]), Status::Value, message);
    let f = &mut Fixture::new();
    f.short[3] = -2;
    let message = "batch.negatives[1, 1] is -2, expected -1 (absent) or a row of the 5 documents";
    let given = options().sampling(Sampling::Given);
    assert_refused(f, &given, |f, batch| batch.negatives(&f.short[..B * N]), Status::Value, message);
    let f = &mut Fixture::new();
    let message = "batch.negatives is NULL, expected 4 x 2 indices with GIVEN";
    assert_refused(f, &given, |_, batch| batch, Status::NullArgument, message);
    let f = &mut Fixture::new();
    f.double[1] = -1.0;
    let result = {
        let batch = Batch::new(f.input(B, D), f.input(M, D)).weights(&f.double[..B]);
        Context::new().unwrap().evaluate(&options(), &batch, Outputs::new())
    };
    let error = result.unwrap_err();
    assert_eq!(error.status, Status::Value);
    assert!(error.message.starts_with("batch.weights[1] is -1, expected a number from 0 to"), "{error}");
}

#[test]
fn samples() {
    let mut context = Context::new().unwrap();
    let mut negatives = [-7; 4];
    let result = context.sample(&Options::new().rounds(1).sampling(Sampling::All), 4, 4, &mut negatives);
    assert_eq!(result.unwrap_err().status, Status::Value);
    let result = context.sample(&Options::new().rounds(1), 4, 3, &mut negatives);
    assert_eq!(result.unwrap_err().status, Status::Shape);
    let result = context.sample(&Options::new().rounds(0), 4, usize::MAX, &mut []);
    assert_eq!(result.unwrap_err().status, Status::Shape);
    assert_eq!(negatives, [-7; 4]);
}

#[test]
fn contexts() {
    let message = "options.threads is 2147483647, expected 0 (all) to 4096";
    assert_error(Context::builder().threads(u32::MAX).build(), Status::Value, message);
    let error = Context::builder().isa("abacus").build().unwrap_err();
    assert_eq!(error.status, Status::UnsupportedIsa);
    assert!(error.message.contains("abacus"), "{error}");
    let message = "options.isa is \"av\\0x2\", expected one of isas()";
    assert_error(Context::builder().isa("av\0x2").build(), Status::UnsupportedIsa, message);

    let f = Fixture::new();
    let batch = Batch::new(f.input(B, D), f.input(M, D));
    let mut limited = Context::builder().workspace_limit(1).build().unwrap();
    let error = limited.evaluate(&options(), &batch, Outputs::new()).unwrap_err();
    assert_eq!(error.status, Status::WorkspaceLimit);
}

#[test]
fn errors_are_errors() {
    fn error<T: std::error::Error + Send + Sync + Clone + 'static>(_: &T) {}
    let result = Context::builder().isa("abacus").build();
    error(result.as_ref().unwrap_err());
    assert!(format!("{:?}", result.unwrap_err()).contains("UnsupportedIsa"));
}
