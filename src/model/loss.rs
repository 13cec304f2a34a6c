//! The loss functions, computed by libtorch.

use tch::{Kind, Reduction, Tensor};

use crate::recipe::Loss;

/// Computes the mean loss of a batch: logits (N, classes) and labels (N), int64, to a scalar.
pub fn loss(loss: Loss, logits: &Tensor, labels: &Tensor) -> Tensor {
    let right = || logits.gather(1, &labels.unsqueeze(1), false).squeeze_dim(1);
    match loss {
        Loss::CrossEntropy => {
            logits.cross_entropy_loss(labels, None::<Tensor>, Reduction::Mean, -100, 0.0)
        }
        Loss::Distance => (-right()).mean(Kind::Float),
        Loss::Discriminative { j } => {
            let other = Tensor::full([logits.size()[0], 1], -j, (logits.kind(), logits.device()));
            let all = Tensor::cat(&[logits, &other], 1).logsumexp([1i64].as_slice(), false);
            (all - right()).mean(Kind::Float)
        }
    }
}
