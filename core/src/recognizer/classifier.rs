//! Probabilities of classes, by the fastest kernels that compute the network.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::LayerOutput;
use crate::data::digit::{PIXELS, SIDE};
use crate::data::to_input;
use crate::forward::ForwardPass;
use crate::kernels::batch::{
    BatchForm, BatchImages, BatchKernels, GreyImages, ParameterVector, SingleKernels,
};
use crate::kernels::pattern::{PatternBuffers, PatternNetwork};
use crate::model::{Input, ModelConfig, Network};
use crate::training::Loss;
use crate::weights::Weights;
use crate::{Error, Result};

/// The number of pictures that a thread classifies at a time.
const CHUNK: usize = 64;
/// The kernels for batches compute 8 or 16 pictures at a time, even if there are fewer. Fewer than this are faster one by one.
const FEW: usize = 12;

/// A network that several threads can use at the same time.
pub struct Classifier {
    forward: ForwardPass,
    kernels: Kernels,
}

/// The kernels that compute the logits.
enum Kernels {
    Batch {
        form: BatchForm,
        parameters: ParameterVector,
        /// The conversion of pictures to the input.
        images: Box<GreyImages>,
        /// Kernels that no thread is using.
        free: Mutex<Vec<BatchKernels>>,
        /// The kernels for a few pictures. They give the bits of the others.
        single: SingleKernels,
    },
    Pattern(Box<PatternNetwork>),
    /// The plain forward pass, for networks that no kernels support.
    Plain,
}

impl Classifier {
    /// Creates the network with these weights.
    ///
    /// # Errors
    /// If the tensors do not fit the settings, or are so large that results may be infinite.
    pub fn new(weights: &Weights) -> Result<Self> {
        let (forward, config) = (ForwardPass::new(weights)?, &weights.config);
        let largest = forward.value_bound();
        if largest > f64::from(f32::MAX) {
            return Err(Error::Config(format!(
                "expected weights and a normalisation with which all values stay within float32's \
                 range, found some with which they may reach {largest:.0e}"
            )));
        }
        let kernels = match (BatchForm::of(config), config.network) {
            (_, Network::Original) => {
                Kernels::Pattern(Box::new(PatternNetwork::of(weights, Loss::Distance)?))
            }
            (Ok(form), Network::Modern) if config.input != Input::Resized => {
                let parameters = ParameterVector::of(weights);
                let single = SingleKernels::new(form, &parameters);
                let images = Box::new(GreyImages::new(Vec::new(), SIDE, config));
                Kernels::Batch { form, parameters, images, free: Mutex::default(), single }
            }
            _ => Kernels::Plain,
        };
        Ok(Self { forward, kernels })
    }

    /// The settings of the network.
    pub fn config(&self) -> &ModelConfig {
        self.forward.config()
    }

    /// The probabilities of the classes, for each picture in MNIST's form.
    pub fn probabilities(&self, pictures: &[[u8; PIXELS]]) -> Vec<Vec<f32>> {
        // Handing a single chunk to another thread would only take time.
        let logits: Vec<Vec<f32>> = if pictures.len() <= CHUNK {
            vec![self.logits(pictures)]
        } else {
            let chunks = pictures.par_chunks(CHUNK).with_max_len(1);
            chunks.map(|chunk| self.logits(chunk)).collect()
        };
        let classes = self.config().classes;
        logits.iter().flat_map(|logits| logits.chunks_exact(classes)).map(softmax).collect()
    }

    /// The logits of a few pictures: (N, classes), row by row.
    // Not inlined: rayon calls itself for each half of the chunks, and would hold the kernels' large frame on the stack as
    // often. WebAssembly's stack does not have so much.
    #[inline(never)]
    fn logits(&self, pictures: &[[u8; PIXELS]]) -> Vec<f32> {
        match &self.kernels {
            Kernels::Batch { images, single, .. } if pictures.len() < FEW => {
                let logits = |picture: &[u8; PIXELS]| single.logits(&images.input(picture));
                pictures.iter().flat_map(logits).collect()
            }
            Kernels::Batch { form, parameters, images, free, .. } => {
                let lock = || free.lock().unwrap_or_else(PoisonError::into_inner);
                let unused = lock().pop();
                let mut kernels =
                    unused.unwrap_or_else(|| BatchKernels::new(*form, parameters.classes()));
                let images = images.with_pictures(pictures);
                let indices: Vec<i64> = (0..pictures.len() as i64).collect();
                let images = BatchImages::Grey(&images, &indices);
                let logits = kernels.logits(parameters, images, pictures.len());
                lock().push(kernels);
                logits
            }
            Kernels::Pattern(network) => {
                let mut buffers = PatternBuffers::new();
                let mut logits = Vec::new();
                for picture in pictures {
                    let input = to_input(picture, SIDE, self.config());
                    let input = input.first_chunk().expect("the network takes 32x32");
                    logits.extend(network.forward(&mut buffers, input).iter().map(|p| -p));
                }
                logits
            }
            Kernels::Plain => {
                let inputs: Vec<f32> = pictures
                    .iter()
                    .flat_map(|picture| to_input(picture, SIDE, self.config()))
                    .collect();
                self.forward.logits(&inputs).expect("whole images")
            }
        }
    }

    /// The outputs of all layers for a picture, with the input first.
    pub fn layers(&self, picture: &[u8; PIXELS]) -> Vec<LayerOutput> {
        let size = self.config().input.size();
        let input = to_input(picture, SIDE, self.config());
        let layers = self.forward.layers(&input, size).expect("an image of the network's size");
        let mut outputs =
            vec![LayerOutput { name: "input", shape: vec![1, size, size], values: input }];
        outputs.extend(layers.into_iter().map(|(name, maps)| LayerOutput {
            name,
            shape: match (maps.height, maps.width) {
                (1, 1) => vec![maps.count],
                (height, width) => vec![maps.count, height, width],
            },
            values: maps.values,
        }));
        outputs
    }
}

/// Computes the probabilities of the classes from their logits.
fn softmax(logits: &[f32]) -> Vec<f32> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = logits.iter().map(|logit| (logit - most).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}
