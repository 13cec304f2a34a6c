//! Creates the training data of the two networks that read pictures: MNIST's digits, digits of
//! other hands, digits cut out of strings, and, for the reject network, what is no digit.
//!
//! Run: `cargo run --release --example reading_data -- HANDS OUT`. The files `HANDS/*-images` and
//! `HANDS/*-labels` (IDX) hold ink as `scripts/hands.py` draws it; label 10 is no digit. The data
//! sets are written to `OUT/reading` (ten classes) and `OUT/reject` (eleven). `make
//! reading-weights` runs all of it.

use std::path::{Path, PathBuf};

use anyhow::Context;
use lenet5::data::{Dataset, Split};
use lenet5_core::data::digit::{PIXELS, SIDE};
use lenet5_core::data::idx;
use lenet5_core::files::{create_folder, write_atomic};
use lenet5_core::recognizer::training::{Example, REJECT_CLASS, candidates, normalised};
use rayon::prelude::*;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1).map(PathBuf::from);
    let usage = "usage: reading_data HANDS OUT";
    let (hands, out) = (arguments.next().context(usage)?, arguments.next().context(usage)?);
    let (hands, others) = split(read_hands(&hands)?);
    for (split_name, name, [cut, wrong]) in
        [(Split::Train, "train", [60_000, 400_000]), (Split::Test, "t10k", [3000, 20_000])]
    {
        let mut digits = mnist(split_name)?;
        if split_name == Split::Train {
            // MNIST's own form counts twice, as most other digits are reshaped.
            digits.extend_from_within(..);
            digits.extend(&hands);
        }
        // About a tenth of the candidates are digits.
        let (cut_out, no_digits) = split(candidates(&digits, 12 * cut, cut as u64));
        digits.extend(&cut_out[..cut.min(cut_out.len())]);
        write(&out.join("reading"), name, &digits)?;
        digits.extend(&no_digits[..wrong.min(no_digits.len())]);
        if split_name == Split::Train {
            digits.extend(&others);
        }
        write(&out.join("reject"), name, &digits)?;
    }
    Ok(())
}

/// Separates digits from what is no digit.
fn split(examples: Vec<Example>) -> (Vec<Example>, Vec<Example>) {
    examples.into_iter().partition(|(_, label)| *label != REJECT_CLASS)
}

/// MNIST's digits.
fn mnist(split: Split) -> anyhow::Result<Vec<Example>> {
    let data = Dataset::embedded(split, 10)?;
    let bytes = Vec::<u8>::try_from(data.images().flatten(0, -1))?;
    let labels = Vec::<u8>::try_from(data.labels().to_kind(tch::Kind::Uint8))?;
    Ok(bytes.as_chunks().0.iter().copied().zip(labels).collect())
}

/// The pictures of all files in a folder, in MNIST's form.
fn read_hands(folder: &Path) -> anyhow::Result<Vec<Example>> {
    let mut files: Vec<PathBuf> =
        folder.read_dir()?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    files.sort();
    let mut examples = Vec::new();
    for file in files {
        let name = file.to_string_lossy();
        let Some(source) = name.strip_suffix("-images") else { continue };
        let (images, labels) =
            (idx::read(&file, 3)?, idx::read(Path::new(&format!("{source}-labels")), 1)?);
        let [_, _, width] = images.dimensions[..] else {
            unreachable!("three dimensions were read")
        };
        let pixels = images.data.len() / labels.data.len();
        let drawn = images.data.par_chunks_exact(pixels).map(|ink| normalised(ink, width));
        let drawn: Vec<Option<[u8; PIXELS]>> = drawn.collect();
        let found = drawn.into_iter().zip(labels.data);
        examples.extend(found.filter_map(|(pixels, label)| Some((pixels?, label))));
    }
    Ok(examples)
}

/// Writes a part of a data set in IDX files.
fn write(folder: &Path, name: &str, examples: &[Example]) -> anyhow::Result<()> {
    create_folder(folder)?;
    let header = |kind: u32, sizes: &[usize]| {
        let sizes = sizes.iter().map(|size| *size as u32);
        std::iter::once(kind).chain(sizes).flat_map(u32::to_be_bytes).collect::<Vec<u8>>()
    };
    let mut images = header(0x803, &[examples.len(), SIDE, SIDE]);
    images.extend(examples.iter().flat_map(|(pixels, _)| pixels));
    let mut classes = header(0x801, &[examples.len()]);
    classes.extend(examples.iter().map(|(_, label)| *label));
    write_atomic(&folder.join(format!("{name}-images-idx3-ubyte")), &images)?;
    write_atomic(&folder.join(format!("{name}-labels-idx1-ubyte")), &classes)?;
    let rejected = examples.iter().filter(|(_, label)| *label == REJECT_CLASS).count();
    println!(
        "{}: {name}: {} examples, {rejected} of them no digit",
        folder.display(),
        examples.len()
    );
    Ok(())
}
