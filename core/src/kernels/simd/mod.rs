//! Vectors of f32 for the hand-written kernels, with AVX-512, AVX2 and FMA, NEON, WebAssembly's simd128, or portable code.
//! The instruction set is chosen at run time; that of WebAssembly when the module is compiled.
//!
//! A kernel is an `#[inline(always)]` function that is generic over [`Simd`]. It is called through [`Isa::run`], which has a
//! `#[target_feature]` wrapper for each instruction set; the whole kernel is inlined into the wrapper and compiled for that
//! instruction set. A `Simd` value is a token: it only exists on machines that have its instructions, so all methods are safe.
//! Kernels contain no closures, since a closure is a separate function, which may be compiled without the wrapper's features.

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::sync::OnceLock;

use crate::{Error, Result};

/// The number of lanes of the widest vector.
pub const WIDEST: usize = 16;

/// An instruction set with vectors of [`Simd::LANES`] f32.
pub trait Simd: Copy {
    /// A vector.
    type V: Copy;
    /// The number of f32 in a vector: 8 or 16.
    const LANES: usize;
    /// Whether a vector has 16 lanes. A branch on this constant, unlike one on a comparison, compiles only one side.
    const WIDE: bool = Self::LANES == 16;

    /// A vector whose lanes are all `x`.
    fn splat(self, x: f32) -> Self::V;
    /// Loads the lanes from `from[at..at + LANES]`.
    fn load(self, from: &[f32], at: usize) -> Self::V;
    /// Stores the lanes to `to[at..at + LANES]`.
    fn store(self, to: &mut [f32], at: usize, v: Self::V);
    /// `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`.
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// Each lane limited to the range from `-limit` to `limit`. NaN stays NaN.
    fn clamp(self, a: Self::V, limit: f32) -> Self::V;
    /// Each lane rounded down.
    fn floor(self, a: Self::V) -> Self::V;
    /// The larger of the two lanes, for each lane.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// For each lane `x` if `a >= b`, otherwise `y`.
    fn select_ge(self, a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V;
    /// `a * b + c`.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `c - a * b`.
    fn fnma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The sum of all lanes.
    fn sum(self, a: Self::V) -> f32;
    /// The lanes of two vectors in turn: `(a0, b0, a1, b1, ...)` from the first half of the lanes, and likewise from the second.
    fn zip(self, a: Self::V, b: Self::V) -> (Self::V, Self::V);
    /// The inverse of [`Simd::zip`]: every second lane of two vectors, `(a0, a2, ..., b0, b2, ...)`, and the others.
    fn unzip(self, a: Self::V, b: Self::V) -> (Self::V, Self::V);
    /// The smaller of the two lanes, for each lane. If `b` is NaN, the result is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// The absolute value of each lane.
    fn abs(self, a: Self::V) -> Self::V;
    /// The lanes of `a`, which are not negative, with the signs of the lanes of `sign`.
    fn with_sign(self, a: Self::V, sign: Self::V) -> Self::V;
    /// Whether [`Simd::look_up_32`] takes only a few instructions.
    const HAS_LOOK_UP_32: bool = false;
    /// Looks up each lane in `table`, at the index in the five lowest bits of that lane of `index`.
    #[inline(always)]
    fn look_up_32(self, table: &[f32; 32], index: Self::V) -> Self::V {
        let mut lanes = [0.0; WIDEST];
        self.store(&mut lanes, 0, index);
        for lane in &mut lanes[..Self::LANES] {
            *lane = table[(lane.to_bits() & 31) as usize];
        }
        self.load(&lanes, 0)
    }
    /// Looks up each lane in `table`: lane `l` is `table[index[at + l]]`. The indices are from 0 to 7.
    #[inline(always)]
    fn look_up(self, table: &[f32; 8], index: &[i32; 16], at: usize) -> Self::V {
        let mut lanes = [0.0; WIDEST];
        for (lane, index) in lanes.iter_mut().zip(&index[at..at + Self::LANES]) {
            *lane = table[(index & 7) as usize];
        }
        self.load(&lanes, 0)
    }
}

/// Exchanges rows and columns of a matrix of [`Simd::LANES`] x [`Simd::LANES`]. Each vector is a row; those beyond are not
/// used.
#[inline(always)]
pub fn transpose<S: Simd>(s: S, mut rows: [S::V; WIDEST]) -> [S::V; WIDEST] {
    let l = S::LANES;
    let mut size = 1;
    // A number's place has as many bits for the row as for the column. Each round moves all of these bits by one place, from
    // the row to the column and around.
    while size < l {
        let mut zipped = rows;
        for i in 0..l / 2 {
            (zipped[2 * i], zipped[2 * i + 1]) = s.zip(rows[i], rows[i + l / 2]);
        }
        rows = zipped;
        size *= 2;
    }
    rows
}

/// Work that can run with any instruction set.
pub trait WithSimd {
    /// The type of its result.
    type Output;
    /// Does the work. This method and all functions that it calls have to be `#[inline(always)]`.
    fn with_simd<S: Simd>(self, s: S) -> Self::Output;
}

/// An instruction set that this machine has, or portable code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isa(Instructions);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instructions {
    #[cfg(target_arch = "x86_64")]
    Avx512(x86::Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx2(x86::Avx2),
    #[cfg(target_arch = "aarch64")]
    Neon(neon::Neon),
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    Simd128(wasm::Simd128),
    Portable,
}

impl Isa {
    /// All instruction sets that this machine has, the widest first. Miri does not know their instructions, so under Miri it
    /// is only the portable code.
    pub fn available() -> Vec<Isa> {
        let portable = Isa(Instructions::Portable);
        if cfg!(miri) {
            return vec![portable];
        }
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(x86::Avx512::detect().map(|token| Isa(Instructions::Avx512(token))));
            all.extend(x86::Avx2::detect().map(|token| Isa(Instructions::Avx2(token))));
        }
        #[cfg(target_arch = "aarch64")]
        all.extend(neon::Neon::detect().map(|token| Isa(Instructions::Neon(token))));
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        all.push(Isa(Instructions::Simd128(wasm::Simd128)));
        all.push(portable);
        all
    }

    /// The instruction set that the environment variable `LENET5_ISA` names; without it, the one with the widest vectors.
    ///
    /// # Errors
    /// If this machine does not have the instruction set.
    pub fn from_environment() -> Result<Isa> {
        let available = Isa::available();
        let Some(name) = std::env::var_os("LENET5_ISA") else { return Ok(available[0]) };
        available.iter().copied().find(|isa| name == *isa.name()).ok_or_else(|| {
            let names: Vec<_> = available.iter().map(|isa| isa.name()).collect();
            Error::Config(format!(
                "LENET5_ISA: expected {} on this machine, found {}",
                names.join(" or "),
                name.display()
            ))
        })
    }

    /// The instruction set of [`Isa::from_environment`], asked once; if that is an error, the one with the widest vectors.
    pub fn best() -> Isa {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| Isa::from_environment().unwrap_or_else(|_| Isa::available()[0]))
    }

    /// The name of the instruction set: `avx512`, `avx2`, `neon`, `simd128` or `portable`.
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2(_) => "avx2",
            #[cfg(target_arch = "aarch64")]
            Instructions::Neon(_) => "neon",
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Instructions::Simd128(_) => "simd128",
            Instructions::Portable => "portable",
        }
    }

    /// Runs work with this instruction set.
    #[inline]
    pub fn run<W: WithSimd>(self, work: W) -> W::Output {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512(token) => token.run(work),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2(token) => token.run(work),
            #[cfg(target_arch = "aarch64")]
            Instructions::Neon(token) => token.run(work),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Instructions::Simd128(token) => token.run(work),
            Instructions::Portable => work.with_simd(Portable),
        }
    }
}

/// Eight lanes in plain Rust. The compiler turns them into SSE2 or NEON instructions.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

#[inline(always)]
fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    // On targets without an instruction for a fused multiply-add, `mul_add` is a slow function call.
    if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
        a.mul_add(b, c)
    } else {
        a * b + c
    }
}

impl Simd for Portable {
    type V = [f32; 8];
    const LANES: usize = 8;

    #[inline(always)]
    fn splat(self, x: f32) -> [f32; 8] {
        [x; 8]
    }
    #[inline(always)]
    fn load(self, from: &[f32], at: usize) -> [f32; 8] {
        let mut v = [0.0; 8];
        v.copy_from_slice(&from[at..at + 8]);
        v
    }
    #[inline(always)]
    fn store(self, to: &mut [f32], at: usize, v: [f32; 8]) {
        to[at..at + 8].copy_from_slice(&v);
    }
    #[inline(always)]
    fn add(self, mut a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        for l in 0..8 {
            a[l] += b[l];
        }
        a
    }
    #[inline(always)]
    fn sub(self, mut a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        for l in 0..8 {
            a[l] -= b[l];
        }
        a
    }
    #[inline(always)]
    fn mul(self, mut a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        for l in 0..8 {
            a[l] *= b[l];
        }
        a
    }
    #[inline(always)]
    fn div(self, mut a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        for l in 0..8 {
            a[l] /= b[l];
        }
        a
    }
    #[inline(always)]
    fn clamp(self, mut a: [f32; 8], limit: f32) -> [f32; 8] {
        for lane in &mut a {
            *lane = lane.clamp(-limit, limit);
        }
        a
    }
    #[inline(always)]
    fn floor(self, a: [f32; 8]) -> [f32; 8] {
        a.map(f32::floor)
    }
    #[inline(always)]
    fn max(self, mut a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        for l in 0..8 {
            a[l] = if a[l] > b[l] { a[l] } else { b[l] };
        }
        a
    }
    #[inline(always)]
    fn select_ge(self, a: [f32; 8], b: [f32; 8], mut x: [f32; 8], y: [f32; 8]) -> [f32; 8] {
        for l in 0..8 {
            x[l] = if a[l] >= b[l] { x[l] } else { y[l] };
        }
        x
    }
    #[inline(always)]
    fn fma(self, a: [f32; 8], b: [f32; 8], mut c: [f32; 8]) -> [f32; 8] {
        for l in 0..8 {
            c[l] = multiply_add(a[l], b[l], c[l]);
        }
        c
    }
    #[inline(always)]
    fn fnma(self, a: [f32; 8], b: [f32; 8], mut c: [f32; 8]) -> [f32; 8] {
        for l in 0..8 {
            c[l] = multiply_add(-a[l], b[l], c[l]);
        }
        c
    }
    #[inline(always)]
    fn sum(self, a: [f32; 8]) -> f32 {
        ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
    }
    #[inline(always)]
    fn zip(self, a: [f32; 8], b: [f32; 8]) -> ([f32; 8], [f32; 8]) {
        (
            [a[0], b[0], a[1], b[1], a[2], b[2], a[3], b[3]],
            [a[4], b[4], a[5], b[5], a[6], b[6], a[7], b[7]],
        )
    }
    #[inline(always)]
    fn unzip(self, a: [f32; 8], b: [f32; 8]) -> ([f32; 8], [f32; 8]) {
        (
            [a[0], a[2], a[4], a[6], b[0], b[2], b[4], b[6]],
            [a[1], a[3], a[5], a[7], b[1], b[3], b[5], b[7]],
        )
    }
    #[inline(always)]
    fn min(self, mut a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        for l in 0..8 {
            a[l] = if a[l] < b[l] { a[l] } else { b[l] };
        }
        a
    }
    #[inline(always)]
    fn abs(self, a: [f32; 8]) -> [f32; 8] {
        a.map(f32::abs)
    }
    #[inline(always)]
    fn with_sign(self, mut a: [f32; 8], sign: [f32; 8]) -> [f32; 8] {
        for l in 0..8 {
            a[l] = a[l].copysign(sign[l]);
        }
        a
    }
}
