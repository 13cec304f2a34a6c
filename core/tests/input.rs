//! Grey values converted to the network's input: levels, padding, resizing.

use lenet5_core::data::{InputLevels, resize, to_input};
use lenet5_core::model::{Input, ModelConfig};
use proptest::prelude::*;

/// A picture of 28x28 in which no two neighbours are equal.
fn picture() -> Vec<u8> {
    (0..784).map(|i| (i * 7 % 256) as u8).collect()
}

fn config(input: Input) -> ModelConfig {
    ModelConfig { input, mean: 0.1307, std: 0.3081, ..ModelConfig::default() }
}

#[test]
fn levels_are_normalised() {
    let levels = InputLevels::of(&ModelConfig::default());
    assert_eq!(
        (levels.grey[0], levels.grey[51], levels.grey[255], levels.border),
        (0.0, 0.2, 1.0, 0.0)
    );
    let background = (0.0 - 0.1307_f32) / 0.3081;
    let levels = InputLevels::of(&config(Input::Padded));
    assert_eq!((levels.grey[0], levels.grey[255]), (background, (1.0 - 0.1307_f32) / 0.3081));
    assert_eq!(levels.border, background);
    assert_eq!(InputLevels::of(&config(Input::ZeroPadded)).border, 0.0);
    // The original network's levels are -0.1 for the background and 1.175 for ink.
    let levels = InputLevels::of(&ModelConfig::original());
    assert!((levels.grey[0] + 0.1).abs() < 1e-6 && (levels.grey[255] - 1.175).abs() < 1e-6);
}

#[test]
fn pictures_are_padded_or_left_as_they_are() {
    let picture = picture();
    for (input, size, added) in
        [(Input::Padded, 32, 2), (Input::ZeroPadded, 32, 2), (Input::Unpadded, 28, 0)]
    {
        let levels = InputLevels::of(&config(input));
        let found = to_input(&picture, 28, &config(input));
        assert_eq!(found.len(), size * size);
        for y in 0..size {
            for x in 0..size {
                let inside = (added..added + 28).contains(&y) && (added..added + 28).contains(&x);
                let expected = match inside {
                    true => levels.grey[usize::from(picture[(y - added) * 28 + x - added])],
                    false => levels.border,
                };
                assert_eq!(found[y * size + x], expected, "{input} {y} {x}");
            }
        }
    }
}

#[test]
fn larger_pictures_lose_their_border_where_the_network_takes_28x28() {
    let picture: Vec<u8> = (0..1024).map(|i| (i * 7 % 256) as u8).collect();
    let levels = InputLevels::of(&config(Input::Unpadded));
    let found = to_input(&picture, 32, &config(Input::Unpadded));
    for y in 0..28 {
        for x in 0..28 {
            let expected = levels.grey[usize::from(picture[(y + 2) * 32 + x + 2])];
            assert_eq!(found[y * 28 + x], expected);
        }
    }
    // A network with an input of 32x32 takes them unchanged.
    let found = to_input(&picture, 32, &config(Input::Resized));
    let expected: Vec<f32> = picture.iter().map(|grey| levels.grey[usize::from(*grey)]).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_small_picture_is_resized_as_computed_by_hand() {
    // In source pixels, the centres of the four target pixels are at 0.25, 0.75, 1.25 and 1.75. A triangle filter gives the two
    // source pixels these weights: 1 and 0; 3/4 and 1/4; 1/4 and 3/4; 0 and 1.
    let row = |a: f64, b: f64| [a, 0.75 * a + 0.25 * b, 0.25 * a + 0.75 * b, b].map(f64::round);
    let (top, bottom) = (row(0.0, 100.0), row(200.0, 40.0));
    let mut expected = Vec::new();
    for y in 0..4 {
        for x in 0..4 {
            let column = [
                top[x],
                0.75 * top[x] + 0.25 * bottom[x],
                0.25 * top[x] + 0.75 * bottom[x],
                bottom[x],
            ];
            expected.push(column[y].round() as u8);
        }
    }
    assert_eq!(expected[..4], [0, 25, 75, 100]);
    assert_eq!(resize(&[0, 100, 200, 40], 2, 4), expected);
}

proptest! {
    #[test]
    fn resizing_keeps_constant_pictures_and_the_range(
        grey in proptest::collection::vec(any::<u8>(), 49),
        constant: u8,
        to in 7..20_usize,
    ) {
        prop_assert!(resize(&[constant; 49], 7, to) == vec![constant; to * to]);
        let resized = resize(&grey, 7, to);
        prop_assert_eq!(resized.len(), to * to);
        let range = grey.iter().min().unwrap()..=grey.iter().max().unwrap();
        prop_assert!(resized.iter().all(|value| range.contains(&value)));
        if to == 7 {
            prop_assert_eq!(resized, grey);
        }
    }
}
