//! Vectors of f32 for the hand-written kernels: AVX-512, AVX2 with FMA, and a portable form, chosen at run time.
//!
//! A kernel is an `#[inline(always)]` function that is generic over [`Simd`], reached through
//! [`Isa::run`], whose `#[target_feature]` wrappers make the whole inlined body use the instruction
//! set. A `Simd` value is a token: it exists only where its instructions do, so every method is safe.
//! Kernels hold no closures: a closure is a function of its own, which the wrapper's features may not reach.

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
    /// Lane `l` is `table[index[at + l]]`, for indices 0..8.
    fn look_up(self, table: &[f32; 8], index: &[i32; 16], at: usize) -> Self::V;
}

/// Work that runs on any instruction set.
pub trait Kernel {
    /// What it returns.
    type Output;
    /// The work; must be `#[inline(always)]`, as all it calls.
    fn run<S: Simd>(self, s: S) -> Self::Output;
}

/// An instruction set that this machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isa(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    #[cfg(target_arch = "x86_64")]
    Avx512(x86::Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx2(x86::Avx2),
    Portable,
}

impl Isa {
    /// All that this machine has, the widest first.
    pub fn available() -> Vec<Isa> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(x86::Avx512::detect().map(|token| Isa(Kind::Avx512(token))));
            all.extend(x86::Avx2::detect().map(|token| Isa(Kind::Avx2(token))));
        }
        all.push(Isa(Kind::Portable));
        all
    }

    /// The widest.
    pub fn best() -> Isa {
        Isa::available()[0]
    }

    /// `avx512`, `avx2` or `portable`.
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(_) => "avx2",
            Kind::Portable => "portable",
        }
    }

    /// Runs a kernel with these instructions.
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(token) => token.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(token) => token.run(kernel),
            Kind::Portable => kernel.run(Portable),
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
    fn look_up(self, table: &[f32; 8], index: &[i32; 16], at: usize) -> [f32; 8] {
        let mut v = [0.0; 8];
        for l in 0..8 {
            v[l] = table[(index[at + l] & 7) as usize];
        }
        v
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Kernel, Simd};
    use std::arch::x86_64::*;

    /// Proof that this machine has AVX-512 (F, BW, DQ, VL), AVX2 and FMA. Only `detect` makes one.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Avx512(());

    /// Proof that this machine has AVX2 and FMA. Only `detect` makes one.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Avx2(());

    impl Avx512 {
        pub fn detect() -> Option<Self> {
            let found = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma");
            found.then_some(Avx512(()))
        }

        pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            fn wrapper<K: Kernel>(token: Avx512, kernel: K) -> K::Output {
                kernel.run(token)
            }
            // SAFETY: `self` exists, so `detect` found these features.
            unsafe { wrapper(self, kernel) }
        }
    }

    impl Avx2 {
        pub fn detect() -> Option<Self> {
            (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"))
                .then_some(Avx2(()))
        }

        pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
            #[target_feature(enable = "avx2,fma")]
            fn wrapper<K: Kernel>(token: Avx2, kernel: K) -> K::Output {
                kernel.run(token)
            }
            // SAFETY: `self` exists, so `detect` found these features.
            unsafe { wrapper(self, kernel) }
        }
    }

    // SAFETY, for every block below: the token exists, so the machine has the instructions; loads and
    // stores go through a slice of exactly LANES values and need no alignment.

    impl Simd for Avx512 {
        type V = __m512;
        const LANES: usize = 16;

        #[inline(always)]
        fn splat(self, x: f32) -> __m512 {
            unsafe { _mm512_set1_ps(x) }
        }
        #[inline(always)]
        fn load(self, from: &[f32], at: usize) -> __m512 {
            let from = &from[at..at + 16];
            unsafe { _mm512_loadu_ps(from.as_ptr()) }
        }
        #[inline(always)]
        fn store(self, to: &mut [f32], at: usize, v: __m512) {
            let to = &mut to[at..at + 16];
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), v) }
        }
        #[inline(always)]
        fn add(self, a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_add_ps(a, b) }
        }
        #[inline(always)]
        fn sub(self, a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_sub_ps(a, b) }
        }
        #[inline(always)]
        fn mul(self, a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_mul_ps(a, b) }
        }
        #[inline(always)]
        fn div(self, a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_div_ps(a, b) }
        }
        #[inline(always)]
        fn clamp(self, a: __m512, limit: f32) -> __m512 {
            // The constant first: MIN and MAX return their second operand where one is NaN.
            unsafe {
                _mm512_max_ps(_mm512_set1_ps(-limit), _mm512_min_ps(_mm512_set1_ps(limit), a))
            }
        }
        #[inline(always)]
        fn max(self, a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_max_ps(a, b) }
        }
        #[inline(always)]
        fn select_ge(self, a: __m512, b: __m512, x: __m512, y: __m512) -> __m512 {
            unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_GE_OQ>(a, b), y, x) }
        }
        #[inline(always)]
        fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        fn fnma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
            unsafe { _mm512_fnmadd_ps(a, b, c) }
        }
        #[inline(always)]
        fn sum(self, a: __m512) -> f32 {
            unsafe { _mm512_reduce_add_ps(a) }
        }
        #[inline(always)]
        fn pair_sums(self, a: __m512, b: __m512) -> __m512 {
            unsafe {
                let even =
                    _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
                let odd =
                    _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
                _mm512_add_ps(_mm512_permutex2var_ps(a, even, b), _mm512_permutex2var_ps(a, odd, b))
            }
        }
        #[inline(always)]
        fn twice(self, a: __m512) -> (__m512, __m512) {
            unsafe {
                let low = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
                let high =
                    _mm512_setr_epi32(8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15);
                (_mm512_permutexvar_ps(low, a), _mm512_permutexvar_ps(high, a))
            }
        }
        #[inline(always)]
        fn look_up(self, table: &[f32; 8], index: &[i32; 16], at: usize) -> __m512 {
            let index = &index[at..at + 16];
            unsafe {
                let table = _mm512_castps256_ps512(_mm256_loadu_ps(table.as_ptr()));
                let table = _mm512_insertf32x8::<1>(table, _mm512_castps512_ps256(table));
                _mm512_permutexvar_ps(_mm512_loadu_epi32(index.as_ptr()), table)
            }
        }
    }

    impl Simd for Avx2 {
        type V = __m256;
        const LANES: usize = 8;

        #[inline(always)]
        fn splat(self, x: f32) -> __m256 {
            unsafe { _mm256_set1_ps(x) }
        }
        #[inline(always)]
        fn load(self, from: &[f32], at: usize) -> __m256 {
            let from = &from[at..at + 8];
            unsafe { _mm256_loadu_ps(from.as_ptr()) }
        }
        #[inline(always)]
        fn store(self, to: &mut [f32], at: usize, v: __m256) {
            let to = &mut to[at..at + 8];
            unsafe { _mm256_storeu_ps(to.as_mut_ptr(), v) }
        }
        #[inline(always)]
        fn add(self, a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_add_ps(a, b) }
        }
        #[inline(always)]
        fn sub(self, a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_sub_ps(a, b) }
        }
        #[inline(always)]
        fn mul(self, a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_mul_ps(a, b) }
        }
        #[inline(always)]
        fn div(self, a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_div_ps(a, b) }
        }
        #[inline(always)]
        fn clamp(self, a: __m256, limit: f32) -> __m256 {
            unsafe {
                _mm256_max_ps(_mm256_set1_ps(-limit), _mm256_min_ps(_mm256_set1_ps(limit), a))
            }
        }
        #[inline(always)]
        fn max(self, a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_max_ps(a, b) }
        }
        #[inline(always)]
        fn select_ge(self, a: __m256, b: __m256, x: __m256, y: __m256) -> __m256 {
            unsafe { _mm256_blendv_ps(y, x, _mm256_cmp_ps::<_CMP_GE_OQ>(a, b)) }
        }
        #[inline(always)]
        fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        fn fnma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
            unsafe { _mm256_fnmadd_ps(a, b, c) }
        }
        #[inline(always)]
        fn sum(self, a: __m256) -> f32 {
            unsafe {
                let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
                let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
                _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)))
            }
        }
        #[inline(always)]
        fn pair_sums(self, a: __m256, b: __m256) -> __m256 {
            unsafe {
                let sums = _mm256_castps_pd(_mm256_hadd_ps(a, b));
                _mm256_castpd_ps(_mm256_permute4x64_pd::<0b11_01_10_00>(sums))
            }
        }
        #[inline(always)]
        fn twice(self, a: __m256) -> (__m256, __m256) {
            unsafe {
                let (low, high) = (_mm256_unpacklo_ps(a, a), _mm256_unpackhi_ps(a, a));
                (
                    _mm256_permute2f128_ps::<0x20>(low, high),
                    _mm256_permute2f128_ps::<0x31>(low, high),
                )
            }
        }
        #[inline(always)]
        fn look_up(self, table: &[f32; 8], index: &[i32; 16], at: usize) -> __m256 {
            let index = &index[at..at + 8];
            unsafe {
                let index = _mm256_loadu_si256(index.as_ptr().cast());
                _mm256_permutevar8x32_ps(_mm256_loadu_ps(table.as_ptr()), index)
            }
        }
    }
}
