//! The distortions of images, against float64.

use lenet5_core::kernels::distortion::distort;
use lenet5_core::training::{Distortion, Distortions, control_points};

use crate::common::RandomNumbers;

const IDENTITY: [f32; 6] = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0];

fn affine(affine: [f32; 6]) -> Distortion {
    Distortion { affine, displacements: Vec::new() }
}

/// The uniform cubic B-spline's weights at `t` from 0 to 1 between two control points.
fn spline(t: f64) -> [f64; 4] {
    [
        (1.0 - t).powi(3) / 6.0,
        (3.0 * t.powi(3) - 6.0 * t * t + 4.0) / 6.0,
        (-3.0 * t.powi(3) + 3.0 * t * t + 3.0 * t + 1.0) / 6.0,
        t.powi(3) / 6.0,
    ]
}

/// Distorts a picture in float64, with bilinear interpolation, and 0 outside of the picture.
fn expected(picture: &[f32], side: usize, distortion: &Distortion) -> Vec<f64> {
    let points = control_points(side);
    let displacement = |direction: usize, row: usize, column: usize| -> f64 {
        if distortion.displacements.is_empty() {
            return 0.0;
        }
        let (by_row, by_column) =
            (spline((row % 8) as f64 / 8.0), spline((column % 8) as f64 / 8.0));
        let mut sum = 0.0;
        for (y, by_row) in by_row.iter().enumerate() {
            for (x, by_column) in by_column.iter().enumerate() {
                let at = (direction * points + row / 8 + y) * points + column / 8 + x;
                sum += by_row * by_column * f64::from(distortion.displacements[at]);
            }
        }
        sum
    };
    let half = side as f64 / 2.0;
    let pixel = |row: i64, column: i64| -> f64 {
        let inside = (0..side as i64).contains(&row) && (0..side as i64).contains(&column);
        if inside { f64::from(picture[row as usize * side + column as usize]) } else { 0.0 }
    };
    let map = distortion.affine.map(f64::from);
    let mut distorted = Vec::new();
    for row in 0..side {
        for column in 0..side {
            let u = (column as f64 + 0.5 + displacement(0, row, column)) / half - 1.0;
            let v = (row as f64 + 0.5 + displacement(1, row, column)) / half - 1.0;
            let x = (map[0] * u + map[1] * v + map[2] + 1.0) * half - 0.5;
            let y = (map[3] * u + map[4] * v + map[5] + 1.0) * half - 0.5;
            let (left, top) = (x.floor(), y.floor());
            let (right, down) = (x - left, y - top);
            let at = |dy: i64, dx: i64| pixel(top as i64 + dy, left as i64 + dx);
            let upper = at(0, 0) + right * (at(0, 1) - at(0, 0));
            let lower = at(1, 0) + right * (at(1, 1) - at(1, 0));
            distorted.push(upper + down * (lower - upper));
        }
    }
    distorted
}

#[test]
fn distortions_against_float64() {
    let strong =
        Distortions { rotation: 90.0, elastic: 8.0, shift: 12.0, ..Distortions::default() };
    let settings = [Distortions::default(), Distortions::mild(), Distortions::best(), strong];
    for side in [28, 32] {
        for settings in settings {
            // More pictures than lanes, and a last group that is not full.
            let count = 37;
            let pictures = RandomNumbers(5).pixels(count * side * side);
            let drawn: Vec<_> =
                (0..count as i64).map(|index| settings.draw(side, 3, 1, index)).collect();
            let found = distort(&pictures, side, &drawn);
            let size = side * side;
            for (i, distortion) in drawn.iter().enumerate() {
                let expected = expected(&pictures[i * size..][..size], side, distortion);
                for (found, expected) in found[i * size..][..size].iter().zip(&expected) {
                    assert!((f64::from(*found) - expected).abs() < 1e-4, "{found} {expected}");
                }
            }
        }
    }
}

#[test]
fn the_identity_and_whole_shifts_keep_the_pixels() {
    let picture = RandomNumbers(5).pixels(784);
    let found = distort(&picture, 28, &[affine(IDENTITY)]);
    assert!(found.iter().zip(&picture).all(|(a, b)| (a - b).abs() < 1e-5));
    // The map leads from the output to the picture, so this one moves the picture left by 3 and down by 2.
    let shifted = affine([1.0, 0.0, 3.0 / 14.0, 0.0, 1.0, -2.0 / 14.0]);
    let found = distort(&picture, 28, &[shifted]);
    for y in 0..28 {
        for x in 0..28 {
            let expected = if x + 3 < 28 && y >= 2 { picture[(y - 2) * 28 + x + 3] } else { 0.0 };
            assert!((found[y * 28 + x] - expected).abs() < 1e-5, "{y} {x}");
        }
    }
    // Far outside there is only background.
    let found = distort(&picture, 28, &[affine([1.0, 0.0, 1e30, 0.0, 1.0, 0.0])]);
    assert_eq!(found, vec![0.0; 784]);
}

#[test]
fn equal_control_points_move_the_whole_picture() {
    let picture = RandomNumbers(5).pixels(784);
    let points = control_points(28);
    let mut displacements = vec![3.0; points * points];
    displacements.extend(vec![0.0; points * points]);
    let found = distort(&picture, 28, &[Distortion { affine: IDENTITY, displacements }]);
    for y in 0..28 {
        for x in 0..25 {
            assert!((found[y * 28 + x] - picture[y * 28 + x + 3]).abs() < 1e-4);
        }
    }
}

#[test]
fn distortions_depend_on_seed_epoch_and_index_alone() {
    let settings = Distortions::best();
    let first = settings.draw(28, 1, 2, 3);
    assert_eq!(first, settings.draw(28, 1, 2, 3));
    for other in
        [settings.draw(28, 2, 2, 3), settings.draw(28, 1, 3, 3), settings.draw(28, 1, 2, 4)]
    {
        assert!(first.affine != other.affine && first.displacements != other.displacements);
    }
    assert!(Distortions::mild().draw(28, 1, 2, 3).displacements.is_empty());
    let limit = settings.elastic as f32;
    assert!(first.displacements.iter().all(|d| d.abs() <= limit));
    // No range allows a change, so the map is the identity.
    let none = Distortions {
        scale: (1.0, 1.0),
        squeeze: (1.0, 1.0),
        shear: 0.0,
        shift: 0.0,
        ..Distortions::default()
    };
    assert_eq!(none.map(28, 1, 2, 3), IDENTITY);
}

#[test]
fn settings_out_of_range_are_refused() {
    let default = Distortions::default;
    for (settings, expected) in [
        (Distortions { scale: (0.0, 1.0), ..default() }, "distortions.scale: expected two factors"),
        (
            Distortions { squeeze: (1.2, 0.8), ..default() },
            "distortions.squeeze: expected two factors",
        ),
        (Distortions { shear: -0.1, ..default() }, "distortions.shear: expected 0 to 4"),
        (
            Distortions { rotation: f64::NAN, ..default() },
            "distortions.rotation: expected 0 to 180 degrees",
        ),
    ] {
        let error = settings.validate().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    for settings in [default(), Distortions::mild(), Distortions::best()] {
        settings.validate().unwrap();
    }
}
