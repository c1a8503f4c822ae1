// SPDX-License-Identifier: Apache-2.0
#![allow(dead_code)] // each test uses a part

use negcos::{Bf16, Element, F16};

/// A file of the repository.
pub fn repository(path: &str) -> String {
    let path = format!("{}/../../../{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// An element type with what the tests do with it.
pub trait Number: Element {
    const NAME: &'static str;
    fn of(value: f32) -> Self;
    fn f64(self) -> f64;
    fn bits(self) -> u64;
    const BYTES: usize = std::mem::size_of::<Self>();
}

impl Number for f32 {
    const NAME: &'static str = "f32";
    fn of(value: f32) -> Self {
        value
    }
    fn f64(self) -> f64 {
        self.into()
    }
    fn bits(self) -> u64 {
        self.to_bits().into()
    }
}

impl Number for f64 {
    const NAME: &'static str = "f64";
    fn of(value: f32) -> Self {
        value.into()
    }
    fn f64(self) -> f64 {
        self
    }
    fn bits(self) -> u64 {
        self.to_bits()
    }
}

impl Number for F16 {
    const NAME: &'static str = "f16";
    fn of(value: f32) -> Self {
        F16::from_f32(value)
    }
    fn f64(self) -> f64 {
        self.to_f32().into()
    }
    fn bits(self) -> u64 {
        self.to_bits().into()
    }
}

impl Number for Bf16 {
    const NAME: &'static str = "bf16";
    fn of(value: f32) -> Self {
        Bf16::from_f32(value)
    }
    fn f64(self) -> f64 {
        self.to_f32().into()
    }
    fn bits(self) -> u64 {
        self.to_bits().into()
    }
}

/// The inputs of the golden calls: exact in every type. What is between the rows is not a number.
pub fn pattern<T: Number>(rows: usize, cols: usize, row_stride: usize, salt: usize) -> Vec<T> {
    let mut data = vec![T::of(f32::NAN); if rows == 0 { 0 } else { (rows - 1) * row_stride + cols }];
    for i in 0..rows {
        for j in 0..cols {
            let step = (i * 31 + j * 17 + salt + i * j * 3) % 41;
            data[i * row_stride + j] = T::of((step as f32 - 20.0) / 16.0);
        }
    }
    data
}
