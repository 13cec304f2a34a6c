//! WebAssembly's simd128, with eight lanes in two vectors.
#![allow(unsafe_code)]

use std::arch::wasm32::*;

use super::{Simd, WithSimd};

/// WebAssembly's simd128. A module that has its instructions is rejected as a whole where they are missing, so this token
/// needs no check at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Simd128;

impl Simd128 {
    pub fn run<W: WithSimd>(self, work: W) -> W::Output {
        work.with_simd(self)
    }
}

type V = (v128, v128);

impl Simd for Simd128 {
    type V = V;
    const LANES: usize = 8;

    #[inline(always)]
    fn splat(self, x: f32) -> V {
        (f32x4_splat(x), f32x4_splat(x))
    }
    #[inline(always)]
    fn load(self, from: &[f32], at: usize) -> V {
        let (low, high) = from[at..at + 8].split_at(4);
        // SAFETY: each slice is as long as a vector.
        unsafe { (v128_load(low.as_ptr().cast()), v128_load(high.as_ptr().cast())) }
    }
    #[inline(always)]
    fn store(self, to: &mut [f32], at: usize, v: V) {
        let (low, high) = to[at..at + 8].split_at_mut(4);
        // SAFETY: each slice is as long as a vector.
        unsafe {
            v128_store(low.as_mut_ptr().cast(), v.0);
            v128_store(high.as_mut_ptr().cast(), v.1);
        }
    }
    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        (f32x4_add(a.0, b.0), f32x4_add(a.1, b.1))
    }
    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        (f32x4_sub(a.0, b.0), f32x4_sub(a.1, b.1))
    }
    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        (f32x4_mul(a.0, b.0), f32x4_mul(a.1, b.1))
    }
    #[inline(always)]
    fn div(self, a: V, b: V) -> V {
        (f32x4_div(a.0, b.0), f32x4_div(a.1, b.1))
    }
    #[inline(always)]
    fn clamp(self, a: V, limit: f32) -> V {
        // f32x4.min and f32x4.max are NaN if one operand is NaN.
        let (least, most) = (f32x4_splat(-limit), f32x4_splat(limit));
        (f32x4_max(least, f32x4_min(most, a.0)), f32x4_max(least, f32x4_min(most, a.1)))
    }
    #[inline(always)]
    fn floor(self, a: V) -> V {
        (f32x4_floor(a.0), f32x4_floor(a.1))
    }
    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        (f32x4_pmax(b.0, a.0), f32x4_pmax(b.1, a.1))
    }
    #[inline(always)]
    fn select_ge(self, a: V, b: V, x: V, y: V) -> V {
        (v128_bitselect(x.0, y.0, f32x4_ge(a.0, b.0)), v128_bitselect(x.1, y.1, f32x4_ge(a.1, b.1)))
    }
    // simd128 has no fused multiply-add. That of relaxed-simd may or may not round in between.
    #[inline(always)]
    fn fma(self, a: V, b: V, c: V) -> V {
        self.add(self.mul(a, b), c)
    }
    #[inline(always)]
    fn fnma(self, a: V, b: V, c: V) -> V {
        self.sub(c, self.mul(a, b))
    }
    #[inline(always)]
    fn sum(self, a: V) -> f32 {
        let four = f32x4_add(a.0, a.1);
        let two = f32x4_add(four, i32x4_shuffle::<2, 3, 2, 3>(four, four));
        f32x4_extract_lane::<0>(two) + f32x4_extract_lane::<1>(two)
    }
    #[inline(always)]
    fn zip(self, a: V, b: V) -> (V, V) {
        let zip = |a, b| (i32x4_shuffle::<0, 4, 1, 5>(a, b), i32x4_shuffle::<2, 6, 3, 7>(a, b));
        (zip(a.0, b.0), zip(a.1, b.1))
    }
    #[inline(always)]
    fn unzip(self, a: V, b: V) -> (V, V) {
        let even = |v: V| i32x4_shuffle::<0, 2, 4, 6>(v.0, v.1);
        let odd = |v: V| i32x4_shuffle::<1, 3, 5, 7>(v.0, v.1);
        ((even(a), even(b)), (odd(a), odd(b)))
    }
    #[inline(always)]
    fn min(self, a: V, b: V) -> V {
        (f32x4_pmin(b.0, a.0), f32x4_pmin(b.1, a.1))
    }
    #[inline(always)]
    fn abs(self, a: V) -> V {
        (f32x4_abs(a.0), f32x4_abs(a.1))
    }
    #[inline(always)]
    fn with_sign(self, a: V, sign: V) -> V {
        let mask = u32x4_splat(1 << 31);
        (v128_bitselect(sign.0, a.0, mask), v128_bitselect(sign.1, a.1, mask))
    }
}
