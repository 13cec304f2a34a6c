//! The reader of IDX files, plain and gzip; the first byte is the number of dimensions.
#![no_main]

use lenet5_core::data::idx;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((dimensions, bytes)) = input.split_first() else { return };
    let _ = idx::decode_labels(bytes);
    if let Ok(array) = idx::decode(bytes, dimensions % 4) {
        assert_eq!(array.data.len(), array.dimensions.iter().product::<usize>());
    }
});
