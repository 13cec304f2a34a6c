//! The pickle reader, and what it says about tensors: each storage is 64 bytes.
#![no_main]

use lenet5_core::weights::resolve::{Source, resolve};
use lenet5_core::weights::{Limits, pickle};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { memory: 64 << 20 };
    let mut storage = |_: &str| Ok(vec![0x3f; 64]);
    if let Ok(pickle) = pickle::parse(bytes, &limits) {
        assert!(pickle.length <= bytes.len());
        let big_endian = bytes.len() % 2 == 1;
        let _ = resolve(&pickle, &limits, &mut Source { big_endian, storage: &mut storage });
    }
});
