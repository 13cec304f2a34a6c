//! Reads the digits in picture files, without libtorch: lenet5-core alone.
//!
//! Run: cargo run --release -p lenet5-core --features pictures --example read_digits [PICTURE ...]

use lenet5_core::{Network, Picture, PictureLimits, Recognizer};

fn main() -> lenet5_core::Result<()> {
    let mut files: Vec<String> = std::env::args().skip(1).collect();
    if files.is_empty() {
        files.push("tests/pictures/407.png".to_owned());
    }
    let recognizer = Recognizer::shipped(Network::Modern)?; // threads can share it
    for file in files {
        let picture = Picture::open(&file, &PictureLimits::default())?;
        let reading = recognizer.read(&picture)?;
        println!("{file}: {}", reading.text);
        for digit in &reading.digits {
            let [left, top, width, height] = digit.area;
            let Some(second) = (0..10)
                .filter(|class| *class != digit.label)
                .max_by(|a, b| digit.probabilities[*a].total_cmp(&digit.probabilities[*b]))
            else {
                continue;
            };
            println!(
                "  {} at {left},{top}, {width}x{height}: confidence {:.2}, otherwise {second}",
                digit.label, digit.confidence
            );
        }
    }
    Ok(())
}
