//! Runs a TorchScript classifier as it is. Unlike reading weights, this executes the file's code.

use std::path::Path;

use tch::{CModule, Device, Kind, Tensor};

use lenet5_core::weights::contents::{self, Container};
use lenet5_core::weights::{Limits, Weights, read_limited};
use lenet5_core::{files, foreign};

use crate::model::{Input, ModelConfig, ModelOptions};
use crate::{Error, Result};

/// A TorchScript module from images to scores of classes.
#[derive(Debug)]
pub struct Script {
    module: CModule,
    device: Device,
    /// Of its parameters: what images are converted to.
    kind: Kind,
    config: ModelConfig,
}

impl Script {
    /// Loads a module, which may run code of the file, and finds the input that it takes and the number
    /// of its classes by black images.
    ///
    /// The input's settings are those given; else those stored in the file, as this crate does; else
    /// 32x32 pixels, padded, or 28x28 where the module takes no other, from 0 to 1.
    ///
    /// # Errors
    /// Where the file is no TorchScript, or the module does not give a tensor (N, classes).
    pub fn load(
        path: &Path,
        options: &ModelOptions,
        limits: &Limits,
        device: Device,
    ) -> Result<Self> {
        let refused = |error: tch::TchError| Error::file(path, Error::from(error).to_string());
        // libtorch's own messages do not tell a missing file, or another form, from a broken one.
        files::check_regular(path)?;
        // A file over the limit is not looked at beforehand.
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

    /// Whether images get the same scores each time, and in any batch: not where the module was traced in
    /// training mode, with active dropout or the statistics of the batch.
    fn check_repeatable(&self) -> Result<(), String> {
        let _no_grad = tch::no_grad_guard();
        let size = self.config.input.size() as i64;
        let pixels = Tensor::arange(16 * size * size, (Kind::Float, Device::Cpu));
        // Any images do that differ from each other, also in their means.
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
        // Kernels may add up in another order for another size of the batch.
        if !alone.allclose(&together, 1e-3, 1e-3, true) {
            return Err(format!(
                "expected scores of an image that do not hang on the others of its batch, found that \
                 they do: it normalises by the batch; {remedy}"
            ));
        }
        Ok(())
    }

    /// The settings of the input, and the number of classes.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Images (N, 1, S, S) -> scores (N, classes), float32.
    ///
    /// # Errors
    /// Where the module raises one.
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
