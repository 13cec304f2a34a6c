//! tanh and the paper's squash in vectors: a rational minimax fit, absolute error below 5e-7.

use super::simd::Simd;

/// The squash is `AMPLITUDE * tanh(SLOPE * a)`.
pub const AMPLITUDE: f32 = 1.7159;
/// The squash's factor inside tanh.
pub const SLOPE: f32 = 2.0 / 3.0;

/// Beyond it the fit is held: tanh(7.8) = 1 - 3.3e-7.
const LIMIT: f32 = 7.8;
// tanh(x) ≈ x P(x²) / Q(x²) on [0, LIMIT], fitted for the smallest absolute error: 4.4e-9 before rounding.
const P: [f32; 5] = [1.0, 0.134_506_69, 3.579_194_7e-3, 2.203_353_7e-5, 1.545_938_1e-8];
const Q: [f32; 5] = [1.0, 0.467_839_93, 2.619_262_4e-2, 3.424_263_3e-4, 8.607_73e-7];

// The same fit for the squash: AMPLITUDE and SLOPE are in the coefficients.
const SQUASH_P: [f32; 5] = scaled(P, AMPLITUDE as f64 * SLOPE as f64);
const SQUASH_Q: [f32; 5] = scaled(Q, 1.0);

const fn scaled(mut coefficients: [f32; 5], mut factor: f64) -> [f32; 5] {
    let mut k = 0;
    while k < 5 {
        coefficients[k] = (coefficients[k] as f64 * factor) as f32;
        factor *= SLOPE as f64 * SLOPE as f64;
        k += 1;
    }
    coefficients
}

/// `x p(x²) / q(x²)`, held beyond `limit`.
#[inline(always)]
fn rational<S: Simd>(s: S, x: S::V, limit: f32, p: [f32; 5], q: [f32; 5]) -> S::V {
    let x = s.clamp(x, limit);
    let z = s.mul(x, x);
    let (mut above, mut below) = (s.splat(p[4]), s.splat(q[4]));
    for k in [3, 2, 1, 0] {
        above = s.fma(above, z, s.splat(p[k]));
        below = s.fma(below, z, s.splat(q[k]));
    }
    s.div(s.mul(x, above), below)
}

/// `tanh(x)`; NaN stays NaN.
#[inline(always)]
pub fn tanh<S: Simd>(s: S, x: S::V) -> S::V {
    rational(s, x, LIMIT, P, Q)
}

/// `1.7159 tanh(2/3 a)`.
#[inline(always)]
pub fn squash<S: Simd>(s: S, a: S::V) -> S::V {
    rational(s, a, LIMIT / SLOPE, SQUASH_P, SQUASH_Q)
}

/// The squash's derivative, from its value.
#[inline(always)]
pub fn slope<S: Simd>(s: S, out: S::V) -> S::V {
    s.fnma(s.mul(out, s.splat(SLOPE / AMPLITUDE)), out, s.splat(SLOPE * AMPLITUDE))
}
