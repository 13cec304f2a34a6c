//! tanh and the scaled tanh of the paper, 1.7159 tanh(2/3 a), for vectors.
//!
//! The absolute error of tanh is below 5e-7. It is computed with a rational minimax approximation or, with instruction sets
//! that look up numbers in registers, with a polynomial for each of 32 intervals.

use super::simd::Simd;

/// The amplitude of the scaled tanh, `AMPLITUDE * tanh(ARGUMENT_FACTOR * a)`.
const AMPLITUDE: f32 = 1.7159;
/// The factor of the argument of the scaled tanh.
const ARGUMENT_FACTOR: f32 = 2.0 / 3.0;

/// The largest argument of the rational approximation; larger ones are replaced by it. tanh(7.8) is 1 - 3.3e-7.
const LIMIT: f32 = 7.8;
// tanh(x) ≈ x P(x²) / Q(x²) on [0, LIMIT]. The coefficients minimise the largest absolute error, which is 4.4e-9 without
// rounding.
const P: [f32; 5] = [1.0, 0.134_506_69, 3.579_194_7e-3, 2.203_353_7e-5, 1.545_938_1e-8];
const Q: [f32; 5] = [1.0, 0.467_839_93, 2.619_262_4e-2, 3.424_263_3e-4, 8.607_73e-7];

// The coefficients for the scaled tanh, which contain AMPLITUDE and ARGUMENT_FACTOR.
const SCALED_P: [f32; 5] = scaled(P, AMPLITUDE as f64 * ARGUMENT_FACTOR as f64);
const SCALED_Q: [f32; 5] = scaled(Q, 1.0);

const fn scaled(mut coefficients: [f32; 5], mut factor: f64) -> [f32; 5] {
    let mut k = 0;
    while k < 5 {
        coefficients[k] = (coefficients[k] as f64 * factor) as f32;
        factor *= ARGUMENT_FACTOR as f64 * ARGUMENT_FACTOR as f64;
        k += 1;
    }
    coefficients
}

/// `x p(x²) / q(x²)`, with `x` limited to the range from `-limit` to `limit`.
#[inline(always)]
fn rational<S: Simd>(s: S, x: S::V, limit: f32, p: [f32; 5], q: [f32; 5]) -> S::V {
    let x = s.clamp(x, limit);
    let z = s.mul(x, x);
    let (mut numerator, mut denominator) = (s.splat(p[4]), s.splat(q[4]));
    for k in [3, 2, 1, 0] {
        numerator = s.fma(numerator, z, s.splat(p[k]));
        denominator = s.fma(denominator, z, s.splat(q[k]));
    }
    s.div(s.mul(x, numerator), denominator)
}

/// `tanh(x)`; NaN stays NaN.
#[inline(always)]
pub fn tanh<S: Simd>(s: S, x: S::V) -> S::V {
    if S::HAS_LOOK_UP_32 { by_intervals(s, x) } else { rational(s, x, LIMIT, P, Q) }
}

/// tanh, computed with the polynomial of the interval that |x| is in.
#[inline(always)]
fn by_intervals<S: Simd>(s: S, x: S::V) -> S::V {
    // The constant is the first operand, so that NaN stays NaN.
    let x4 = s.min(s.splat(LAST), s.mul(s.abs(x), s.splat(4.0)));
    // Adding 1.5 * 2^23 rounds to a whole number, the index of the interval, and leaves it in the lowest bits.
    let rounder = s.splat(12_582_912.0);
    let interval = s.add(x4, rounder);
    let t = s.sub(x4, s.sub(interval, rounder));
    let mut y = s.splat(0.0);
    for k in [4, 3, 2, 1, 0] {
        y = s.fma(y, t, s.look_up_32(&INTERVALS[k], interval));
    }
    s.with_sign(y, x)
}

/// The largest 4 |x| of the last interval; larger ones are replaced by it. tanh(7.87) is 1 - 2.9e-7.
const LAST: f32 = 31.49;
/// The coefficients of the polynomials: tanh(x) ≈ sum over k of INTERVALS[k][i] t^k, where i is the whole number nearest to
/// 4 |x| and t = 4 |x| - i. They are minimax approximations with an absolute error of 2.6e-7 without rounding. The first
/// interval has only odd powers.
#[rustfmt::skip]
const INTERVALS: [[f32; 32]; 5] = [
    [0e+00, 2.4491864e-01, 4.6211714e-01, 6.3514894e-01, 7.615942e-01, 8.4828365e-01, 9.0514827e-01, 9.4137555e-01, 9.640276e-01, 9.780261e-01, 9.866143e-01, 9.9185973e-01, 9.950548e-01, 9.9699765e-01, 9.981779e-01, 9.9889445e-01, 9.993293e-01, 9.9959314e-01, 9.9975324e-01, 9.9985033e-01, 9.999092e-01, 9.999449e-01, 9.999666e-01, 9.9997973e-01, 9.999877e-01, 9.9999255e-01, 9.9999547e-01, 9.9999726e-01, 9.9999833e-01, 9.99999e-01, 9.999994e-01, 9.9999964e-01],
    [2.4999748e-01, 2.3500234e-01, 1.9661243e-01, 1.4914766e-01, 1.0499447e-01, 7.0104085e-02, 4.517671e-02, 2.8452955e-02, 1.7662615e-02, 1.0866154e-02, 6.648002e-03, 4.0535354e-03, 2.466486e-03, 1.4989141e-03, 9.1021217e-04, 5.5246754e-04, 3.3523428e-04, 2.0338353e-04, 1.233781e-04, 7.483987e-05, 4.5395347e-05, 2.7534652e-05, 1.6700973e-05, 1.0129786e-05, 6.144074e-06, 3.7265875e-06, 2.2602962e-06, 1.3709414e-06, 8.3151883e-07, 5.0434204e-07, 3.0589902e-07, 1.8553717e-07],
    [0e+00, -1.438835e-02, -2.271382e-02, -2.3682538e-02, -1.9990858e-02, -1.4867147e-02, -1.0222982e-02, -6.69627e-03, -4.256832e-03, -2.656855e-03, -1.639758e-03, -1.0051369e-03, -6.135733e-04, -3.736041e-04, -2.2713876e-04, -1.379644e-04, -8.375248e-05, -5.0825267e-05, -3.0836956e-05, -1.8707191e-05, -1.1347822e-05, -6.8832933e-06, -4.1751096e-06, -2.5323984e-06, -1.5360017e-06, -9.316412e-07, -5.6507224e-07, -3.4273486e-07, -2.0787965e-07, -1.2608555e-07, -7.647481e-08, -4.638434e-08],
    [-5.1679243e-03, -3.9928844e-03, -1.4800362e-03, 6.338405e-04, 1.6047024e-03, 1.6864763e-03, 1.3713e-03, 9.842665e-04, 6.59409e-04, 4.244574e-04, 2.6682555e-04, 1.6537232e-04, 1.01622776e-04, 6.212704e-05, 3.7863076e-05, 2.3031967e-05, 1.3994237e-05, 8.49701e-06, 5.1570382e-06, 3.1291315e-06, 1.8983668e-06, 1.1515841e-06, 6.9853235e-07, 4.2370382e-07, 2.5699765e-07, 1.5588002e-07, 9.4547126e-08, 5.7346142e-08, 3.4782346e-08, 2.1096616e-08, 1.2795764e-08, 7.761034e-09],
    [0e+00, 5.3826225e-04, 6.379168e-04, 3.8952692e-04, 1.1025656e-04, -4.755041e-05, -9.6759526e-05, -9.165986e-05, -6.9903304e-05, -4.8212278e-05, -3.151326e-05, -1.9980123e-05, -1.2444362e-05, -7.669353e-06, -4.6967452e-06, -2.8653735e-06, -1.7440815e-06, -1.0601035e-06, -6.438193e-07, -3.9080314e-07, -2.3714708e-07, -1.4387855e-07, -8.7282054e-08, -5.294487e-08, -3.2114748e-08, -1.9479332e-08, -1.1815109e-08, -7.166322e-09, -4.3466377e-09, -2.6363811e-09, -1.5990476e-09, -9.698661e-10],
];

/// The scaled tanh, `1.7159 tanh(2/3 a)`.
#[inline(always)]
pub fn scaled_tanh<S: Simd>(s: S, a: S::V) -> S::V {
    rational(s, a, LIMIT / ARGUMENT_FACTOR, SCALED_P, SCALED_Q)
}

/// The derivative of [`scaled_tanh`], computed from its value.
#[inline(always)]
pub fn scaled_tanh_derivative<S: Simd>(s: S, out: S::V) -> S::V {
    s.fnma(
        s.mul(out, s.splat(ARGUMENT_FACTOR / AMPLITUDE)),
        out,
        s.splat(ARGUMENT_FACTOR * AMPLITUDE),
    )
}
