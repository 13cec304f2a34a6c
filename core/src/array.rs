//! Tensors as plain data: element type, shape and bytes.

use crate::{Error, Result};

/// The element types that are read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DType {
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
    /// 16-bit float.
    F16,
    /// 16-bit float with the exponent range of float32.
    BF16,
    /// 64-bit integer.
    I64,
    /// 32-bit integer.
    I32,
    /// 16-bit integer.
    I16,
    /// 8-bit integer.
    I8,
    /// Byte.
    U8,
    /// Boolean, one byte per value.
    Bool,
}

impl DType {
    /// Element type, bytes of an element, storage class in `torch`, dtype in `torch`, name in safetensors.
    const ALL: [(DType, usize, &'static str, &'static str, &'static str); 10] = [
        (DType::F32, 4, "FloatStorage", "float32", "F32"),
        (DType::F64, 8, "DoubleStorage", "float64", "F64"),
        (DType::F16, 2, "HalfStorage", "float16", "F16"),
        (DType::BF16, 2, "BFloat16Storage", "bfloat16", "BF16"),
        (DType::I64, 8, "LongStorage", "int64", "I64"),
        (DType::I32, 4, "IntStorage", "int32", "I32"),
        (DType::I16, 2, "ShortStorage", "int16", "I16"),
        (DType::I8, 1, "CharStorage", "int8", "I8"),
        (DType::U8, 1, "ByteStorage", "uint8", "U8"),
        (DType::Bool, 1, "BoolStorage", "bool", "BOOL"),
    ];

    fn row(self) -> (DType, usize, &'static str, &'static str, &'static str) {
        *Self::ALL.iter().find(|(dtype, ..)| *dtype == self).expect("all types are listed")
    }

    /// Finds the type of a storage class such as `torch.FloatStorage`.
    pub(crate) fn from_storage(class: &str) -> Option<Self> {
        let name = class.strip_prefix("torch.")?;
        Self::ALL.iter().find(|(_, _, storage, ..)| *storage == name).map(|(dtype, ..)| *dtype)
    }

    /// Finds the type of a name such as `torch.float32`.
    pub(crate) fn from_torch(name: &str) -> Option<Self> {
        let name = name.strip_prefix("torch.")?;
        Self::ALL.iter().find(|(_, _, _, torch, _)| *torch == name).map(|(dtype, ..)| *dtype)
    }

    /// Finds the type of a name in safetensors, such as `F32`.
    pub(crate) fn from_safetensors(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(.., safetensors)| *safetensors == name).map(|(dtype, ..)| *dtype)
    }

    /// The storage class in `torch`.
    pub(crate) fn storage(self) -> &'static str {
        self.row().2
    }

    /// The name in safetensors.
    pub(crate) fn safetensors(self) -> &'static str {
        self.row().4
    }

    /// The name in `torch`, such as `float32`.
    pub fn name(self) -> &'static str {
        self.row().3
    }

    /// The size of an element in bytes.
    pub fn size(self) -> usize {
        self.row().1
    }

    /// Whether elements are floating-point numbers.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64 | Self::F16 | Self::BF16)
    }
}

/// A tensor as plain data: row-major, little-endian.
///
/// # Example
/// ```
/// use lenet5_core::Array;
///
/// let array = Array::from_f32(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
/// assert_eq!(array.shape(), [2, 2]);
/// assert_eq!(array.to_f32(), [1.0, 2.0, 3.0, 4.0]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Array {
    dtype: DType,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Array {
    /// Creates an array from its bytes, row-major and little-endian.
    ///
    /// # Errors
    /// If the number of bytes does not fit the shape.
    pub fn new(dtype: DType, shape: Vec<usize>, bytes: Vec<u8>) -> Result<Self> {
        let expected =
            shape.iter().try_fold(dtype.size(), |product, size| product.checked_mul(*size));
        if expected != Some(bytes.len()) {
            return Err(Error::Config(format!(
                "expected the bytes of {} elements of shape {shape:?}, found {} bytes",
                dtype.name(),
                bytes.len()
            )));
        }
        Ok(Self { dtype, shape, bytes })
    }

    /// Creates an array of float32 values.
    ///
    /// # Panics
    /// If the number of values does not fit the shape.
    pub fn from_f32(shape: &[usize], values: &[f32]) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "values of shape {shape:?}");
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { dtype: DType::F32, shape: shape.to_vec(), bytes }
    }

    /// Creates an array of int64 values.
    ///
    /// # Panics
    /// If the number of values does not fit the shape.
    pub fn from_i64(shape: &[usize], values: &[i64]) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "values of shape {shape:?}");
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { dtype: DType::I64, shape: shape.to_vec(), bytes }
    }

    /// Creates a float32 array of zeros.
    pub fn zeros(shape: &[usize]) -> Self {
        let bytes = vec![0; DType::F32.size() * shape.iter().product::<usize>()];
        Self { dtype: DType::F32, shape: shape.to_vec(), bytes }
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The sizes, the slowest dimension first; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements as bytes, row-major and little-endian.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.dtype.size()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The elements as float32. Elements of a more precise type are rounded.
    pub fn to_f32(&self) -> Vec<f32> {
        match self.dtype {
            DType::F32 => self
                .bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|bytes| f32::from_le_bytes(*bytes))
                .collect(),
            _ => self.to_f64().into_iter().map(|value| value as f32).collect(),
        }
    }

    /// The elements as float64.
    pub fn to_f64(&self) -> Vec<f64> {
        fn map<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f64) -> Vec<f64> {
            bytes.as_chunks::<N>().0.iter().map(|bytes| value(*bytes)).collect()
        }
        let bytes = &self.bytes[..];
        match self.dtype {
            DType::F32 => map(bytes, |b| f32::from_le_bytes(b).into()),
            DType::F64 => map(bytes, f64::from_le_bytes),
            DType::F16 => map(bytes, |b| half(u16::from_le_bytes(b))),
            DType::BF16 => {
                map(bytes, |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16).into())
            }
            DType::I64 => map(bytes, |b| i64::from_le_bytes(b) as f64),
            DType::I32 => map(bytes, |b| i32::from_le_bytes(b).into()),
            DType::I16 => map(bytes, |b| i16::from_le_bytes(b).into()),
            DType::I8 => map(bytes, |b| i8::from_le_bytes(b).into()),
            DType::U8 | DType::Bool => map(bytes, |[b]| b.into()),
        }
    }

    /// The array as float32. A float32 array stays as it is.
    pub(crate) fn into_f32(self) -> Self {
        match self.dtype {
            DType::F32 => self,
            _ => Self::from_f32(&self.shape.clone(), &self.to_f32()),
        }
    }

    /// Returns the same elements in another shape.
    ///
    /// # Panics
    /// If the shape has another number of elements.
    pub fn reshaped(mut self, shape: &[usize]) -> Self {
        assert_eq!(shape.iter().product::<usize>(), self.len(), "{:?} as {shape:?}", self.shape);
        self.shape = shape.to_vec();
        self
    }
}

/// Converts a 16-bit float of IEEE 754 to float64.
fn half(bits: u16) -> f64 {
    let sign = if bits >> 15 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
    sign * match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn element_types_are_converted() {
        let value =
            |dtype, bytes: &[u8]| Array::new(dtype, vec![1], bytes.to_vec()).unwrap().to_f64()[0];
        for (bits, expected) in [
            (0x3c00_u16, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0001, 2f64.powi(-24)),
            (0x03ff, 1023.0 * 2f64.powi(-24)),
            (0x3555, 0.333_251_953_125),
            (0x7c00, f64::INFINITY),
        ] {
            assert_eq!(value(DType::F16, &bits.to_le_bytes()), expected);
        }
        assert!(value(DType::F16, &0x7e00_u16.to_le_bytes()).is_nan());
        assert_eq!(value(DType::BF16, &0x4049_u16.to_le_bytes()), 3.140_625);
        assert_eq!(value(DType::I8, &[0xff]), -1.0);
        assert_eq!(value(DType::Bool, &[1]), 1.0);
    }

    #[test]
    fn bytes_have_to_fit_the_shape() {
        let error = Array::new(DType::F32, vec![2], vec![0; 7]).unwrap_err().to_string();
        assert_eq!(error, "expected the bytes of float32 elements of shape [2], found 7 bytes");
        assert!(Array::new(DType::F32, vec![usize::MAX, 2], Vec::new()).is_err());
    }
}
