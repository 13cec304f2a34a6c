//! Small tests of the portable kernels, which Miri can run: `cargo +nightly miri test -p lenet5-core portable`.
//!
//! Under Miri, long tests are ignored or shortened.

use lenet5_core::data::to_input;
use lenet5_core::kernels::batch::{
    BatchForm, BatchImages, BatchKernels, BatchOptimizer, GreyImages, ParameterVector,
};
use lenet5_core::kernels::distortion::distort;
use lenet5_core::kernels::pattern::{LearningRates, PIXELS, PatternNetwork};
use lenet5_core::kernels::simd::{Isa, Simd, WithSimd};
use lenet5_core::model::ModelConfig;
use lenet5_core::training::{Distortions, Loss, OptimizerConfig};

use crate::common::{RandomNumbers, difference, weights};
use crate::reference::Reference;

fn portable() -> Isa {
    let isa = *Isa::available().last().unwrap();
    assert_eq!(isa.name(), "portable");
    if cfg!(miri) {
        assert_eq!(Isa::available().len(), 1);
    }
    isa
}

/// All operations on vectors, one after the other.
struct Operations {
    a: [f32; 24],
    b: [f32; 24],
    table: [f32; 32],
}

impl WithSimd for Operations {
    type Output = Vec<Vec<f32>>;
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) -> Vec<Vec<f32>> {
        let (a, b) = (s.load(&self.a, 3), s.load(&self.b, 5));
        let indices = std::array::from_fn(|i| i as i32 * 3 % 8);
        let bits = s.load(&self.a.map(|x| f32::from_bits(0x3f80_0000 + x.abs() as u32 * 7)), 3);
        let (first, second) = s.zip(a, b);
        let (even, odd) = s.unzip(a, b);
        let results = [
            s.splat(2.5),
            s.add(a, b),
            s.sub(a, b),
            s.mul(a, b),
            s.div(a, b),
            s.clamp(a, 2.0),
            s.floor(b),
            s.max(a, b),
            s.min(a, b),
            s.select_ge(a, b, s.splat(1.0), s.splat(0.0)),
            s.fma(a, b, a),
            s.fnma(a, b, a),
            s.splat(s.sum(a)),
            first,
            second,
            even,
            odd,
            s.abs(a),
            s.with_sign(s.abs(b), a),
            s.look_up_32(&self.table, bits),
            s.look_up(self.table.first_chunk().unwrap(), &indices, 0),
        ];
        let mut stored = Vec::new();
        for result in results {
            let mut lanes = [0.0; 16];
            s.store(&mut lanes, 0, result);
            stored.push(lanes[..S::LANES].to_vec());
        }
        stored
    }
}

#[test]
fn operations() {
    for isa in Isa::available() {
        check_operations(isa);
    }
}

fn check_operations(isa: Isa) {
    let a: [f32; 24] = std::array::from_fn(|i| i as f32 - 6.0);
    let b: [f32; 24] = std::array::from_fn(|i| (i * i) as f32 * 0.25 - 9.5);
    let table = std::array::from_fn(|i| i as f32 * 1.5);
    let found = isa.run(Operations { a, b, table });
    let lanes = found[0].len();
    let (x, y) = (|i: usize| a[i + 3], |i: usize| b[i + 5]);
    let both = |i: usize| if i < lanes { x(i) } else { y(i - lanes) };
    let zipped = |i: usize| if i.is_multiple_of(2) { x(i / 2) } else { y(i / 2) };
    let expected: [&dyn Fn(usize) -> f32; 21] = [
        &|_| 2.5,
        &|i| x(i) + y(i),
        &|i| x(i) - y(i),
        &|i| x(i) * y(i),
        &|i| x(i) / y(i),
        &|i| x(i).clamp(-2.0, 2.0),
        &|i| y(i).floor(),
        &|i| x(i).max(y(i)),
        &|i| x(i).min(y(i)),
        &|i| if x(i) >= y(i) { 1.0 } else { 0.0 },
        &|i| x(i) * y(i) + x(i),
        &|i| x(i) - x(i) * y(i),
        &|_| (0..lanes).map(x).sum(),
        &zipped,
        &|i| zipped(lanes + i),
        &|i| both(2 * i),
        &|i| both(2 * i + 1),
        &|i| x(i).abs(),
        &|i| y(i).abs().copysign(x(i)),
        &|i| table[x(i).abs() as usize * 7 % 32],
        &|i| table[i * 3 % 8],
    ];
    for (number, (found, expected)) in found.iter().zip(expected).enumerate() {
        for (i, found) in found.iter().enumerate() {
            let expected = expected(i);
            assert!(
                (found - expected).abs() <= 1e-6 * expected.abs(),
                "{}: operation {number}, lane {i}: {found} {expected}",
                isa.name()
            );
        }
    }
}

#[test]
fn logits_of_one_image() {
    let config = ModelConfig::default();
    let form = BatchForm::of(&config).unwrap();
    let image: [f32; 1024] = RandomNumbers(2).pixels(1024).try_into().unwrap();
    let images = BatchImages::Inputs(std::slice::from_ref(&image));
    let mut kernels = BatchKernels::new(form, 10).with_isa(portable());
    if cfg!(miri) {
        let parameters = ParameterVector(vec![0.01; ParameterVector::zeros(10).0.len()]);
        let logits = kernels.logits(&parameters, images, 1);
        assert!(
            logits.len() == 10 && logits.iter().all(|logit| *logit == logits[0] && *logit > 0.01)
        );
        return;
    }
    let weights = weights(&config, &mut RandomNumbers(1));
    let expected = Reference::new(&weights).compute(&image, 3);
    let logits = kernels.logits(&ParameterVector::of(&weights), images, 1);
    assert!(difference(&logits, &expected.logits) < 1e-5);
}

#[test]
#[cfg_attr(miri, ignore = "takes too long under Miri")]
fn a_batch_and_an_update() {
    let config = ModelConfig::default();
    let weights = weights(&config, &mut RandomNumbers(1));
    let mut parameters = ParameterVector::of(&weights);
    let grey: Vec<u8> = (0..784).map(|i| (i * 7 % 256) as u8).collect();
    let images = GreyImages::new(grey.clone(), 28, &config);
    let mut kernels = BatchKernels::new(BatchForm::of(&config).unwrap(), 10).with_isa(portable());
    let mut gradient = ParameterVector::zeros(10);
    let loss = kernels.gradient(&parameters, BatchImages::Grey(&images, &[0]), &[4], &mut gradient);
    let expected = Reference::new(&weights).compute(&to_input(&grey, 28, &config), 4);
    assert!((loss - expected.loss).abs() < 1e-5);
    for (found, expected) in gradient.to_arrays(&config).iter().zip(&expected.gradient) {
        assert!(difference(&found.to_f32(), expected) < 1e-5);
    }
    let rule =
        OptimizerConfig::Sgd { momentum: 0.0, dampening: 0.0, weight_decay: 0.0, nesterov: false };
    let before = parameters.clone();
    kernels.update(&mut parameters, &gradient, &mut BatchOptimizer::new(rule, 10), 0.5);
    for ((before, after), g) in before.0.iter().zip(&parameters.0).zip(&gradient.0) {
        assert!((before - 0.5 * g - after).abs() < 1e-6);
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes too long under Miri")]
fn a_step_of_the_original_network() {
    let weights = weights(&ModelConfig::original(), &mut RandomNumbers(1));
    let mut network =
        PatternNetwork::of(&weights, Loss::CrossEntropy).unwrap().with_isa(portable());
    let image: [f32; PIXELS] = RandomNumbers(2).pixels(PIXELS).try_into().unwrap();
    let rates = LearningRates::constant(1e-3);
    let first = network.step(&image, 3, &rates);
    assert!(network.step(&image, 3, &rates) < first);
}

#[test]
fn distorted_pictures() {
    let (count, side) = if cfg!(miri) { (2, 8) } else { (20, 28) };
    let pictures = RandomNumbers(2).pixels(count * side * side);
    let drawn: Vec<_> =
        (0..count as i64).map(|i| Distortions::best().draw(side, 1, 1, i)).collect();
    let distorted = distort(&pictures, side, &drawn);
    assert!(distorted.iter().all(|pixel| (-1e-5..=1.00001).contains(pixel)));
    assert_ne!(distorted, pictures);
}
