//! The kernels for batches against float64: logits, loss, gradients, input.

use lenet5_core::ForwardPass;
use lenet5_core::data::to_input;
use lenet5_core::kernels::batch::{
    BatchForm, BatchImages, BatchKernels, GreyImages, ParameterVector, Phase, SingleKernels,
};
use lenet5_core::kernels::distortion::distort;
use lenet5_core::kernels::simd::Isa;
use lenet5_core::model::{
    Activation, HiddenActivation, Input, LayerOrder, ModelConfig, Network, Pooling,
};
use lenet5_core::training::{Distortion, Distortions};
use rayon::prelude::*;

use crate::common::{RandomNumbers, difference, weights};
use crate::reference::{Computed, Reference};

/// Batch sizes: whole groups of lanes, one image more or less; shards of one and two groups; more than all shards hold.
const SIZES: [usize; 10] = [1, 7, 8, 15, 16, 17, 31, 33, 145, 513];

/// The smallest distance to a kink of relu or max pooling at which float32 and float64 surely take the same branch.
const CLOSE: f64 = 1e-6;

pub fn settings() -> impl Iterator<Item = ModelConfig> {
    [Activation::Tanh, Activation::Relu].into_iter().flat_map(|activation| {
        let forms = [
            (Pooling::Avg, 10, Input::Padded),
            (Pooling::Max, 128, Input::Padded),
            (Pooling::Avg, 128, Input::Unpadded),
            (Pooling::Max, 10, Input::Unpadded),
            (Pooling::Max, 7, Input::Padded),
        ];
        forms.map(|(pooling, classes, input)| ModelConfig {
            activation,
            pooling,
            classes,
            input,
            ..ModelConfig::default()
        })
    })
}

/// An image in the form that the kernels take: 32x32, with smaller images in the upper left corner.
pub fn in_corner(image: &[f32]) -> [f32; 1024] {
    let size = image.len().isqrt();
    let mut input = [0.0; 1024];
    for (to, row) in input.chunks_exact_mut(32).zip(image.chunks_exact(size)) {
        to[..size].copy_from_slice(row);
    }
    input
}

/// Random images on which float32 and float64 take the same branches, their labels, and the reference's results. Only a
/// third of the classes occur, so that the gradients of the images do not cancel out in the mean.
fn decided_images(
    reference: &Reference,
    config: &ModelConfig,
    count: usize,
) -> Vec<(Vec<f32>, u8, Computed)> {
    let size = config.input.size();
    let images = (0..2 * count).into_par_iter().map(|seed| {
        let mut random = RandomNumbers(seed as u64 * 7919);
        let (image, label) = (random.pixels(size * size), random.below(config.classes.div_ceil(3)));
        let computed = reference.compute(&image, label);
        (image, label as u8, computed)
    });
    let mut images: Vec<_> = images.filter(|(.., computed)| computed.margin > CLOSE).collect();
    assert!(images.len() >= count, "too few images are decided");
    images.truncate(count);
    images
}

/// The batch sizes to test. In an emulator (`make neon`) the largest take hours, and are left out.
fn sizes() -> &'static [usize] {
    if std::env::var_os("LENET5_EMULATED").is_some() { &SIZES[..8] } else { &SIZES }
}

#[test]
fn logits_loss_and_gradients_against_float64() {
    let sizes = sizes();
    for config in settings() {
        let weights = weights(&config, &mut RandomNumbers(3));
        let (form, values) = (BatchForm::of(&config).unwrap(), ParameterVector::of(&weights));
        let images = decided_images(&Reference::new(&weights), &config, sizes[sizes.len() - 1]);
        let plain = ForwardPass::new(&weights).unwrap();
        let pixels: Vec<f64> =
            images.iter().flat_map(|(image, ..)| image).map(|x| f64::from(*x)).collect();
        let expected_logits = plain.logits(&pixels).unwrap();
        for (logit, (.., computed)) in expected_logits.chunks_exact(config.classes).zip(&images) {
            for (a, b) in logit.iter().zip(&computed.logits) {
                assert!((a - b).abs() < 1e-13, "the forward pass and the reference: {a} and {b}");
            }
        }
        let inputs: Vec<_> = images.iter().map(|(image, ..)| in_corner(image)).collect();
        let labels: Vec<u8> = images.iter().map(|(_, label, _)| *label).collect();
        let (mut loss_sum, mut misclassified) = (0.0, 0);
        let mut sum: Vec<Vec<f64>> =
            config.state().iter().map(|(_, s)| vec![0.0; s.iter().product()]).collect();
        let (mut done, mut worst) = (0, 0.0_f64);
        for &size in sizes {
            for (_, label, computed) in &images[done..size] {
                loss_sum += computed.loss;
                let logit = |class: usize| computed.logits[class];
                let label = usize::from(*label);
                misclassified +=
                    u64::from((0..config.classes).any(|class| logit(class) > logit(label)));
                for (sum, gradient) in sum.iter_mut().zip(&computed.gradient) {
                    sum.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g);
                }
            }
            done = size;
            let mean = |sum: &Vec<f64>| sum.iter().map(|sum| sum / size as f64).collect();
            let expected: Vec<Vec<f64>> = sum.iter().map(mean).collect();
            let (loss, logits) =
                (loss_sum / size as f64, &expected_logits[..size * config.classes]);
            let (labels, batch) = (&labels[..size], BatchImages::Inputs(&inputs[..size]));
            for isa in Isa::available() {
                let what =
                    format!("{:?} {:?} {size} {}", config.activation, config.pooling, isa.name());
                let single = SingleKernels::new(form, &values).with_isa(isa);
                let singles: Vec<_> =
                    inputs[..size].iter().flat_map(|image| single.logits(image)).collect();
                let mut first = None;
                for threads in [1, 2, 3] {
                    let mut kernels =
                        BatchKernels::new(form, config.classes).with_isa(isa).with_threads(threads);
                    let found = kernels.logits(&values, batch, size);
                    let error = difference(&found, logits);
                    assert!(error < 1e-5, "{what}: logits {error:.1e}");
                    assert!(found == singles, "{what}: the logits of single images");
                    let mut gradient = values.clone(); // previous values must not matter
                    // Two runs: the previous batch must not matter either.
                    for _ in 0..2 {
                        let found = kernels.gradient(&values, batch, labels, &mut gradient);
                        let error = (found / loss - 1.0).abs();
                        assert!(error < 1e-6, "{what}: loss {error:.1e}");
                        assert_eq!(kernels.misclassified(), misclassified, "{what}");
                    }
                    if let Some(first) = &first {
                        assert!(gradient == *first, "{what}: {threads} threads change a bit");
                        continue;
                    }
                    let arrays = gradient.to_arrays(&config);
                    for ((name, _), (found, expected)) in
                        weights.tensors.iter().zip(arrays.iter().zip(&expected))
                    {
                        let error = difference(&found.to_f32(), expected);
                        assert!(
                            error < 1e-5,
                            "{what}: gradient with respect to {name} {error:.1e}"
                        );
                        worst = worst.max(error);
                    }
                    first = Some(gradient);
                }
            }
        }
        println!("{config}: gradients within {worst:.1e}");
    }
}

/// Checks the reference by central differences of its loss.
#[test]
fn the_reference_gradient_against_central_differences() {
    for config in settings().filter(|config| config.classes != 128) {
        let mut random = RandomNumbers(9);
        let mut weights = weights(&config, &mut random);
        let size = config.input.size();
        let image = random.pixels(size * size);
        let computed = Reference::new(&weights).compute(&image, 4);
        for (tensor, gradient) in computed.gradient.iter().enumerate() {
            let largest = gradient.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
            let count = gradient.len();
            let shape = weights.tensors[tensor].1.shape().to_vec();
            let values = weights.tensors[tensor].1.to_f32();
            for n in 0..6.min(count) {
                let i = (n * (count / 6).max(1) + n).min(count - 1);
                let mut loss = |step: f32| {
                    let mut values = values.clone();
                    values[i] += step;
                    weights.tensors[tensor].1 = lenet5_core::Array::from_f32(&shape, &values);
                    (f64::from(values[i]), Reference::new(&weights).compute(&image, 4).loss)
                };
                // Small steps, because relu and max pooling have kinks; powers of two, because parameters are float32.
                let step = 2f32.powi(-18);
                let ((high, above), (low, below)) = (loss(step), loss(-step));
                loss(0.0);
                let difference = (above - below) / (high - low);
                let error = (difference - gradient[i]).abs();
                assert!(error < 1e-4 * largest, "{tensor} {i}: {} and {difference}", gradient[i]);
            }
        }
    }
}

/// Random grey values: half of them are background, as in pictures.
fn grey_pictures(count: usize, size: usize) -> Vec<u8> {
    let mut random = RandomNumbers(17);
    (0..count * size * size).map(|_| (random.uniform() * 400.0).clamp(0.0, 255.0) as u8).collect()
}

/// Random pictures in the kernels' form, and the inputs of the pictures with these indices. For `Resized` they are 32x32.
fn grey_and_inputs(config: &ModelConfig, indices: &[i64]) -> (GreyImages, Vec<[f32; 1024]>) {
    let size = if config.input == Input::Resized { 32 } else { 28 };
    let grey = grey_pictures(100, size);
    let inputs = indices.iter().map(|index| {
        let picture = &grey[*index as usize * size * size..][..size * size];
        in_corner_with(&to_input(picture, size, config), config)
    });
    let inputs = inputs.collect();
    (GreyImages::new(grey, size, config), inputs)
}

/// Like [`in_corner`], but pixels outside of the image have the border's level.
fn in_corner_with(image: &[f32], config: &ModelConfig) -> [f32; 1024] {
    let border = lenet5_core::data::InputLevels::of(config).border;
    let size = image.len().isqrt();
    let mut input = [border; 1024];
    for (to, row) in input.chunks_exact_mut(32).zip(image.chunks_exact(size)) {
        to[..size].copy_from_slice(row);
    }
    input
}

#[test]
fn grey_images_give_the_bits_of_their_inputs() {
    let labels = vec![3; 21];
    let indices: Vec<i64> = (0..21).map(|i| i * 13 % 100).collect();
    for (input, mean) in [
        (Input::Padded, 0.0),
        (Input::Padded, 0.1307),
        (Input::ZeroPadded, 0.1307),
        (Input::Resized, 0.1307),
        (Input::Unpadded, 0.1307),
    ] {
        let config = ModelConfig { input, mean, std: 0.3081, ..ModelConfig::default() };
        let values = ParameterVector::of(&weights(&config, &mut RandomNumbers(4)));
        let (grey, inputs) = grey_and_inputs(&config, &indices);
        let size = grey.size;
        let picture = &grey_pictures(100, size)[indices[2] as usize * size * size..][..size * size];
        assert_eq!(grey.input(picture), inputs[2], "{input}");
        let form = BatchForm::of(&config).unwrap();
        for isa in Isa::available() {
            let mut kernels = BatchKernels::new(form, 10).with_isa(isa);
            let (mut found, mut expected) = (values.clone(), values.clone());
            kernels.gradient(&values, BatchImages::Grey(&grey, &indices), &labels, &mut found);
            kernels.gradient(&values, BatchImages::Inputs(&inputs), &labels, &mut expected);
            assert!(found == expected, "{input} {mean} {}", isa.name());
            assert!(found.0[..150].iter().any(|g| *g != 0.0));
        }
    }
}

#[test]
fn pictures_of_another_set_are_taken_alike() {
    let config = ModelConfig { mean: 0.1307, std: 0.3081, ..ModelConfig::default() };
    let (grey, _) = grey_and_inputs(&config, &[0]);
    let pictures = grey_pictures(3, 28);
    let pictures = pictures.as_chunks::<784>().0;
    let others = grey.with_pictures(pictures);
    let values = ParameterVector::of(&weights(&config, &mut RandomNumbers(4)));
    let inputs: Vec<_> = pictures.iter().map(|picture| grey.input(picture)).collect();
    let mut kernels = BatchKernels::new(BatchForm::of(&config).unwrap(), 10);
    let found = kernels.logits(&values, BatchImages::Grey(&others, &[0, 1, 2]), 3);
    assert_eq!(found, kernels.logits(&values, BatchImages::Inputs(&inputs), 3));
}

#[test]
fn distorted_grey_images_give_the_bits_of_distorted_inputs() {
    let indices: Vec<i64> = (0..37).map(|i| i * 13 % 100).collect();
    let distortions = Distortions::best();
    for input in [Input::Padded, Input::ZeroPadded, Input::Resized, Input::Unpadded] {
        let config = ModelConfig { input, ..ModelConfig::default() };
        let values = ParameterVector::of(&weights(&config, &mut RandomNumbers(4)));
        let (grey, inputs) = grey_and_inputs(&config, &indices);
        // The part of the input that is distorted: the padded picture, or the picture before it is padded.
        let (start, side) = match input {
            Input::Padded | Input::Resized => (0, 32),
            Input::ZeroPadded => (2, 28),
            Input::Unpadded => (0, 28),
        };
        let draw = |index| distortions.draw(side, 5, 2, index);
        let drawn: Vec<Distortion> = indices.iter().map(|index| draw(*index)).collect();
        let parts: Vec<f32> = inputs
            .iter()
            .flat_map(|input| input.chunks_exact(32).skip(start).take(side))
            .flat_map(|row| row[start..start + side].to_vec())
            .collect();
        let distorted = distort(&parts, side, &drawn);
        let distorted_inputs: Vec<[f32; 1024]> = distorted
            .chunks_exact(side * side)
            .map(|part| {
                let mut input = [0.0; 1024];
                for (to, row) in input.chunks_exact_mut(32).skip(start).zip(part.chunks_exact(side))
                {
                    to[start..start + side].copy_from_slice(row);
                }
                input
            })
            .collect();
        for isa in Isa::available() {
            let mut kernels = BatchKernels::new(BatchForm::of(&config).unwrap(), 10).with_isa(isa);
            let mut logits = |images| kernels.logits(&values, images, indices.len());
            let found = logits(BatchImages::Distorted(&grey, &indices, &draw));
            assert_eq!(found, logits(BatchImages::Inputs(&distorted_inputs)), "{input}");
            assert_ne!(found, logits(BatchImages::Grey(&grey, &indices)), "{input}");
        }
    }
}

#[test]
fn parameters_keep_their_bits_as_arrays() {
    for config in settings() {
        let weights = weights(&config, &mut RandomNumbers(6));
        let values = ParameterVector::of(&weights);
        assert_eq!(values.classes(), config.classes);
        assert_eq!(ParameterVector::zeros(config.classes).0.len(), values.0.len());
        let arrays: Vec<_> = weights.tensors.iter().map(|(_, array)| array.clone()).collect();
        assert_eq!(values.to_arrays(&config), arrays);
        assert!(ParameterVector::from_arrays(&arrays) == values);
    }
}

#[test]
fn work_is_measured_by_phase() {
    let config = ModelConfig::default();
    let values = ParameterVector::of(&weights(&config, &mut RandomNumbers(6)));
    let images = [[0.5; 1024]; 40];
    for threads in [1, 2] {
        let mut kernels =
            BatchKernels::new(BatchForm::of(&config).unwrap(), 10).with_threads(threads);
        assert!(kernels.profile().is_none());
        kernels.measure();
        let images = BatchImages::Inputs(&images);
        let labels = [1; 40];
        kernels.within(|kernels| kernels.gradient(&values, images, &labels, &mut values.clone()));
        let profile = *kernels.profile().unwrap();
        assert_eq!(profile.samples, 40);
        for ((phase, ..), seconds) in Phase::ALL.iter().zip(profile.seconds) {
            assert_eq!(seconds > 0.0, *phase != Phase::Update, "{phase:?}");
        }
        let table = profile.table(10, kernels.isa(), 1e9);
        for row in
            ["c1, s2   forward", "c3       back, weights", "all      update", "sgemm on one thread"]
        {
            assert!(table.contains(row), "{table}");
        }
        assert!(table.ends_with(&format!("instruction set: {}\n", Isa::best().name())), "{table}");
    }
}

#[test]
fn networks_that_the_kernels_do_not_compute_are_refused() {
    let default = ModelConfig::default;
    for (config, expected) in [
        (
            ModelConfig { activation: Activation::Sigmoid, ..default() },
            "goes with --activation tanh or relu only",
        ),
        (
            ModelConfig { activation: Activation::ScaledTanh, ..default() },
            "goes with --activation tanh or relu only",
        ),
        (ModelConfig { classes: 129, ..default() }, "has room for 128 classes"),
        (ModelConfig { network: Network::Original, ..default() }, "goes with --model modern only"),
        (
            ModelConfig { layer_order: LayerOrder::PoolingFirst, ..default() },
            "goes with --layer-order activation-first only",
        ),
        (
            ModelConfig { hidden_activation: HiddenActivation::None, ..default() },
            "goes with --hidden-activation same only",
        ),
    ] {
        assert_eq!(BatchForm::of(&config), Err(expected));
    }
}
