//! Runs a TorchScript classifier without conversion. Unlike reading weights, this executes the
//! file's code.

use std::path::Path;

use tch::{CModule, Device, Kind, Tensor};

use lenet5_core::weights::contents::{self, Container};
use lenet5_core::weights::{Limits, Weights, read_limited};
use lenet5_core::{files, foreign};

use crate::model::{Input, ModelConfig, ModelOptions};
use crate::{Error, Result};

/// A TorchScript module that maps images to class scores.
#[derive(Debug)]
pub struct Script {
    module: CModule,
    device: Device,
    /// The element type of the module's parameters, to which images are converted.
    kind: Kind,
    config: ModelConfig,
}

impl Script {
    /// Loads a module, which may run code of the file. Its input size and the number of classes are
    /// detected by running it on black images.
    ///
    /// The settings of the input are those in `options`; otherwise those stored in the file, if
    /// this crate wrote it; otherwise pixels from 0 to 1, padded to 32x32, or 28x28 if the module
    /// accepts no other size.
    ///
    /// # Errors
    /// If the file is no TorchScript, or the module does not return a tensor (N, classes).
    pub fn load(
        path: &Path,
        options: &ModelOptions,
        limits: &Limits,
        device: Device,
    ) -> Result<Self> {
        let refused = |error: tch::TchError| Error::file(path, Error::from(error).to_string());
        // libtorch's own messages do not distinguish a missing file or another format from a
        // damaged file.
        files::check_regular(path)?;
        // A file over the limit is not inspected first.
        let bytes = read_limited(path, limits);
        let within_limit = bytes.is_ok();
        let bytes = bytes.unwrap_or_default();
        let form = contents::read(&bytes, limits).map(|contents| contents.container);
        let message = match form {
            Ok(Container::TorchScript) => None,
            Ok(other) => Some(format!("expected TorchScript, found {other}: --weights reads it")),
            Err(_) => foreign::name(&bytes)
                .filter(|_| within_limit && !bytes.starts_with(b"PK"))
                .map(|name| format!("expected TorchScript, found {name}")),
        };
        if let Some(message) = message {
            return Err(Error::file(path, message));
        }
        let mut module = CModule::load_on_device(path, device).map_err(refused)?;
        module.f_set_eval().map_err(refused)?;
        let parameters = module.named_parameters().map_err(refused)?;
        let kind = parameters.first().map_or(Kind::Float, |(_, tensor)| tensor.kind());
        let mut config = Weights::from_bytes(&bytes, limits)
            .map_or_else(|_| ModelConfig::default(), |weights| weights.config);
        options.apply(&mut config);
        config.validate()?;
        let mut script = Self { module, device, kind, config };
        let output = script.try_black(script.config.input).or_else(|error| {
            if options.input.is_some() {
                return Err(error);
            }
            let output = script.try_black(Input::Unpadded).map_err(|_| error)?;
            script.config.input = Input::Unpadded;
            Ok(output)
        });
        let output = output.map_err(|error| {
            Error::file(
                path,
                format!("expected a module from images (N, 1, S, S) to (N, classes): {error}"),
            )
        })?;
        script.config.classes = match output.size()[..] {
            [2, classes] if (2..=1000).contains(&classes) => classes as usize,
            _ => {
                return Err(Error::file(
                    path,
                    format!(
                        "expected a module that gives (N, classes), found {:?} of two images",
                        output.size()
                    ),
                ));
            }
        };
        script.check_repeatable().map_err(|message| Error::file(path, message))?;
        Ok(script)
    }

    /// Checks that an image gets the same scores each time, and in any batch. This fails if the
    /// module was traced in training mode, with active dropout or batch statistics.
    fn check_repeatable(&self) -> Result<(), String> {
        let _no_grad = tch::no_grad_guard();
        let size = self.config.input.size() as i64;
        let pixels = Tensor::arange(16 * size * size, (Kind::Float, Device::Cpu));
        // The check needs images that differ from each other, also in their means.
        let brightness = Tensor::linspace(0.02, 1.0, 16, (Kind::Float, Device::Cpu));
        let images = (pixels * 0.7).sin().abs().reshape([16, 1, size, size])
            * brightness.reshape([16, 1, 1, 1]);
        let scores = |images: &Tensor| self.forward(images).map_err(|error| error.to_string());
        let (first, second) = (scores(&images)?, scores(&images)?);
        let remedy =
            "it was traced or saved in training mode; call model.eval() first, and trace it again";
        if !first.equal(&second) {
            return Err(format!(
                "expected the same scores for the same images, found others the second time: dropout \
                 is active; {remedy}"
            ));
        }
        let alone = scores(&images.narrow(0, 0, 3))?;
        let together = first.narrow(0, 0, 3);
        // Kernels may add in another order for another batch size.
        if !alone.allclose(&together, 1e-3, 1e-3, true) {
            return Err(format!(
                "expected scores of an image that do not depend on the other images of its batch, \
                 found that they do: it normalises by the batch; {remedy}"
            ));
        }
        Ok(())
    }

    /// Returns the settings of the input, and the number of classes.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Computes class scores: images (N, 1, S, S) -> scores (N, classes), float32.
    ///
    /// # Errors
    /// If the module raises an error, or returns another shape.
    pub fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let images = images.to_device(self.device).to_kind(self.kind);
        let output = self.module.forward_ts(&[&images])?.to_kind(Kind::Float);
        match (output.size().as_slice(), images.size()[0]) {
            ([found, _], count) if *found == count => Ok(output),
            (found, count) => Err(Error::config(format!(
                "expected {count} rows of scores for {count} images, found a tensor {found:?}"
            ))),
        }
    }

    fn try_black(&self, input: Input) -> Result<Tensor> {
        let _no_grad = tch::no_grad_guard();
        let size = input.size() as i64;
        let images = Tensor::zeros([2, 1, size, size], (Kind::Float, Device::Cpu));
        self.forward(&images)
    }
}
