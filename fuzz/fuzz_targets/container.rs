//! All containers (zip, pickles of the old format, TorchScript, safetensors), and the search for a
//! LeNet-5 in them.
#![no_main]

use lenet5_core::weights::{Limits, Weights};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = Weights::from_bytes(bytes, &Limits { memory: 64 << 20 });
});
