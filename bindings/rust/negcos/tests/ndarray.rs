// SPDX-License-Identifier: Apache-2.0
//
// Arrays of the crate ndarray, with its feature.
mod common;

use common::pattern;
use ndarray::{s, Array1, Array2, ArrayView2, ArrayViewMut2, Axis, ShapeBuilder};
use negcos::*;

const BATCH: usize = 6;
const DIM: usize = 5;

fn arrays() -> (Array2<f32>, Array2<f32>) {
    let array = |salt| Array2::from_shape_vec((BATCH, DIM), pattern(BATCH, DIM, DIM, salt)).unwrap();
    (array(7), array(14))
}

#[test]
fn arrays_are_used_in_place() {
    let (queries, documents) = arrays();
    let mut context = Context::new().unwrap();
    let options = Options::new().seed(4);

    let mut expected = Array2::zeros((BATCH, DIM));
    let mut expected_losses = vec![0.0; BATCH];
    let batch = Batch::new((&queries).try_into().unwrap(), (&documents).try_into().unwrap());
    let gradient: MatrixMut<'_, f32> = (&mut expected).try_into().unwrap();
    let outputs = Outputs::new().grad_queries(gradient).losses(&mut expected_losses);
    context.evaluate(&options, &batch, outputs).unwrap();
    assert!(expected.iter().any(|&value| value != 0.0));

    // Columns of wider arrays, every second row, two outputs side by side in one array.
    let mut wide = Array2::from_elem((2 * BATCH, DIM + 3), f32::NAN);
    wide.slice_mut(s![..;2, 1..=DIM]).assign(&queries);
    let input: Matrix<'_, f32> = wide.slice(s![..;2, 1..=DIM]).try_into().unwrap();
    assert_eq!((input.rows(), input.cols(), input.row_stride()), (BATCH, DIM, 2 * (DIM + 3)));
    let mut out = Array2::from_elem((BATCH, DIM + 2), -7.0);
    let (gradient, rest) = out.view_mut().split_at(Axis(1), DIM);
    let (losses, _) = rest.split_at(Axis(1), 1);
    let losses = losses.index_axis_move(Axis(1), 0);
    let batch = Batch::new(input, documents.view().try_into().unwrap());
    let outputs = Outputs::new()
        .grad_queries(MatrixMut::try_from(gradient).unwrap())
        .losses(MatrixMut::try_from(losses).unwrap());
    context.evaluate(&options, &batch, outputs).unwrap();
    assert_eq!(out.slice(s![.., ..DIM]), expected);
    assert_eq!(out.slice(s![.., DIM]), Array1::from(expected_losses));
    assert!(out.slice(s![.., DIM + 1]).iter().all(|&value| value == -7.0), "the gap was written");
}

#[test]
fn strides_that_need_a_copy_are_errors() {
    let mut array = arrays().0;
    let refused = |error: Error, message: &str| {
        assert_eq!(error.status, Status::Shape);
        assert!(error.message.starts_with(message), "{error}");
    };
    let refused_view = |view: ArrayView2<'_, f32>, message: &str| refused(Matrix::try_from(view).unwrap_err(), message);
    let expected = "expected [at least 6, 1]";
    let message = format!("the strides of an array of 5 x 6 are [1, 5], {expected}");
    refused_view(array.t(), &message);
    refused(MatrixMut::try_from(array.view_mut().reversed_axes()).unwrap_err(), &message);
    refused_view(array.slice(s![.., ..;2]), "the strides of an array of 6 x 3 are [5, 2]");
    refused_view(array.slice(s![..;-1, ..]), "the strides of an array of 6 x 5 are [-5, 1]");
    let row = array.row(0).to_owned();
    refused_view(row.broadcast((4, DIM)).unwrap(), "the strides of an array of 4 x 5 are [0, 1]");
    let upside_down = array.slice_mut(s![..;-1, 0]);
    refused(MatrixMut::try_from(upside_down).unwrap_err(), "the strides of an array of 6 x 1 are [-5, 1]");
    let mut columns = Array2::<f32>::zeros((3, 4).f());
    refused(Matrix::try_from(&columns).unwrap_err(), "the strides of an array of 3 x 4 are [1, 3]");
    refused(MatrixMut::try_from(&mut columns).unwrap_err(), "the strides of an array of 3 x 4 are [1, 3]");
}

#[test]
fn strides_of_a_single_row_or_column_are_anything() {
    let array = arrays().0;
    let row = array.slice(s![3..4;-1, ..]);
    let row = Matrix::try_from(row).unwrap();
    assert_eq!((row.rows(), row.cols()), (1, DIM));
    let column = Matrix::try_from(array.slice(s![.., 2..3])).unwrap();
    assert_eq!((column.rows(), column.cols(), column.row_stride()), (BATCH, 1, DIM));
    let columns = Array2::<f64>::zeros((3, 1).f());
    assert_eq!(Matrix::try_from(&columns).unwrap().row_stride(), 1);
    let empty = ArrayView2::<f32>::from_shape((0, 4), &[]).unwrap();
    assert_eq!(Matrix::try_from(empty).unwrap().rows(), 0);
    let empty = ArrayViewMut2::<f32>::from_shape((4, 0), &mut []).unwrap();
    assert_eq!(MatrixMut::try_from(empty).unwrap().rows(), 4);
}
