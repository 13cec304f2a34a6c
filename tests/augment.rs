//! Tests of distortions: what they depend on, their ranges, and the comparison with libtorch.

use lenet5::data::{Dataset, DistortionBatch, Split, to_input};
use lenet5::model::{Input, ModelConfig};
use lenet5::recipe::Distortions;
use lenet5_core::kernels::distortion::distort;
use tch::{Device, Kind, Tensor};

use crate::util::{generator, picture_size, run, temp};

fn indices(range: std::ops::Range<i64>) -> Tensor {
    Tensor::arange_start(range.start, range.end, (Kind::Int64, Device::Cpu))
}

#[test]
fn they_depend_on_seed_epoch_and_image_alone() {
    let data = Dataset::embedded(Split::Train, 10).unwrap().first(20);
    let config = ModelConfig::original();
    let distort =
        |range, key| data.distorted(&indices(range), &config, &Distortions::default(), key).0;
    let all = distort(0..20, (1, 3));
    assert_eq!(all.size(), [20, 1, 32, 32]);
    assert_eq!(distort(7..9, (1, 3)), all.narrow(0, 7, 2), "whatever the batch");
    for other in [(2, 3), (1, 4)] {
        assert_ne!(distort(0..20, other), all);
    }
    // Background stays background, and ink stays within the range of ink values.
    let background = (all.min().double_value(&[]) + 0.1).abs();
    assert!(background < 1e-6, "{background}");
    assert!(all.max().double_value(&[]) < 1.176);
}

#[test]
fn no_distortion_is_the_image() {
    let none = Distortions {
        scale: (1.0, 1.0),
        squeeze: (1.0, 1.0),
        shear: 0.0,
        shift: 0.0,
        rotation: 0.0,
        elastic: 0.0,
    };
    let data = Dataset::embedded(Split::Test, 10).unwrap().first(50);
    for input in [Input::Padded, Input::ZeroPadded, Input::Resized, Input::Unpadded] {
        let config = ModelConfig { input, mean: 0.1307, std: 0.3081, ..ModelConfig::default() };
        let (images, labels) = data.distorted(&indices(0..50), &config, &none, (1, 1));
        let difference = (images - to_input(data.images(), &config)).abs().max().double_value(&[]);
        assert!(difference < 1e-5, "{input}: {difference}");
        assert_eq!(&labels, data.labels());
    }
}

#[test]
fn maps_are_within_their_ranges() {
    let distortions = Distortions::default();
    let (mut scale, mut squeeze, mut shear, mut shift) =
        ([9.0, 0.0], [9.0, 0.0], [9.0, -9.0], [9.0, -9.0]);
    let note = |range: &mut [f64; 2], value: f64| {
        range[0] = range[0].min(value);
        range[1] = range[1].max(value);
    };
    for index in 0..20_000 {
        let [xx, xy, x0, yx, yy, _] = distortions.map(32, 5, 2, index).map(f64::from);
        let (width, height) = (1.0 / xx, 1.0 / yy);
        note(&mut scale, (width * height).sqrt());
        note(&mut squeeze, height / width);
        note(&mut shear, -xy * width * height);
        // The horizontal displacement of the centre row, without the shear of the vertical shift.
        note(&mut shift, -x0 * 16.0 * width);
        assert_eq!(yx, 0.0);
    }
    let near = |found: [f64; 2], low: f64, high: f64| {
        let tolerance = 0.02 * (high - low);
        assert!(
            (found[0] - low).abs() < tolerance && (found[1] - high).abs() < tolerance,
            "{found:?}"
        );
    };
    near(scale, 0.72, 1.3);
    near(squeeze, 0.82, 1.2);
    near(shear, -0.15, 0.15);
    assert!(shift[0] < -2.0 && shift[1] > 2.0, "{shift:?}");
}

#[test]
fn rotation_turns_by_its_angle() {
    let turned = Distortions { rotation: 15.0, ..Distortions::default() };
    let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
    for index in 0..2000 {
        let [plain, turned] = [Distortions::default(), turned].map(|distortions| {
            let [xx, xy, _, yx, yy, _] = distortions.map(32, 5, 2, index).map(f64::from);
            Tensor::from_slice(&[xx, xy, yx, yy]).reshape([2, 2])
        });
        // Forward maps are the inverses, so one can be computed from the other.
        let rotation = turned.inverse().matmul(&plain);
        let [cos, minus_sin, sin, cos_too]: [f64; 4] =
            Vec::<f64>::try_from(rotation.flatten(0, -1)).unwrap().try_into().unwrap();
        assert!((cos - cos_too).abs() < 1e-6 && (sin + minus_sin).abs() < 1e-6);
        assert!((cos.hypot(sin) - 1.0).abs() < 1e-6);
        let angle = sin.atan2(cos).to_degrees();
        (least, most) = (least.min(angle), most.max(angle));
    }
    assert!((-15.001..-14.5).contains(&least) && (14.5..15.001).contains(&most));
}

/// Images with ink up to the border, where errors are visible.
#[test]
fn the_same_as_libtorch() {
    let images = {
        let _lock = generator();
        tch::manual_seed(3);
        Tensor::rand([64, 1, 32, 32], (Kind::Float, Device::Cpu))
    };
    for elastic in [0.0, 3.0] {
        let distortions =
            Distortions { shift: 9.0, rotation: 20.0, elastic, ..Distortions::default() };
        let drawn: Vec<_> = (0..64).map(|index| distortions.draw(32, 1, 1, index)).collect();
        let pixels = Vec::<f32>::try_from(images.flatten(0, -1)).unwrap();
        let ours = Tensor::from_slice(&distort(&pixels, 32, &drawn)).reshape([64, 1, 32, 32]);
        let theirs = DistortionBatch::new(&drawn, 32, Device::Cpu).apply(&images);
        let difference = (&ours - &theirs).abs().max().double_value(&[]);
        // A pixel's position may differ by 1e-6 of the image's width, which changes its value by
        // about as much of a grey level.
        assert!(difference < 1e-4, "{difference}");
        assert!(theirs.eq(0.0).sum(Kind::Int64).int64_value(&[]) > 1000, "some lies outside");
    }
}

#[test]
fn a_sheet_shows_them() {
    let folder = temp();
    let file = folder.path().join("sheet.png");
    let option = format!("--distortions={}", file.display());
    run("summary", [option.as_str()]).success();
    let size = picture_size(&file);
    assert_eq!(size, (10 * 36 * 2, 10 * 36 * 2));
}

#[test]
fn ranges_of_distortions() {
    let good = Distortions::default;
    for distortions in [good(), Distortions::mild(), Distortions::best()] {
        distortions.validate().unwrap();
    }
    let factors = "expected two factors from 0.1 to 10, the smaller one first, found";
    type SetRange = fn(&mut Distortions, f64);
    let (scale, squeeze): (SetRange, SetRange) =
        (|d, low| d.scale = (low, 10.0), |d, high| d.squeeze = (0.1, high));
    let (shear, shift): (SetRange, SetRange) =
        (|d, value| d.shear = value, |d, value| d.shift = value);
    let (rotation, elastic): (SetRange, SetRange) =
        (|d, value| d.rotation = value, |d, value| d.elastic = value);
    // The last valid value, the first invalid one, and the error message.
    let table: [(SetRange, f64, f64, String); 16] = [
        (scale, 0.1, 0.0999, format!("scale: {factors} 0.0999 and 10")),
        (scale, 10.0, 10.001, format!("scale: {factors} 10.001 and 10")),
        (scale, 1.0, 0.0, format!("scale: {factors} 0 and 10")),
        (scale, 1.0, -1.0, format!("scale: {factors} -1 and 10")),
        (scale, 1.0, f64::NAN, format!("scale: {factors} NaN and 10")),
        (squeeze, 10.0, 10.001, format!("squeeze: {factors} 0.1 and 10.001")),
        (squeeze, 0.1, 0.0999, format!("squeeze: {factors} 0.1 and 0.0999")),
        (squeeze, 1.0, f64::INFINITY, format!("squeeze: {factors} 0.1 and inf")),
        (
            shear,
            4.0,
            4.001,
            "shear: expected 0 to 4 pixels to the side per pixel of height, found 4.001".into(),
        ),
        (
            shear,
            0.0,
            -0.001,
            "shear: expected 0 to 4 pixels to the side per pixel of height, found -0.001".into(),
        ),
        (shift, 32.0, 32.001, "shift: expected 0 to 32 pixels, found 32.001".into()),
        (shift, 0.0, f64::NAN, "shift: expected 0 to 32 pixels, found NaN".into()),
        (rotation, 180.0, 180.1, "rotation: expected 0 to 180 degrees, found 180.1".into()),
        (rotation, 0.0, -1.0, "rotation: expected 0 to 180 degrees, found -1".into()),
        (elastic, 32.0, 32.1, "elastic: expected 0 to 32 pixels, found 32.1".into()),
        (elastic, 0.0, f64::NEG_INFINITY, "elastic: expected 0 to 32 pixels, found -inf".into()),
    ];
    let data = Dataset::embedded(Split::Train, 10).unwrap().first(4);
    for (change, last_good, first_bad, message) in table {
        let mut distortions = good();
        change(&mut distortions, last_good);
        distortions.validate().unwrap();
        // Pixels are finite at the limits of the ranges.
        let config = ModelConfig::default();
        let images = data.distorted(&indices(0..4), &config, &distortions, (1, 1)).0;
        assert_eq!(images.isfinite().all().int64_value(&[]), 1, "{message}");
        change(&mut distortions, first_bad);
        let error = distortions.validate().unwrap_err().to_string();
        assert_eq!(error, format!("distortions.{message}"));
    }
}
