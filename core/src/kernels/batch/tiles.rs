//! The shapes of the layers, and the tiles in which the kernels compute them.
//!
//! A tile is the part of a layer's output whose sums are held in registers while the inputs and weights are read. Each
//! value that is loaded is used for many sums, so larger tiles need fewer loads; but sums that do not fit into the
//! registers are written to memory and read again with each use. AVX-512 has 32 registers of 16 lanes. The sums may
//! take 15 to 24 of them; the rest is for inputs and weights. The other instruction sets have 16 registers of eight
//! lanes (NEON has 32 of four), where the sums take 8 to 12. A tile also has to divide the layer evenly.
//!
//! Names that end in `_16` are for 16 lanes, names that end in `_8` for eight.

/// A convolution of 5x5: `channels` input maps of `size` x `size` give maps of `out` x `out`.
pub(super) struct ConvolutionShape {
    pub channels: usize,
    pub size: usize,
    pub out: usize,
}

pub(super) const C1_SHAPE: ConvolutionShape = ConvolutionShape { channels: 1, size: 32, out: 28 };
pub(super) const C3_SHAPE: ConvolutionShape = ConvolutionShape { channels: 6, size: 14, out: 10 };

/// The number of weights of a 5x5 kernel.
pub(super) const TAPS: usize = 25;

// The number of values in the output of each layer.
pub(super) const INPUT_VALUES: usize = C1_SHAPE.size * C1_SHAPE.size;
pub(super) const C1_VALUES: usize = 6 * C1_SHAPE.out * C1_SHAPE.out;
pub(super) const S2_VALUES: usize = C3_SHAPE.channels * C3_SHAPE.size * C3_SHAPE.size;
pub(super) const C3_VALUES: usize = 16 * C3_SHAPE.out * C3_SHAPE.out;
pub(super) const S4_VALUES: usize = C3_VALUES / 4;
pub(super) const C5_VALUES: usize = 120;
pub(super) const F6_VALUES: usize = 84;

/// The tile of a convolution's forward pass: maps by columns, one register each.
pub(super) struct ConvolutionTile {
    pub maps: usize,
    pub columns: usize,
}

pub(super) const C1_TILE_16: ConvolutionTile = ConvolutionTile { maps: 3, columns: 7 };
pub(super) const C1_TILE_8: ConvolutionTile = ConvolutionTile { maps: 2, columns: 4 };

/// The tile of the gradient with respect to a convolution's weights: maps by the five taps of a kernel row, one register
/// each. It is summed over `rows` rows at a time, which stay in the L1 cache while all channels and taps use them.
pub(super) struct KernelGradientTile {
    pub maps: usize,
    pub rows: usize,
}

pub(super) const C1_KERNEL_TILE_16: KernelGradientTile = KernelGradientTile { maps: 3, rows: 4 };
pub(super) const C1_KERNEL_TILE_8: KernelGradientTile = KernelGradientTile { maps: 2, rows: 4 };

// The tiles of C3, which `winograd` computes: the maps of its forward pass and of the gradient with respect to its weights,
// with five registers for each, and the channels of the gradient with respect to its input, with five registers for each.
pub(super) const C3_MAPS_16: usize = 4;
pub(super) const C3_MAPS_8: usize = 2;
pub(super) const C3_CHANNELS_16: usize = 3;
pub(super) const C3_CHANNELS_8: usize = 2;

// The outputs in a tile of a linear layer's forward pass, with up to two registers of samples for each.
pub(super) const LINEAR_OUTPUTS_16: usize = 12;
pub(super) const LINEAR_OUTPUTS_8: usize = 6;
/// The output layer can have any number of classes, so its tiles have one output.
pub(super) const CLASSES_AT_A_TIME: usize = 1;

// The inputs in a tile of the gradient with respect to a linear layer's input, with up to two registers of samples for
// each. F6 and C5 have tiles of 10 and 5, which divide 120 and 400; the output layer's inputs are 84.
pub(super) const LINEAR_INPUTS_16: usize = 10;
pub(super) const LINEAR_INPUTS_8: usize = 5;
pub(super) const OUTPUT_INPUTS_16: usize = 12;
pub(super) const OUTPUT_INPUTS_8: usize = 6;

/// The tile of the gradient with respect to a linear layer's weights: outputs by vectors of inputs, one register each.
pub(super) struct WeightGradientTile {
    pub outputs: usize,
    pub vectors: usize,
}

/// The inputs of a linear layer.
pub(super) struct LinearShape {
    pub inputs: usize,
    /// The length of a sample's row: the inputs, and zeros up to whole tiles.
    pub row: usize,
    pub tile_16: WeightGradientTile,
    pub tile_8: WeightGradientTile,
}

pub(super) const C5_SHAPE: LinearShape = LinearShape {
    inputs: S4_VALUES,
    row: 400,
    tile_16: WeightGradientTile { outputs: 4, vectors: 5 },
    tile_8: WeightGradientTile { outputs: 2, vectors: 5 },
};
pub(super) const F6_SHAPE: LinearShape = LinearShape {
    inputs: C5_VALUES,
    row: 128,
    tile_16: WeightGradientTile { outputs: 4, vectors: 4 },
    tile_8: WeightGradientTile { outputs: 2, vectors: 5 },
};
pub(super) const OUTPUT_SHAPE: LinearShape = LinearShape {
    inputs: F6_VALUES,
    row: 96,
    tile_16: WeightGradientTile { outputs: 4, vectors: 3 },
    tile_8: WeightGradientTile { outputs: 2, vectors: 4 },
};

/// Maximum number of vectors in a [`WeightGradientTile`], times the lanes: the size of the buffer for one of its rows.
pub(super) const WEIGHT_TILE_ROW: usize = 80;
