//! The readers of tables of text and of npz files.
#![no_main]

use lenet5_core::data::labelled;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = labelled::decode(input);
});
