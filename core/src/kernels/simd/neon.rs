//! NEON, with eight lanes in two registers.
#![allow(unsafe_code)]

use std::arch::aarch64::*;
use std::arch::is_aarch64_feature_detected;

use super::{Simd, WithSimd};

/// Proof that this machine has NEON. Only `detect` creates one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neon(());

impl Neon {
    pub fn detect() -> Option<Self> {
        is_aarch64_feature_detected!("neon").then_some(Neon(()))
    }

    pub fn run<W: WithSimd>(self, work: W) -> W::Output {
        #[target_feature(enable = "neon")]
        fn wrapper<W: WithSimd>(token: Neon, work: W) -> W::Output {
            work.with_simd(token)
        }
        // SAFETY: `self` exists, so `detect` found NEON.
        unsafe { wrapper(self, work) }
    }
}

type V = (float32x4_t, float32x4_t);

impl Simd for Neon {
    type V = V;
    const LANES: usize = 8;

    #[inline(always)]
    fn splat(self, x: f32) -> V {
        // SAFETY: the token exists, so the machine has the instructions.
        unsafe { (vdupq_n_f32(x), vdupq_n_f32(x)) }
    }
    #[inline(always)]
    fn load(self, from: &[f32], at: usize) -> V {
        let (low, high) = from[at..at + 8].split_at(4);
        // SAFETY: the token exists, so the machine has the instructions; each slice is as long as a register.
        unsafe { (vld1q_f32(low.as_ptr()), vld1q_f32(high.as_ptr())) }
    }
    #[inline(always)]
    fn store(self, to: &mut [f32], at: usize, v: V) {
        let (low, high) = to[at..at + 8].split_at_mut(4);
        // SAFETY: the token exists, so the machine has the instructions; each slice is as long as a register.
        unsafe {
            vst1q_f32(low.as_mut_ptr(), v.0);
            vst1q_f32(high.as_mut_ptr(), v.1);
        }
    }
    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        // SAFETY: the token exists, so the machine has the instructions.
        unsafe { (vaddq_f32(a.0, b.0), vaddq_f32(a.1, b.1)) }
    }
    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        // SAFETY: the token exists, so the machine has the instructions.
        unsafe { (vsubq_f32(a.0, b.0), vsubq_f32(a.1, b.1)) }
    }
    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        // SAFETY: the token exists, so the machine has the instructions.
        unsafe { (vmulq_f32(a.0, b.0), vmulq_f32(a.1, b.1)) }
    }
    #[inline(always)]
    fn div(self, a: V, b: V) -> V {
        // SAFETY: the token exists, so the machine has the instructions.
        unsafe { (vdivq_f32(a.0, b.0), vdivq_f32(a.1, b.1)) }
    }
    #[inline(always)]
    fn clamp(self, a: V, limit: f32) -> V {
        // FMIN and FMAX return NaN if one operand is NaN.
        // SAFETY: the token exists, so the machine has the instructions.
        unsafe {
            let (least, most) = (vdupq_n_f32(-limit), vdupq_n_f32(limit));
            (vmaxq_f32(least, vminq_f32(most, a.0)), vmaxq_f32(least, vminq_f32(most, a.1)))
        }
    }
    #[inline(always)]
    fn floor(self, a: V) -> V {
        // SAFETY: the token exists, so the machine has the instructions.
        unsafe { (vrndmq_f32(a.0), vrndmq_f32(a.1)) }
    }
    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        // SAFETY: the token exists, so the machine has the instructions.
        unsafe { (vmaxq_f32(a.0, b.0), vmaxq_f32(a.1, b.1)) }
    }
    #[inline(always)]
    fn select_ge(self, a: V, b: V, x: V, y: V) -> V {
        // SAFETY: the token exists, so the machine has the instructions.
        unsafe {
            (vbslq_f32(vcgeq_f32(a.0, b.0), x.0, y.0), vbslq_f32(vcgeq_f32(a.1, b.1), x.1, y.1))
        }
    }
    #[inline(always)]
    fn fma(self, a: V, b: V, c: V) -> V {
        // SAFETY: the token exists, so the machine has the instructions.
        unsafe { (vfmaq_f32(c.0, a.0, b.0), vfmaq_f32(c.1, a.1, b.1)) }
    }
    #[inline(always)]
    fn fnma(self, a: V, b: V, c: V) -> V {
        // SAFETY: the token exists, so the machine has the instructions.
        unsafe { (vfmsq_f32(c.0, a.0, b.0), vfmsq_f32(c.1, a.1, b.1)) }
    }
    #[inline(always)]
    fn sum(self, a: V) -> f32 {
        // SAFETY: the token exists, so the machine has the instructions.
        unsafe { vaddvq_f32(vaddq_f32(a.0, a.1)) }
    }
    #[inline(always)]
    fn zip(self, a: V, b: V) -> (V, V) {
        // SAFETY: the token exists, so the machine has the instructions.
        unsafe {
            (
                (vzip1q_f32(a.0, b.0), vzip2q_f32(a.0, b.0)),
                (vzip1q_f32(a.1, b.1), vzip2q_f32(a.1, b.1)),
            )
        }
    }
    #[inline(always)]
    fn unzip(self, a: V, b: V) -> (V, V) {
        // SAFETY: the token exists, so the machine has the instructions.
        unsafe {
            (
                (vuzp1q_f32(a.0, a.1), vuzp1q_f32(b.0, b.1)),
                (vuzp2q_f32(a.0, a.1), vuzp2q_f32(b.0, b.1)),
            )
        }
    }
    #[inline(always)]
    fn min(self, a: V, b: V) -> V {
        // FMIN returns NaN if one operand is NaN.
        // SAFETY: the token exists, so the machine has the instructions.
        unsafe { (vminq_f32(a.0, b.0), vminq_f32(a.1, b.1)) }
    }
    #[inline(always)]
    fn abs(self, a: V) -> V {
        // SAFETY: the token exists, so the machine has the instructions.
        unsafe { (vabsq_f32(a.0), vabsq_f32(a.1)) }
    }
    #[inline(always)]
    fn with_sign(self, a: V, sign: V) -> V {
        // SAFETY: the token exists, so the machine has the instructions.
        unsafe {
            let mask = vdupq_n_u32(1 << 31);
            (vbslq_f32(mask, sign.0, a.0), vbslq_f32(mask, sign.1, a.1))
        }
    }
}
