// SPDX-License-Identifier: Apache-2.0
use crate::sys;

pub(crate) mod sealed {
    pub trait Sealed {
        const DTYPE: i32;
    }
}

/// An element type of matrices: [`f32`], [`f64`], [`F16`] and [`Bf16`]. The last two are computed in f32 and rounded
/// once on store.
pub trait Element: sealed::Sealed + Copy + Send + Sync + 'static {}

macro_rules! element {
    ($type:ty, $dtype:ident) => {
        impl sealed::Sealed for $type {
            const DTYPE: i32 = sys::$dtype;
        }
        impl Element for $type {}
    };
}
element!(f32, NEGCOS_DTYPE_F32);
element!(f64, NEGCOS_DTYPE_F64);
element!(F16, NEGCOS_DTYPE_F16);
element!(Bf16, NEGCOS_DTYPE_BF16);

macro_rules! half {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// Its bits in a `u16`, and no arithmetic. Slices of bits, such as those of the crate `half`, are used as they
        /// are: [`from_bits_slice`](Self::from_bits_slice).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(u16);

        impl $name {
            /// From its bits.
            pub const fn from_bits(bits: u16) -> Self {
                Self(bits)
            }

            /// Its bits.
            pub const fn to_bits(self) -> u16 {
                self.0
            }

            /// A slice of bits, seen as numbers.
            pub fn from_bits_slice(bits: &[u16]) -> &[Self] {
                // SAFETY: repr(transparent).
                unsafe { std::slice::from_raw_parts(bits.as_ptr().cast(), bits.len()) }
            }

            /// A mutable slice of bits, seen as numbers.
            pub fn from_bits_slice_mut(bits: &mut [u16]) -> &mut [Self] {
                // SAFETY: repr(transparent).
                unsafe { std::slice::from_raw_parts_mut(bits.as_mut_ptr().cast(), bits.len()) }
            }
        }

        impl From<$name> for f32 {
            fn from(value: $name) -> f32 {
                value.to_f32()
            }
        }
    };
}
half! {
    /// A number of 16 bits, IEEE 754 binary16: 11 significant bits, up to 65504.
    F16
}
half! {
    /// A number of 16 bits with the exponent of f32 and 8 significant bits (bfloat16).
    Bf16
}

impl F16 {
    /// The nearest number, ties to even; infinite from 65520 on.
    pub fn from_f32(value: f32) -> F16 {
        let sign = (value.to_bits() >> 16 & 0x8000) as u16;
        let size = value.abs();
        let bits = size.to_bits();
        let rest = if value.is_nan() {
            0x7e00 | (bits >> 13 & 0x3ff)
        } else if size >= 65520.0 {
            0x7c00
        } else if size < f32::from_bits(0x3880_0000) {
            // Below 2^-14, the least normal number: in [0.5, 1) a f32 has exactly F16's spacing of 2^-24.
            (size + 0.5).to_bits() - 0.5f32.to_bits()
        } else {
            ((bits + 0xfff + (bits >> 13 & 1)) >> 13) - (112 << 10)
        };
        F16(sign | rest as u16)
    }

    /// Exact.
    pub fn to_f32(self) -> f32 {
        let sign = u32::from(self.0 & 0x8000) << 16;
        let (exponent, fraction) = (u32::from(self.0 >> 10 & 31), u32::from(self.0 & 0x3ff));
        let size = match exponent {
            0 => (fraction as f32 / 16_777_216.0).to_bits(),
            31 => 0x7f80_0000 | fraction << 13,
            _ => (exponent + 112) << 23 | fraction << 13,
        };
        f32::from_bits(sign | size)
    }
}

impl Bf16 {
    /// The nearest number, ties to even.
    pub fn from_f32(value: f32) -> Bf16 {
        let bits = value.to_bits();
        if value.is_nan() {
            return Bf16((bits >> 16) as u16 | 0x40);
        }
        Bf16(((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16)
    }

    /// Exact.
    pub fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Every number there is, and halfway to its neighbour and just beside that.
    fn check(to: fn(u16) -> f32, from: fn(f32) -> u16, infinity: u16) {
        for bits in 0..infinity {
            let value = to(bits);
            assert_eq!(from(value), bits);
            assert_eq!(from(-value), bits | 0x8000);
            if bits + 1 < infinity {
                let (low, high) = (f64::from(value), f64::from(to(bits + 1)));
                let middle = ((low + high) / 2.0) as f32; // exact: f32 has more digits
                assert_eq!(from(middle), bits + (bits & 1), "{middle}");
                let near = |step: i32| f32::from_bits((middle.to_bits() as i32 + step) as u32);
                assert_eq!(from(near(-1)), bits);
                assert_eq!(from(near(1)), bits + 1);
            }
        }
        assert_eq!(from(f32::INFINITY), infinity);
        assert_eq!(from(f32::MAX), infinity);
        assert_eq!(from(f32::NEG_INFINITY), infinity | 0x8000);
        assert!(to(infinity).is_infinite());
        assert!(to(infinity | 1).is_nan());
        assert!(to(from(f32::NAN)).is_nan());
        assert!(to(from(f32::from_bits(0x7f80_0001))).is_nan());
    }

    #[test]
    fn f16_rounds_to_nearest_even() {
        check(|bits| F16::from_bits(bits).to_f32(), |value| F16::from_f32(value).to_bits(), 0x7c00);
        assert_eq!(F16::from_f32(65519.99), F16::from_f32(65504.0));
        assert_eq!(F16::from_f32(65520.0).to_bits(), 0x7c00);
        assert_eq!(f32::from(F16::from_f32(1.5)), 1.5);
    }

    #[test]
    fn bf16_rounds_to_nearest_even() {
        check(|bits| Bf16::from_bits(bits).to_f32(), |value| Bf16::from_f32(value).to_bits(), 0x7f80);
        assert_eq!(f32::from(Bf16::from_f32(-2.5)), -2.5);
    }

    #[test]
    fn slices_of_bits_are_used_in_place() {
        let mut bits = [0x3c00, 0xc000];
        assert_eq!(F16::from_bits_slice(&bits)[1].to_f32(), -2.0);
        F16::from_bits_slice_mut(&mut bits)[0] = F16::from_f32(2.0);
        assert_eq!(bits, [0x4000, 0xc000]);
        assert_eq!(Bf16::from_bits_slice(&[0x3f80])[0].to_f32(), 1.0);
    }
}
