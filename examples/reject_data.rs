//! Creates the training data of the reject network of `predict`, a data set of eleven classes:
//! MNIST's digits, digits cut out of strings, and pictures that are no digit. Run: `cargo run
//! --release --example reject_data -- FOLDER`

use std::path::Path;

use anyhow::Context;
use lenet5::data::{Dataset, Split};
use lenet5_core::data::digit::PIXELS;
use lenet5_core::files::{create_folder, write_atomic};
use lenet5_core::recognizer::training::{REJECT_CLASS, Random, examples};

fn main() -> anyhow::Result<()> {
    let folder = std::env::args().nth(1).context("usage: reject_data FOLDER")?;
    let folder = Path::new(&folder);
    create_folder(folder)?;
    for (split, name, count) in [(Split::Train, "train", 400_000), (Split::Test, "t10k", 20_000)] {
        let data = Dataset::embedded(split, 10)?;
        let bytes = Vec::<u8>::try_from(data.images().flatten(0, -1))?;
        let digits = bytes.as_chunks::<PIXELS>().0;
        let labels = Vec::<u8>::try_from(data.labels().to_kind(tch::Kind::Uint8))?;
        let mut all: Vec<([u8; PIXELS], u8)> =
            digits.iter().copied().zip(labels.iter().copied()).collect();
        all.extend(examples(digits, &labels, count, &mut Random::new(count as u64)));
        let header = |kind: u32, sizes: &[usize]| {
            let sizes = sizes.iter().map(|size| *size as u32);
            let numbers = std::iter::once(kind).chain(sizes);
            numbers.flat_map(u32::to_be_bytes).collect::<Vec<u8>>()
        };
        let mut images = header(0x803, &[all.len(), 28, 28]);
        images.extend(all.iter().flat_map(|(pixels, _)| pixels));
        let mut classes = header(0x801, &[all.len()]);
        classes.extend(all.iter().map(|(_, label)| *label));
        write_atomic(&folder.join(format!("{name}-images-idx3-ubyte")), &images)?;
        write_atomic(&folder.join(format!("{name}-labels-idx1-ubyte")), &classes)?;
        let rejected = all.iter().filter(|(_, label)| *label == REJECT_CLASS).count();
        println!("{name}: {} examples, {rejected} of them no digit", all.len());
    }
    Ok(())
}
