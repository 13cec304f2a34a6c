//! Between the engine's parameters and libtorch's.

use tch::{Device, Kind, Tensor};

use super::{Image, Loss, Network, PIXELS, Parameters, TENSORS, Work, c3_connected};
use crate::model::{self, LeNet5};
use crate::{Error, Result};

impl From<model::Loss> for Loss {
    fn from(loss: model::Loss) -> Self {
        match loss {
            // No class of everything else: it is infinitely far away.
            model::Loss::CrossEntropy => Self::Discriminative { j: f32::INFINITY },
            model::Loss::Distance => Self::Distance,
            model::Loss::Discriminative { j } => Self::Discriminative { j: j as f32 },
        }
    }
}

impl Parameters {
    /// From tensors in the order and the shapes of [`TENSORS`], on any device.
    ///
    /// # Errors
    /// Where their number or a shape is another.
    pub fn from_tensors(tensors: &[Tensor]) -> Result<Parameters> {
        if tensors.len() != TENSORS.len() {
            let (expected, found) = (TENSORS.len(), tensors.len());
            return Err(Error::Config(format!(
                "the network of 1998: expected {expected} tensors, found {found}"
            )));
        }
        let mut parameters = Parameters::zeros();
        for ((name, values), tensor) in
            TENSORS.iter().map(|(name, _)| name).zip(&mut parameters.values).zip(tensors)
        {
            let tensor = tensor.to_device(Device::Cpu).to_kind(Kind::Float).flatten(0, -1);
            let found = Vec::<f32>::try_from(tensor)?;
            if found.len() != values.len() {
                let (expected, found) = (values.len(), found.len());
                return Err(Error::Config(format!(
                    "{name}: expected {expected} values, found {found}"
                )));
            }
            *values = found;
        }
        Ok(parameters)
    }

    /// As tensors on the CPU, in the order and the shapes of [`TENSORS`].
    pub fn to_tensors(&self) -> Vec<Tensor> {
        let tensors = TENSORS.iter().zip(&self.values);
        tensors
            .map(|((_, shape), values)| {
                let shape: Vec<_> = shape.iter().map(|&size| size as i64).collect();
                Tensor::from_slice(values).reshape(shape)
            })
            .collect()
    }
}

impl Network {
    /// A copy of an original network in libtorch.
    ///
    /// # Errors
    /// Where the network is not the original one.
    pub fn of(model: &LeNet5, loss: model::Loss) -> Result<Network> {
        let tensors: Vec<_> = model.state().into_iter().map(|(_, tensor)| tensor).collect();
        let [parameters @ .., codes] = &tensors[..] else { unreachable!("a network has tensors") };
        if parameters.len() != TENSORS.len() {
            return Err(Error::Config("expected the original network".to_owned()));
        }
        let mut parameters = Parameters::from_tensors(parameters)?;
        for (index, weight) in parameters.values[4].iter_mut().enumerate() {
            if !c3_connected(index) {
                *weight = 0.0;
            }
        }
        let codes = Vec::<f32>::try_from(codes.to_device(Device::Cpu).flatten(0, -1))?;
        Ok(Network::new(&parameters, &codes, model.config().rbf_scale as f32, loss.into()))
    }

    /// The logits of images (N, 1, 32, 32) on the CPU: (N, classes), the penalties times -1.
    ///
    /// # Errors
    /// Where libtorch refuses.
    pub fn logits(&self, images: &Tensor) -> Result<Tensor> {
        let mut work = Work::new();
        let pixels = Vec::<f32>::try_from(images.flatten(0, -1))?;
        let mut logits = Vec::new();
        for image in pixels.as_chunks::<PIXELS>().0 {
            logits.extend(self.forward(&mut work, image).iter().map(|penalty| -penalty));
        }
        Ok(Tensor::f_from_slice(&logits)?.f_reshape([images.size()[0], -1])?)
    }

    /// As [`Network::hessian`], of images (N, 1, 32, 32) and labels (N), on any device.
    ///
    /// # Errors
    /// Where libtorch refuses.
    pub fn curvature(&self, images: &Tensor, labels: &Tensor) -> Result<Parameters> {
        let pixels = Vec::<f32>::try_from(images.to_device(Device::Cpu).flatten(0, -1))?;
        let labels = Vec::<i64>::try_from(labels.to_device(Device::Cpu))?;
        let images = pixels.as_chunks::<PIXELS>().0.iter().map(Image::from);
        Ok(self.hessian(images.zip(labels.into_iter().map(|label| label as usize))))
    }

    /// Writes the parameters to the network that it was copied from.
    ///
    /// # Errors
    /// Where libtorch refuses.
    pub fn store(&self, model: &LeNet5) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        for (tensor, (_, parameter)) in
            self.parameters().to_tensors().iter().zip(model.parameters())
        {
            parameter.shallow_clone().f_copy_(tensor)?;
        }
        Ok(())
    }
}
