// SPDX-License-Identifier: Apache-2.0
//
// What each input does, in cases small enough to say what has to come out.
mod common;

use common::pattern;
use negcos::*;

const BATCH: usize = 6;
const DIM: usize = 5;

fn matrix(data: &[f64]) -> Matrix<'_, f64> {
    Matrix::new(data, data.len() / DIM, DIM).unwrap()
}

fn inputs() -> (Vec<f64>, Vec<f64>) {
    (pattern(BATCH, DIM, DIM, 7), pattern(BATCH, DIM, DIM, 14))
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt())
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-12 * (1.0 + b.abs())
}

#[test]
fn the_formula() {
    let (queries, documents) = inputs();
    let mut losses = [0.0; BATCH];
    let mut hit_probability = vec![0.0; BATCH];
    let evaluation = Context::new()
        .unwrap()
        .evaluate(
            &Options::new().sampling(Sampling::All).scale(3.0).temperature(0.5),
            &Batch::new(matrix(&queries), matrix(&documents)),
            Outputs::new().losses(&mut losses).hit_probability(&mut hit_probability),
        )
        .unwrap();
    let mut hits = 0;
    for i in 0..BATCH {
        let row = |data: &'_ [f64], i: usize| data[i * DIM..(i + 1) * DIM].to_vec();
        let logits: Vec<f64> = (0..BATCH).map(|j| 6.0 * cosine(&row(&queries, i), &row(&documents, j))).collect();
        let loss = logits.iter().map(|z| z.exp()).sum::<f64>().ln() - logits[i];
        assert!(near(losses[i], loss), "{} is not {loss}", losses[i]);
        assert!(near(hit_probability[i], (-loss).exp()));
        hits += (0..BATCH).all(|j| j == i || logits[j] < logits[i]) as usize;
    }
    assert!(near(evaluation.loss, losses.iter().sum::<f64>() / BATCH as f64));
    assert_eq!(evaluation.accuracy, hits as f64 / BATCH as f64);
    assert_eq!((evaluation.excluded, evaluation.zero_rows, evaluation.grad_bias), (0, 0, 0.0));
}

#[test]
fn gradients_are_slopes() {
    let (mut queries, mut documents) = inputs();
    let mut hard: Vec<f64> = pattern(2 * BATCH, DIM, DIM, 21);
    let options = Options::new().rounds(3).scale(5.0).reduction(Reduction::Sum).hardness(0.0).margin(0.1);
    let mut context = Context::new().unwrap();
    let (mut dq, mut dd, mut dh) = (queries.clone(), documents.clone(), hard.clone());
    let shape = |data, rows| MatrixMut::new(data, rows, DIM).unwrap();
    let batch = Batch::new(matrix(&queries), matrix(&documents)).hard_negatives(matrix(&hard));
    let outputs = Outputs::new()
        .grad_queries(shape(&mut dq, BATCH))
        .grad_documents(shape(&mut dd, BATCH))
        .grad_hard_negatives(shape(&mut dh, 2 * BATCH));
    let exact = context.evaluate(&options, &batch, outputs).unwrap();

    let h = 1e-6;
    let mut loss = |queries: &[f64], documents: &[f64], hard: &[f64], scale: f64| {
        let batch = Batch::new(matrix(queries), matrix(documents)).hard_negatives(matrix(hard));
        context.evaluate(&options.scale(scale), &batch, Outputs::new()).unwrap().loss
    };
    macro_rules! slopes {
        ($changed:ident, $gradient:ident) => {
            for k in 0..$changed.len() {
                let value = $changed[k];
                $changed[k] = value + h;
                let above = loss(&queries, &documents, &hard, 5.0);
                $changed[k] = value - h;
                let below = loss(&queries, &documents, &hard, 5.0);
                $changed[k] = value;
                let slope = (above - below) / (2.0 * h);
                assert!((slope - $gradient[k]).abs() < 1e-6, "{k}: {slope} is not {}", $gradient[k]);
            }
        };
    }
    slopes!(queries, dq);
    slopes!(documents, dd);
    slopes!(hard, dh);
    let slope = (loss(&queries, &documents, &hard, 5.0 + h) - loss(&queries, &documents, &hard, 5.0 - h)) / (2.0 * h);
    assert!((slope - exact.grad_scale).abs() < 1e-6);
}

/// The losses of a call.
fn losses(options: &Options<'_>, batch: &Batch<'_, f64>) -> Vec<f64> {
    let mut losses = vec![0.0; BATCH];
    Context::new().unwrap().evaluate(options, batch, Outputs::new().losses(&mut losses)).unwrap();
    losses
}

#[test]
fn positives_say_which_row_is_whose() {
    let (queries, documents) = inputs();
    let options = Options::new().sampling(Sampling::All);
    let batch = Batch::new(matrix(&queries), matrix(&documents));
    let reversed: Vec<f64> = documents.chunks(DIM).rev().flatten().copied().collect();
    let positives: Vec<i64> = (0..BATCH as i64).rev().collect();
    let expected = losses(&options, &batch);
    let got = losses(&options, &Batch::new(matrix(&queries), matrix(&reversed)).positives(&positives));
    assert!(got.iter().zip(&expected).all(|(a, b)| near(*a, *b)), "{got:?} is not {expected:?}");
}

#[test]
fn negatives_are_those_given() {
    let (queries, documents) = inputs();
    let batch = Batch::new(matrix(&queries), matrix(&documents));
    let shuffled = Options::new().rounds(2).seed(3);
    let mut negatives = vec![0; BATCH * 2];
    let mut context = Context::new().unwrap();
    context.sample(&shuffled, BATCH, BATCH, &mut negatives).unwrap();
    let given = shuffled.sampling(Sampling::Given);
    assert_eq!(losses(&given, &batch.negatives(&negatives)), losses(&shuffled, &batch));
    // An absent one is as if it was not there.
    let absent = [-1; BATCH * 2];
    assert_eq!(losses(&given, &batch.negatives(&absent)), [0.0; BATCH]);
    // Without GIVEN they are not read, whatever their length.
    assert_eq!(losses(&shuffled, &batch.negatives(&absent[..1])), losses(&shuffled, &batch));
}

#[test]
fn ids_drop_negatives() {
    let (queries, documents) = inputs();
    let same = [5_i64; BATCH];
    let batch = Batch::new(matrix(&queries), matrix(&documents)).document_ids(&same).query_ids(&same);
    let all = Options::new().sampling(Sampling::All);
    for exclude in [Exclude::SAME_DOCUMENT_ID, Exclude::SAME_QUERY_ID] {
        assert_eq!(losses(&all.exclude(exclude), &batch), [0.0; BATCH]);
    }
    let distinct: Vec<i64> = (0..BATCH as i64).collect();
    let kept = all.exclude(Exclude::SAME_DOCUMENT_ID);
    let got = losses(&kept, &batch.document_ids(&distinct));
    assert!(got.iter().zip(losses(&all, &batch)).all(|(a, b)| near(*a, b)));
}

#[test]
fn log_probability_is_taken_off() {
    let (queries, documents) = inputs();
    let batch = Batch::new(matrix(&queries), matrix(&documents));
    let options = Options::new().sampling(Sampling::All);
    // The same for all documents: all logits rise alike; for the negatives alone: it tells.
    let log_probability = [-2.0; BATCH];
    let corrected = batch.log_probability(&log_probability);
    let expected = losses(&options, &batch);
    assert!(losses(&options, &corrected).iter().zip(&expected).all(|(a, b)| near(*a, *b)));
    let negatives_only = options.correction(Correction::NegativesOnly);
    assert!(losses(&negatives_only, &corrected).iter().zip(&expected).all(|(a, b)| a > b));
}

#[test]
fn weights_weigh() {
    let (queries, documents) = inputs();
    let options = Options::new().sampling(Sampling::All);
    let batch = Batch::new(matrix(&queries), matrix(&documents));
    let weights = [0.0, 0.0, 2.0, 0.0, 1.0, 0.0];
    let expected = losses(&options, &batch);
    let got = Context::new().unwrap().evaluate(&options, &batch.weights(&weights), Outputs::new()).unwrap();
    assert!(near(got.loss, (2.0 * expected[2] + expected[4]) / 3.0));
}

#[test]
fn prefixes_add_up() {
    let (queries, documents) = inputs();
    let options = Options::new().sampling(Sampling::All);
    let whole = losses(&options, &Batch::new(matrix(&queries), matrix(&documents)));
    let strided = |data| Matrix::strided(data, BATCH, 2, DIM).unwrap();
    let narrow = losses(&options, &Batch::new(strided(&queries), strided(&documents)));
    let (dims, weights) = ([2, DIM as i32], [3.0, 0.5]);
    let both = options.prefix_dims(&dims).prefix_weights(&weights);
    let got = losses(&both, &Batch::new(matrix(&queries), matrix(&documents)));
    for i in 0..BATCH {
        assert!(near(got[i], 3.0 * narrow[i] + 0.5 * whole[i]));
    }
}

#[test]
fn numbers_of_16_bits_are_rounded_once() {
    let expected = {
        let (queries, documents): (Vec<f32>, Vec<f32>) = (pattern(BATCH, DIM, DIM, 7), pattern(BATCH, DIM, DIM, 14));
        let mut losses = [0.0_f32; BATCH];
        let matrix = |data| Matrix::new(data, BATCH, DIM).unwrap();
        let batch = Batch::new(matrix(&queries), matrix(&documents));
        Context::new().unwrap().evaluate(&Options::new(), &batch, Outputs::new().losses(&mut losses)).unwrap();
        losses
    };
    let (queries, documents): (Vec<F16>, Vec<F16>) = (pattern(BATCH, DIM, DIM, 7), pattern(BATCH, DIM, DIM, 14));
    let mut losses = [F16::default(); BATCH];
    let matrix = |data| Matrix::new(data, BATCH, DIM).unwrap();
    let batch = Batch::new(matrix(&queries), matrix(&documents));
    Context::new().unwrap().evaluate(&Options::new(), &batch, Outputs::new().losses(&mut losses)).unwrap();
    assert_eq!(losses, expected.map(F16::from_f32));
}

#[test]
fn an_empty_batch() {
    let nothing: [f32; 0] = [];
    let empty = Matrix::new(&nothing, 0, DIM).unwrap();
    let evaluation =
        Context::new().unwrap().evaluate(&Options::new(), &Batch::new(empty, empty), Outputs::new()).unwrap();
    assert_eq!(evaluation.loss, 0.0);
    assert!(evaluation.accuracy.is_nan() && evaluation.mean_reciprocal_rank.is_nan());
}

#[test]
fn zero_rows_are_counted() {
    let (mut queries, documents) = inputs();
    queries[..DIM].fill(0.0);
    let batch = Batch::new(matrix(&queries), matrix(&documents));
    assert_eq!(Context::new().unwrap().evaluate(&Options::new(), &batch, Outputs::new()).unwrap().zero_rows, 1);
}

#[test]
fn what_is_there() {
    let (major, minor, patch) = version();
    assert_eq!(format!("{major}.{minor}.{patch}"), env!("CARGO_PKG_VERSION"));
    let built: Vec<&str> = isas().collect();
    assert_eq!(built.last(), Some(&"scalar"));
    assert!(isa_available("scalar") && !isa_available("abacus") && !isa_available("sca\0lar"));
    let context = Context::builder().isa("scalar").threads(2).build().unwrap();
    assert_eq!((context.isa(), context.threads()), ("scalar", 2));
    assert!(format!("{context:?}").contains("scalar"));
}
