//! MNIST's training part: 60,000 images of handwritten digits by Y. LeCun, C. Cortes and C. Burges,
//! as gzip-compressed IDX files. The test part is in the package lenet5.

/// The images: (60000, 28, 28), uint8, 0 for background to 255 for ink.
pub const TRAIN_IMAGES: &[u8] = include_bytes!("../data/train-images-idx3-ubyte.gz");

/// The labels: (60000), uint8, 0 to 9.
pub const TRAIN_LABELS: &[u8] = include_bytes!("../data/train-labels-idx1-ubyte.gz");
