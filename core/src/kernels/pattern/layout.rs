//! The parameters in PyTorch's layout and in the layout of the kernels, and the conversion between the two.

use crate::model::C3_TABLE;
use crate::{Array, Error, Result};

/// The number of F6's units, which is also the length of a class's code.
pub const CODE: usize = 84;

/// The names and shapes of the parameters, in PyTorch's layout.
pub const TENSORS: [(&str, &[usize]); 12] = [
    ("c1.weight", &[6, 1, 5, 5]),
    ("c1.bias", &[6]),
    ("s2.coefficient", &[6]),
    ("s2.bias", &[6]),
    ("c3.weight", &[16, 6, 5, 5]),
    ("c3.bias", &[16]),
    ("s4.coefficient", &[16]),
    ("s4.bias", &[16]),
    ("c5.weight", &[120, 16, 5, 5]),
    ("c5.bias", &[120]),
    ("f6.weight", &[84, 120]),
    ("f6.bias", &[84]),
];

/// The slot and the lane of input number `k` of map `map`.
const fn slot_and_lane(map: usize, k: usize) -> (usize, usize) {
    if k < 4 { (k, map) } else { (3, k - 4) }
}

/// The input map for each slot and lane. It is 0 for a lane that is not used, whose weights are 0 and stay 0.
pub(super) const SLOT_INPUT: [[i32; 16]; 4] = {
    let mut table = [[0; 16]; 4];
    let mut map = 0;
    while map < 16 {
        let mut k = 0;
        while k < C3_TABLE[map].len() {
            let (slot, lane) = slot_and_lane(map, k);
            table[slot][lane] = C3_TABLE[map][k] as i32;
            k += 1;
        }
        map += 1;
    }
    table
};

/// The ten connections of each input map: slot, lane and map of C3.
pub(super) const CONNECTIONS: [[(usize, usize, usize); 10]; 6] = {
    let mut table = [[(0, 0, 0); 10]; 6];
    let mut filled = [0; 6];
    let mut map = 0;
    while map < 16 {
        let mut k = 0;
        while k < C3_TABLE[map].len() {
            let input = C3_TABLE[map][k];
            let (slot, lane) = slot_and_lane(map, k);
            table[input][filled[input]] = (slot, lane, map);
            filled[input] += 1;
            k += 1;
        }
        map += 1;
    }
    table
};

/// The parameters of the network, or one number for each of them, such as the gradient, the second derivatives or the
/// learning rates. The layout is PyTorch's. C3's weight is dense, with 0 for the connections that do not exist.
#[derive(Clone, Debug, PartialEq)]
pub struct PatternParameters {
    pub(super) values: [Vec<f32>; 12],
}

impl PatternParameters {
    /// Zero for each parameter.
    pub fn zeros() -> PatternParameters {
        PatternParameters {
            values: std::array::from_fn(|t| vec![0.0; TENSORS[t].1.iter().product()]),
        }
    }

    /// The parameters, or one number for each of them, from arrays in the order of [`TENSORS`].
    ///
    /// # Errors
    /// If the number of arrays, or of the values in one of them, is wrong.
    pub fn from_arrays(arrays: &[Array]) -> Result<PatternParameters> {
        if arrays.len() != TENSORS.len() {
            let (expected, found) = (TENSORS.len(), arrays.len());
            return Err(Error::Config(format!(
                "the network of 1998: expected {expected} tensors, found {found}"
            )));
        }
        let mut parameters = PatternParameters::zeros();
        for (((name, _), values), array) in TENSORS.iter().zip(&mut parameters.values).zip(arrays) {
            if array.len() != values.len() {
                let (expected, found) = (values.len(), array.len());
                return Err(Error::Config(format!(
                    "{name}: expected {expected} values, found {found}"
                )));
            }
            *values = array.to_f32();
        }
        Ok(parameters)
    }

    /// The values as arrays in the order and shapes of [`TENSORS`].
    pub fn to_arrays(&self) -> Vec<Array> {
        let tensors = TENSORS.iter().zip(&self.values);
        tensors.map(|((_, shape), values)| Array::from_f32(shape, values)).collect()
    }

    /// The values of the tensor of that name in [`TENSORS`].
    pub fn get(&self, name: &str) -> Option<&[f32]> {
        self.iter().find(|(other, _)| *other == name).map(|(_, values)| values)
    }

    /// The values of the tensor of that name, for writing.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut [f32]> {
        let index = TENSORS.iter().position(|(other, _)| *other == name)?;
        Some(&mut self.values[index])
    }

    /// The names and values of all tensors, in the order of [`TENSORS`].
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &[f32])> {
        TENSORS.iter().zip(&self.values).map(|((name, _), values)| (*name, values.as_slice()))
    }
}

/// Whether the element `index` of C3's weight belongs to a connection that exists.
pub fn c3_connected(index: usize) -> bool {
    C3_TABLE[index / 150].contains(&(index / 25 % 6))
}

/// The length of a row of F6's weights: 120 inputs and eight zeros.
pub(super) const F6_ROW: usize = 128;

// The index of each layer's first weight or bias in `KernelWeights`. All of them are multiples of 16.
pub(super) const C5_WEIGHT: usize = 0; // [output][position][map]
pub(super) const F6_WEIGHT: usize = C5_WEIGHT + 120 * 400; // [output][F6_ROW]
pub(super) const C3_WEIGHT: usize = F6_WEIGHT + CODE * F6_ROW; // [slot][ky][kx][lane]
pub(super) const C1_WEIGHT: usize = C3_WEIGHT + 4 * 25 * 16; // [map][ky][kx]
pub(super) const F6_BIAS: usize = C1_WEIGHT + 160;
pub(super) const C5_BIAS: usize = F6_BIAS + 96;
pub(super) const C3_BIAS: usize = C5_BIAS + 128;
pub(super) const S4_COEFFICIENT: usize = C3_BIAS + 16;
pub(super) const S4_BIAS: usize = S4_COEFFICIENT + 16;
pub(super) const S2_COEFFICIENT: usize = S4_BIAS + 16;
pub(super) const S2_BIAS: usize = S2_COEFFICIENT + 16;
pub(super) const C1_BIAS: usize = S2_BIAS + 16;
pub(super) const LENGTH: usize = C1_BIAS + 16;

/// The parameters, or one number for each of them, in the layout of the kernels. The gaps between the parameters are 0 and
/// stay 0.
#[derive(Clone)]
#[repr(C, align(64))]
pub(super) struct KernelWeights(pub [f32; LENGTH]);

impl KernelWeights {
    /// Zero for each parameter.
    pub fn zeros() -> Box<KernelWeights> {
        Box::new(KernelWeights([0.0; LENGTH]))
    }

    /// Calls `visit(tensor, index, value)` for every parameter, with the index of its tensor in [`TENSORS`], its index in
    /// that tensor in PyTorch's layout, and its value here. Only this function knows both layouts.
    pub fn each(&mut self, mut visit: impl FnMut(usize, usize, &mut f32)) {
        // The tensors whose order is the same in both layouts.
        let plain = [
            (0, C1_WEIGHT, 150),
            (1, C1_BIAS, 6),
            (2, S2_COEFFICIENT, 6),
            (3, S2_BIAS, 6),
            (5, C3_BIAS, 16),
            (6, S4_COEFFICIENT, 16),
            (7, S4_BIAS, 16),
            (9, C5_BIAS, 120),
            (11, F6_BIAS, CODE),
        ];
        for (tensor, start, length) in plain {
            for (index, value) in self.0[start..start + length].iter_mut().enumerate() {
                visit(tensor, index, value);
            }
        }
        for (map, inputs) in C3_TABLE.iter().enumerate() {
            for (k, input) in inputs.iter().enumerate() {
                let (slot, lane) = slot_and_lane(map, k);
                for tap in 0..25 {
                    visit(
                        4,
                        (map * 6 + input) * 25 + tap,
                        &mut self.0[C3_WEIGHT + (slot * 25 + tap) * 16 + lane],
                    );
                }
            }
        }
        for output in 0..120 {
            for map in 0..16 {
                for position in 0..25 {
                    let here = C5_WEIGHT + output * 400 + position * 16 + map;
                    visit(8, (output * 16 + map) * 25 + position, &mut self.0[here]);
                }
            }
        }
        for output in 0..CODE {
            for input in 0..120 {
                visit(10, output * 120 + input, &mut self.0[F6_WEIGHT + output * F6_ROW + input]);
            }
        }
    }

    /// Converts from PyTorch's layout.
    pub fn import(parameters: &PatternParameters) -> Box<KernelWeights> {
        let mut weights = KernelWeights::zeros();
        weights.each(|tensor, index, value| *value = parameters.values[tensor][index]);
        weights
    }

    /// Converts to PyTorch's layout, with all values multiplied by `factor`.
    pub fn export(&mut self, factor: f32) -> PatternParameters {
        let mut parameters = PatternParameters::zeros();
        self.each(|tensor, index, value| parameters.values[tensor][index] = *value * factor);
        parameters
    }
}
