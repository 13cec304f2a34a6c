//! Examples of distorted images.

use lenet5_core::training::Distortions;
use tch::{Kind, Tensor};

use super::dataset::{Dataset, Split};
use crate::Result;
use crate::model::ModelConfig;

/// Returns the first image of each class of MNIST, followed by nine distorted copies: (10, 10, 32,
/// 32), 0..1.
///
/// # Errors
/// If libtorch reports an error.
pub fn examples(distortions: &Distortions) -> Result<Tensor> {
    let data = Dataset::embedded(Split::Train, 10)?;
    let rows = (0..10).map(|class| {
        let index = data.labels().eq(class).to_kind(Kind::Int64).argmax(0, false);
        let indices = index.reshape([1]);
        let config = ModelConfig::default();
        let mut row = vec![data.batch(&indices, &config).0];
        row.extend(
            (1..10).map(|epoch| data.distorted(&indices, &config, distortions, (1, epoch)).0),
        );
        Tensor::cat(&row, 0).squeeze_dim(1)
    });
    Ok(Tensor::stack(&rows.collect::<Vec<_>>(), 0))
}
