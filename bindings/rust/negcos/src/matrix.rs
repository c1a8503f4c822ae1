// SPDX-License-Identifier: Apache-2.0
use crate::element::{sealed::Sealed, Element};
use crate::error::Error;
use crate::sys;
use std::marker::PhantomData;

/// The checked shape of a matrix: `row_stride >= cols`, and all of it fits i64.
#[derive(Debug, Clone, Copy)]
struct Shape {
    rows: usize,
    cols: usize,
    row_stride: usize,
}

impl Shape {
    /// Also gives the number of elements from the first to the last.
    fn new(rows: usize, cols: usize, row_stride: usize) -> Result<(Shape, usize), Error> {
        if row_stride < cols {
            return Err(Error::shape(format!("row_stride is {row_stride}, expected at least cols = {cols}")));
        }
        let most = i64::MAX as usize;
        let span = match rows {
            0 => Some(0),
            _ => (rows - 1).checked_mul(row_stride).and_then(|before| before.checked_add(cols)),
        };
        match span {
            Some(span) if span <= most && rows <= most && row_stride <= most => {
                Ok((Shape { rows, cols, row_stride }, span))
            }
            _ => Err(Error::shape(format!(
                "{rows} x {cols} with row_stride {row_stride} is larger than the address space"
            ))),
        }
    }

    /// A matrix whose rows follow each other in all of `length` elements.
    fn dense(length: usize, rows: usize, cols: usize) -> Result<Shape, Error> {
        let (shape, span) = Shape::new(rows, cols, cols)?;
        if length != span {
            return Err(Error::shape(format!("data has {length} elements, expected {span} for {rows} x {cols}")));
        }
        Ok(shape)
    }

    fn strided(length: usize, rows: usize, cols: usize, row_stride: usize) -> Result<Shape, Error> {
        let (shape, span) = Shape::new(rows, cols, row_stride)?;
        if length < span {
            return Err(Error::shape(format!(
                "data has {length} elements, expected at least {span} for {rows} x {cols} with row_stride {row_stride}"
            )));
        }
        Ok(shape)
    }
}

macro_rules! shape_of {
    () => {
        /// Number of rows.
        pub fn rows(&self) -> usize {
            self.shape.rows
        }

        /// Number of columns.
        pub fn cols(&self) -> usize {
            self.shape.cols
        }

        /// Elements from the start of a row to the start of the next.
        pub fn row_stride(&self) -> usize {
            self.shape.row_stride
        }
    };
}

/// A row-major matrix to be read: a borrowed slice with a shape.
// Pointers, as rows of a wider array may have neighbours that others borrow mutably.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a, T> {
    data: *const T,
    shape: Shape,
    borrow: PhantomData<&'a [T]>,
}

// SAFETY: as &[T].
unsafe impl<T: Sync> Send for Matrix<'_, T> {}
unsafe impl<T: Sync> Sync for Matrix<'_, T> {}

impl<'a, T: Element> Matrix<'a, T> {
    /// `rows` x `cols` elements, row after row.
    ///
    /// # Errors
    /// [`Shape`](crate::Status::Shape) when `data` has any other number of elements.
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Result<Self, Error> {
        let shape = Shape::dense(data.len(), rows, cols)?;
        Ok(Matrix { data: data.as_ptr(), shape, borrow: PhantomData })
    }

    /// Rows that begin every `row_stride` elements; what is between them is not read.
    ///
    /// # Errors
    /// [`Shape`](crate::Status::Shape) when `row_stride` is less than `cols`, or `data` ends before the last row does.
    pub fn strided(data: &'a [T], rows: usize, cols: usize, row_stride: usize) -> Result<Self, Error> {
        let shape = Shape::strided(data.len(), rows, cols, row_stride)?;
        Ok(Matrix { data: data.as_ptr(), shape, borrow: PhantomData })
    }

    /// # Safety
    /// The elements of every row are borrowed for 'a.
    #[cfg(feature = "ndarray")]
    pub(crate) unsafe fn from_raw(data: *const T, rows: usize, cols: usize, row_stride: usize) -> Result<Self, Error> {
        let (shape, _) = Shape::new(rows, cols, row_stride)?;
        Ok(Matrix { data, shape, borrow: PhantomData })
    }

    shape_of!();

    pub(crate) fn raw(&self) -> sys::negcos_const_matrix {
        sys::negcos_const_matrix {
            data: self.data.cast(),
            rows: self.shape.rows as i64,
            cols: self.shape.cols as i64,
            row_stride: self.shape.row_stride as i64,
            dtype: <T as Sealed>::DTYPE,
            reserved: 0,
        }
    }
}

/// A row-major matrix to be written: a mutably borrowed slice with a shape.
///
/// A mutable slice by itself is a column, an n x 1 matrix.
#[derive(Debug)]
pub struct MatrixMut<'a, T> {
    data: *mut T,
    shape: Shape,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: as &mut [T].
unsafe impl<T: Send> Send for MatrixMut<'_, T> {}
unsafe impl<T: Sync> Sync for MatrixMut<'_, T> {}

impl<'a, T: Element> MatrixMut<'a, T> {
    /// `rows` x `cols` elements, row after row.
    ///
    /// # Errors
    /// [`Shape`](crate::Status::Shape) when `data` has any other number of elements.
    pub fn new(data: &'a mut [T], rows: usize, cols: usize) -> Result<Self, Error> {
        let shape = Shape::dense(data.len(), rows, cols)?;
        Ok(MatrixMut { data: data.as_mut_ptr(), shape, borrow: PhantomData })
    }

    /// Rows that begin every `row_stride` elements; what is between them stays as it is.
    ///
    /// # Errors
    /// [`Shape`](crate::Status::Shape) when `row_stride` is less than `cols`, or `data` ends before the last row does.
    pub fn strided(data: &'a mut [T], rows: usize, cols: usize, row_stride: usize) -> Result<Self, Error> {
        let shape = Shape::strided(data.len(), rows, cols, row_stride)?;
        Ok(MatrixMut { data: data.as_mut_ptr(), shape, borrow: PhantomData })
    }

    /// # Safety
    /// The elements of every row are borrowed mutably for 'a.
    #[cfg(feature = "ndarray")]
    pub(crate) unsafe fn from_raw(data: *mut T, rows: usize, cols: usize, row_stride: usize) -> Result<Self, Error> {
        let (shape, _) = Shape::new(rows, cols, row_stride)?;
        Ok(MatrixMut { data, shape, borrow: PhantomData })
    }

    shape_of!();

    pub(crate) fn raw(&mut self) -> sys::negcos_matrix {
        sys::negcos_matrix {
            data: self.data.cast(),
            rows: self.shape.rows as i64,
            cols: self.shape.cols as i64,
            row_stride: self.shape.row_stride as i64,
            dtype: <T as Sealed>::DTYPE,
            reserved: 0,
        }
    }
}

impl<'a, T: Element> From<&'a mut [T]> for MatrixMut<'a, T> {
    fn from(column: &'a mut [T]) -> Self {
        let shape = Shape { rows: column.len(), cols: 1, row_stride: 1 };
        MatrixMut { data: column.as_mut_ptr(), shape, borrow: PhantomData }
    }
}

impl<'a, T: Element> From<&'a mut Vec<T>> for MatrixMut<'a, T> {
    fn from(column: &'a mut Vec<T>) -> Self {
        column.as_mut_slice().into()
    }
}

impl<'a, T: Element, const N: usize> From<&'a mut [T; N]> for MatrixMut<'a, T> {
    fn from(column: &'a mut [T; N]) -> Self {
        column.as_mut_slice().into()
    }
}
