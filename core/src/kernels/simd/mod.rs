//! Vectors of f32 for the hand-written kernels: AVX-512, AVX2 with FMA, NEON, and a portable form, chosen at
//! run time.
//!
//! A kernel is an `#[inline(always)]` function that is generic over [`Simd`], reached through
//! [`Isa::run`], whose `#[target_feature]` wrappers make the whole inlined body use the instruction
//! set. A `Simd` value is a token: it exists only where its instructions do, so every method is safe.
//! Kernels hold no closures: a closure is a function of its own, which the wrapper's features may not reach.

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

/// Lanes of the widest vector.
pub const WIDEST: usize = 16;

/// Vectors of [`Simd::LANES`] f32.
pub trait Simd: Copy {
    /// One vector.
    type V: Copy;
    /// f32 in a vector: 8 or 16.
    const LANES: usize;

    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::V;
    /// Lanes `from[at..at + LANES]`.
    fn load(self, from: &[f32], at: usize) -> Self::V;
    /// Writes the lanes to `to[at..at + LANES]`.
    fn store(self, to: &mut [f32], at: usize, v: Self::V);
    /// `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`.
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a` held between `-limit` and `limit`.
    fn clamp(self, a: Self::V, limit: f32) -> Self::V;
    /// Each lane rounded down.
    fn floor(self, a: Self::V) -> Self::V;
    /// The larger of each two lanes.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// Of each lane, `x` where `a >= b`, else `y`.
    fn select_ge(self, a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V;
    /// `a * b + c`.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `c - a * b`.
    fn fnma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The sum of the lanes.
    fn sum(self, a: Self::V) -> f32;
    /// `a0 + a1, a2 + a3, ..., b0 + b1, ...`.
    fn pair_sums(self, a: Self::V, b: Self::V) -> Self::V;
    /// Each lane twice: `(a0, a0, a1, a1, ...)` and the second half likewise.
    fn twice(self, a: Self::V) -> (Self::V, Self::V);
    /// The smaller of each two lanes; where one is NaN, `b`.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// Each lane without its sign.
    fn abs(self, a: Self::V) -> Self::V;
    /// Lanes of `a`, which are not negative, with the signs of `sign`.
    fn with_sign(self, a: Self::V, sign: Self::V) -> Self::V;
    /// Whether [`Simd::look_up_32`] takes few instructions.
    const HAS_LOOK_UP_32: bool = false;
    /// Each lane is the number of `table` at the index in the five lowest bits of the lane of `index`.
    fn look_up_32(self, table: &[f32; 32], index: Self::V) -> Self::V;
    /// Lane `l` is `table[index[at + l]]`, for indices 0..8.
    fn look_up(self, table: &[f32; 8], index: &[i32; 16], at: usize) -> Self::V;
}

/// Work that runs on any instruction set.
pub trait WithSimd {
    /// What it returns.
    type Output;
    /// The work; must be `#[inline(always)]`, as all it calls.
    fn with_simd<S: Simd>(self, s: S) -> Self::Output;
}

/// An instruction set that this machine has.
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
    Portable,
}

impl Isa {
    /// All instruction sets that this machine has, the widest first. Under Miri, which does not know their instructions,
    /// only the portable form.
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
        all.push(portable);
        all
    }

    /// The widest.
    pub fn best() -> Isa {
        Isa::available()[0]
    }

    /// `avx512`, `avx2`, `neon` or `portable`.
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2(_) => "avx2",
            #[cfg(target_arch = "aarch64")]
            Instructions::Neon(_) => "neon",
            Instructions::Portable => "portable",
        }
    }

    /// Runs work with these instructions.
    #[inline]
    pub fn run<W: WithSimd>(self, work: W) -> W::Output {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512(token) => token.run(work),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2(token) => token.run(work),
            #[cfg(target_arch = "aarch64")]
            Instructions::Neon(token) => token.run(work),
            Instructions::Portable => work.with_simd(Portable),
        }
    }
}

/// Eight lanes in plain Rust; LLVM makes SSE2 or NEON of them.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

#[inline(always)]
fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    // Where a fused multiply-add is no instruction of the target, `mul_add` is a slow call.
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
    fn pair_sums(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        [
            a[0] + a[1],
            a[2] + a[3],
            a[4] + a[5],
            a[6] + a[7],
            b[0] + b[1],
            b[2] + b[3],
            b[4] + b[5],
            b[6] + b[7],
        ]
    }
    #[inline(always)]
    fn twice(self, a: [f32; 8]) -> ([f32; 8], [f32; 8]) {
        (
            [a[0], a[0], a[1], a[1], a[2], a[2], a[3], a[3]],
            [a[4], a[4], a[5], a[5], a[6], a[6], a[7], a[7]],
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
    #[inline(always)]
    fn look_up_32(self, table: &[f32; 32], index: [f32; 8]) -> [f32; 8] {
        index.map(|index| table[(index.to_bits() & 31) as usize])
    }
    #[inline(always)]
    fn look_up(self, table: &[f32; 8], index: &[i32; 16], at: usize) -> [f32; 8] {
        let mut v = [0.0; 8];
        for l in 0..8 {
            v[l] = table[(index[at + l] & 7) as usize];
        }
        v
    }
}
