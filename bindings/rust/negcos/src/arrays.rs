// SPDX-License-Identifier: Apache-2.0
//
// Views of arrays of the crate ndarray, used in place.
use crate::element::Element;
use crate::error::Error;
use crate::matrix::{Matrix, MatrixMut};
use ndarray::{Array2, ArrayView2, ArrayViewMut1, ArrayViewMut2};

/// The row stride of an array with these strides, which must have its rows in one piece each. Strides along which
/// there are no two elements are anything.
fn row_stride(shape: (usize, usize), strides: &[isize]) -> Result<usize, Error> {
    let (rows, cols) = shape;
    if rows <= 1 && cols <= 1 || rows == 0 || cols == 0 {
        return Ok(cols);
    }
    let row_stride = if rows > 1 { strides[0] } else { cols as isize };
    if cols > 1 && strides[1] != 1 || row_stride < cols as isize {
        return Err(Error::shape(format!(
            "the strides of an array of {rows} x {cols} are {strides:?}, expected [at least {cols}, 1]: each row in \
             one piece, rows rising (as_standard_layout copies it so)"
        )));
    }
    Ok(row_stride as usize)
}

/// # Errors
/// [`Shape`](crate::Status::Shape) when the rows are not contiguous, or do not rise.
impl<'a, T: Element> TryFrom<ArrayView2<'a, T>> for Matrix<'a, T> {
    type Error = Error;
    fn try_from(array: ArrayView2<'a, T>) -> Result<Self, Error> {
        let (rows, cols) = array.dim();
        let row_stride = row_stride((rows, cols), array.strides())?;
        // SAFETY: the view borrows all its elements for 'a.
        unsafe { Matrix::from_raw(array.as_ptr(), rows, cols, row_stride) }
    }
}

/// # Errors
/// [`Shape`](crate::Status::Shape) when the array is column-major.
impl<'a, T: Element> TryFrom<&'a Array2<T>> for Matrix<'a, T> {
    type Error = Error;
    fn try_from(array: &'a Array2<T>) -> Result<Self, Error> {
        array.view().try_into()
    }
}

/// # Errors
/// [`Shape`](crate::Status::Shape) when the rows are not contiguous, or do not rise.
impl<'a, T: Element> TryFrom<ArrayViewMut2<'a, T>> for MatrixMut<'a, T> {
    type Error = Error;
    fn try_from(mut array: ArrayViewMut2<'a, T>) -> Result<Self, Error> {
        let (rows, cols) = array.dim();
        let row_stride = row_stride((rows, cols), array.strides())?;
        // SAFETY: the view borrows all its elements mutably for 'a, and is used up.
        unsafe { MatrixMut::from_raw(array.as_mut_ptr(), rows, cols, row_stride) }
    }
}

/// # Errors
/// [`Shape`](crate::Status::Shape) when the array is column-major.
impl<'a, T: Element> TryFrom<&'a mut Array2<T>> for MatrixMut<'a, T> {
    type Error = Error;
    fn try_from(array: &'a mut Array2<T>) -> Result<Self, Error> {
        array.view_mut().try_into()
    }
}

/// A column, such as [`Outputs::losses`](crate::Outputs::losses) takes.
///
/// # Errors
/// [`Shape`](crate::Status::Shape) when the stride is negative.
impl<'a, T: Element> TryFrom<ArrayViewMut1<'a, T>> for MatrixMut<'a, T> {
    type Error = Error;
    fn try_from(mut array: ArrayViewMut1<'a, T>) -> Result<Self, Error> {
        let rows = array.len();
        let row_stride = row_stride((rows, 1), &[array.strides()[0], 1])?;
        // SAFETY: the view borrows all its elements mutably for 'a, and is used up.
        unsafe { MatrixMut::from_raw(array.as_mut_ptr(), rows, 1, row_stride) }
    }
}
