//! Digits read from pictures: decoding, ink, strings of digits, the library and the command `predict`.

use std::fs;
use std::ops::Sub;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use image::{DynamicImage, GrayImage, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};
use lenet5_core::data::digit::{PIXELS, SIDE};
use lenet5_core::data::to_input;
use lenet5_core::model::{Activation, Input};
use lenet5_core::recognizer::training::{Random, Text};
use lenet5_core::recognizer::{Pattern, REJECT_BELOW, Reading};
use lenet5_core::{
    Array, ForwardPass, ModelConfig, Network, Picture, PictureLimits, Recognizer, Result, Weights,
};
use serde_json::{Value, json};

use crate::util::{Ended, digits, encoded, grey, program, run, temp};

/// A picture in the reader's own type, with all channels and bits of the original.
fn picture(image: &DynamicImage) -> Picture {
    Picture::decode(&encoded(image, ImageFormat::Png), &PictureLimits::default()).unwrap()
}

/// The pixels of a decoded picture.
fn pixels(picture: &Picture) -> DynamicImage {
    image::load_from_memory(&picture.to_png().unwrap()).unwrap()
}

fn read(recognizer: &Recognizer, image: &DynamicImage) -> Result<Reading> {
    recognizer.read(&picture(image))
}

fn read_all(recognizer: &Recognizer, images: &[DynamicImage]) -> Vec<Result<Reading>> {
    let pictures: Vec<_> = images.iter().map(picture).collect();
    recognizer.read_all(&pictures)
}

/// A digit enlarged tenfold on a sheet with a margin: 0 for paper to 1 for ink.
fn drawn(pixels: &[u8; PIXELS]) -> (u32, impl Fn(u32, u32) -> f32) {
    let large = image::imageops::resize(
        &grey(pixels).into_luma8(),
        280,
        280,
        image::imageops::FilterType::CatmullRom,
    );
    let ink = move |x: u32, y: u32| match (x.checked_sub(60), y.checked_sub(40)) {
        (Some(x), Some(y)) if x < 280 && y < 280 => f32::from(large.get_pixel(x, y).0[0]) / 255.0,
        _ => 0.0,
    };
    (400, ink)
}

/// Ink of one colour on paper of another, under light that changes across the picture.
fn coloured(pixels: &[u8; PIXELS], pen: [f32; 3], paper: [f32; 3], falls_to: f32) -> RgbImage {
    let (size, ink) = drawn(pixels);
    RgbImage::from_fn(size, size, |x, y| {
        let light = 1.0 - (1.0 - falls_to) * (x + y) as f32 / (2 * size) as f32;
        let ink = ink(x, y);
        Rgb([0, 1, 2].map(|c| (light * (ink * pen[c] + (1.0 - ink) * paper[c])) as u8))
    })
}

fn shipped() -> Recognizer {
    Recognizer::shipped(Network::Modern).unwrap()
}

#[test]
fn pictures_like_mnist_are_not_changed() {
    let (digits, labels) = digits(200);
    let recognizer = shipped();
    let mut errors = 0;
    for (pixels, label) in digits.iter().zip(&labels) {
        let mut dark = [255; 32 * 32];
        for (i, grey) in pixels.iter().enumerate() {
            dark[(i / SIDE + 2) * 32 + i % SIDE + 2] = 255 - grey;
        }
        let dark = GrayImage::from_raw(32, 32, dark.to_vec()).unwrap();
        for picture in [grey(pixels), dark.into()] {
            let reading = read(&recognizer, &picture).unwrap();
            assert_eq!(reading.digits.len(), 1);
            let digit = &reading.digits[0];
            assert!(&digit.pixels == pixels, "the pixels of a {label} are changed");
            errors += usize::from(reading.text != label.to_string());
        }
    }
    assert!(errors <= 2, "{errors} of 400 misclassified");
}

#[test]
fn probabilities_agree_with_the_forward_pass_in_float64() {
    let (digits, _) = digits(100);
    let pictures: Vec<_> = digits.iter().map(grey).collect();
    let shipped = |network| Weights::shipped(network).unwrap();
    let with = |change: &dyn Fn(&mut Weights)| {
        let mut weights = shipped(Network::Modern);
        change(&mut weights);
        weights
    };
    let forms = [
        shipped(Network::Modern),
        shipped(Network::Original),
        with(&|weights| weights.config.input = Input::ZeroPadded),
        with(&|weights| (weights.config.mean, weights.config.std) = (0.1307, 0.3081)),
        with(&|weights| weights.config.input = Input::Resized),
        with(&|weights| weights.config.activation = Activation::Sigmoid),
    ];
    for weights in forms {
        let input: Vec<f64> = digits
            .iter()
            .flat_map(|pixels| to_input(pixels, SIDE, &weights.config))
            .map(f64::from)
            .collect();
        let logits = ForwardPass::new(&weights).unwrap().logits(&input).unwrap();
        let recognizer = Recognizer::new(&weights).unwrap();
        let readings = read_all(&recognizer, &pictures).into_iter().map(Result::unwrap);
        let mut largest = 0.0_f64;
        for (reading, logits) in readings.zip(logits.chunks_exact(10)) {
            let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let powers: Vec<f64> = logits.iter().map(|logit| (logit - most).exp()).collect();
            let sum: f64 = powers.iter().sum();
            for (ours, power) in reading.digits[0].probabilities.iter().zip(powers) {
                largest = largest.max((f64::from(*ours) - power / sum).abs());
            }
        }
        assert!(largest < 1e-5, "{}: {largest:e}", weights.config);
    }
}

#[test]
fn formats_are_found_by_content() {
    let (digits, labels) = digits(1);
    let picture = coloured(&digits[0], [30.0, 30.0, 60.0], [240.0, 240.0, 235.0], 1.0);
    let picture = DynamicImage::from(picture);
    let recognizer = shipped();
    let folder = temp();
    use ImageFormat::*;
    for format in [Bmp, Farbfeld, Gif, Jpeg, Png, Pnm, Qoi, Tga, Tiff, WebP, Hdr, OpenExr] {
        let picture = match format {
            Farbfeld => picture.to_rgba16().into(),
            Hdr | OpenExr => picture.to_rgb32f().into(),
            _ => picture.clone(),
        };
        // The extension is wrong, except for TGA, whose content has no signature.
        let name = if format == Tga { "digit.tga" } else { "digit.txt" };
        let path = folder.path().join(name);
        fs::write(&path, encoded(&picture, format)).unwrap();
        let decoded = Picture::open(&path, &PictureLimits::default());
        let reading = recognizer.read(&decoded.unwrap_or_else(|e| panic!("{format:?}: {e}")));
        assert_eq!(reading.unwrap().text, labels[0].to_string(), "{format:?}");
    }
    let small = DynamicImage::from(image::imageops::resize(
        &picture.to_rgba8(),
        200,
        200,
        image::imageops::FilterType::Triangle,
    ));
    let decoded = Picture::decode(&encoded(&small, Ico), &PictureLimits::default()).unwrap();
    assert_eq!(recognizer.read(&decoded).unwrap().text, labels[0].to_string());
}

#[test]
fn exif_orientation() {
    let (digits, _) = digits(1);
    let upright = coloured(&digits[0], [20.0; 3], [240.0; 3], 1.0);
    let upright = DynamicImage::from(upright);
    // The picture as a camera stores it, for each EXIF orientation.
    let stored = [
        (1, upright.clone()),
        (2, upright.fliph()),
        (3, upright.rotate180()),
        (4, upright.flipv()),
        (5, upright.fliph().rotate270()),
        (6, upright.rotate270()),
        (7, upright.fliph().rotate90()),
        (8, upright.rotate90()),
    ];
    for (orientation, picture) in stored {
        let jpeg = encoded(&picture, ImageFormat::Jpeg);
        let mut exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
        exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
        let mut bytes = jpeg[..2].to_vec();
        bytes.extend([0xff, 0xe1]);
        bytes.extend((exif.len() as u16 + 2).to_be_bytes());
        bytes.extend(exif);
        bytes.extend(&jpeg[2..]);
        let picture = Picture::decode(&bytes, &PictureLimits::default()).unwrap();
        let picture = pixels(&picture).to_luma8();
        let difference = |(a, b): (&u8, &u8)| u64::from(a.abs_diff(*b));
        let sum: u64 = picture.iter().zip(upright.to_luma8().iter()).map(difference).sum();
        let mean = sum as f64 / picture.len() as f64;
        assert!(mean < 2.0, "orientation {orientation}: {mean}");
    }
}

#[test]
fn colours_and_light() {
    let (digits, labels) = digits(40);
    let recognizer = shipped();
    type Kind<'a> = (&'a str, &'a dyn Fn(&[u8; PIXELS]) -> DynamicImage);
    let on_nothing = |pixels: &[u8; PIXELS], pen: u8| {
        let (size, ink) = drawn(pixels);
        RgbaImage::from_fn(size, size, |x, y| Rgba([pen, pen, pen, (255.0 * ink(x, y)) as u8]))
    };
    let kinds: &[Kind] = &[
        ("green on yellow", &|d| coloured(d, [30., 130., 40.], [240., 230., 80.], 1.0).into()),
        ("white on black", &|d| coloured(d, [240.; 3], [20.; 3], 1.0).into()),
        ("blue on grey", &|d| coloured(d, [50., 60., 150.], [150.; 3], 1.0).into()),
        ("faint", &|d| coloured(d, [190.; 3], [230.; 3], 1.0).into()),
        ("light falling off", &|d| coloured(d, [25.; 3], [240.; 3], 0.25).into()),
        ("black on nothing", &|d| on_nothing(d, 0).into()),
        ("white on nothing", &|d| on_nothing(d, 255).into()),
        ("16 bits, dark", &|d| {
            let grey = coloured(d, [2.; 3], [20.; 3], 1.0);
            DynamicImage::from(grey).to_luma16().into()
        }),
    ];
    for (name, make) in kinds {
        let pictures: Vec<_> = digits.iter().map(make).collect();
        let readings = read_all(&recognizer, &pictures).into_iter();
        let texts = readings.map(|reading| reading.map(|reading| reading.text).unwrap_or_default());
        let right = texts.zip(&labels).filter(|(text, label)| *text == label.to_string()).count();
        assert!(right >= 37, "{name}: {right} of 40");
    }
}

#[test]
fn marks_around_digits_are_not_read() {
    let (digits, labels) = digits(20);
    let recognizer = shipped();
    let dark = |x: u32, y: u32, [left, top, right, bottom]: [u32; 4]| {
        (left..right).contains(&x) && (top..bottom).contains(&y)
    };
    type Around<'a> = (&'a str, &'a dyn Fn(u32, u32) -> bool);
    let kinds: &[Around] = &[
        ("specks", &|x, y| dark(x, y, [20, 380, 28, 388]) || dark(x, y, [200, 385, 209, 394])),
        ("a frame", &|x, y| dark(x, y, [8, 8, 392, 392]) && !dark(x, y, [12, 12, 388, 388])),
        ("a ring", &|x, y| {
            let radius = f64::from(x).sub(200.0).hypot(f64::from(y).sub(180.0));
            (165.0..170.0).contains(&radius)
        }),
        ("a hole", &|x, y| f64::from(x).sub(30.0).hypot(f64::from(y).sub(200.0)) < 18.0),
        ("a comma", &|x, y| dark(x, y, [350, 300, 362, 330])),
        ("a rule", &|_, y| (370..374).contains(&y)),
    ];
    for (name, around) in kinds {
        let picture = |pixels| {
            let (size, ink) = drawn(pixels);
            GrayImage::from_fn(size, size, |x, y| {
                let ink = if around(x, y) { 1.0 } else { ink(x, y) };
                image::Luma([(245.0 - 220.0 * ink) as u8])
            })
        };
        let texts = digits.iter().map(|digit| read(&recognizer, &picture(digit).into()));
        let texts = texts.map(|reading| reading.map(|reading| reading.text).unwrap_or_default());
        let right = texts.zip(&labels).filter(|(text, label)| *text == label.to_string()).count();
        assert!(right >= 18, "{name}: {right} of 20");
    }
}

/// For each class, the test image with the highest confidence, without empty columns: white on black, 28 rows.
fn surest_digits() -> Vec<GrayImage> {
    let (digits, labels) = digits(200);
    let pictures: Vec<_> = digits.iter().map(grey).collect();
    let readings: Vec<_> =
        read_all(&shipped(), &pictures).into_iter().map(Result::unwrap).collect();
    let surest = |label: u8| {
        let of_label = (0..digits.len()).filter(|i| labels[*i] == label);
        let confidence = |i: &usize| readings[*i].digits[0].confidence;
        of_label.max_by(|a, b| confidence(a).total_cmp(&confidence(b))).unwrap()
    };
    (0..10)
        .map(|label| {
            let seen = &readings[surest(label)].digits[0];
            let [column, _, width, _] = seen.area;
            let small = GrayImage::from_raw(28, 28, seen.pixels.to_vec()).unwrap();
            // A column of paper on each side keeps the edges soft when the digit is enlarged.
            image::imageops::crop_imm(&small, column - 1, 0, width + 2, 28).to_image()
        })
        .collect()
}

/// Draws a digit on a sheet of white paper, enlarged so that its 28 rows become `height` rows. Returns its width.
fn draw(sheet: &mut GrayImage, digit: &GrayImage, [left, top]: [u32; 2], height: u32) -> u32 {
    let width = digit.width() * height / 28;
    let filter = image::imageops::FilterType::CatmullRom;
    let ink = image::imageops::resize(digit, width, height, filter);
    for (x, y, grey) in ink.enumerate_pixels() {
        let pixel = sheet.get_pixel_mut(left + x, top + y);
        pixel.0[0] = pixel.0[0].min(250 - grey.0[0].min(230));
    }
    width
}

/// A large number on white paper, made of the test images with the highest confidence; and the boxes of its signs and
/// points: left, top, width and height.
fn number(text: &str) -> (GrayImage, Vec<[u32; 4]>) {
    let surest = surest_digits();
    let mut sheet = GrayImage::from_pixel(text.len() as u32 * 110 + 80, 240, image::Luma([250]));
    let (mut left, mut marks) = (40, Vec::new());
    // A digit's ink is 80 high, from row 76 on; the pen is about 12 wide.
    for sign in text.chars() {
        let boxes: &[[u32; 4]] = match sign {
            '-' => &[[0, 116, 44, 12]],
            '.' => &[[0, 142, 14, 14]],
            ',' => &[[0, 144, 12, 26]],
            digit => {
                let digit = &surest[digit.to_digit(10).unwrap() as usize];
                left += draw(&mut sheet, digit, [left, 60], 112) + 16;
                continue;
            }
        };
        for &[x, top, width, height] in boxes {
            for (column, row) in (0..width).flat_map(|c| (0..height).map(move |r| (c, r))) {
                sheet.put_pixel(left + x + column, top + row, image::Luma([20]));
            }
            marks.push([left + x, top, width, height]);
            left += x + width + 16;
        }
    }
    (image::imageops::crop_imm(&sheet, 0, 0, left + 24, 240).to_image(), marks)
}

#[test]
fn signs_and_points_are_left_out_and_reported() {
    let recognizer = shipped();
    let reads = |picture: GrayImage, text: &str, marks: &[[u32; 4]]| {
        let reading = read(&recognizer, &picture.into()).unwrap();
        let expected: String = text.chars().filter(char::is_ascii_digit).collect();
        assert_eq!((reading.accepted, reading.text), (expected.clone(), expected));
        assert_eq!(reading.left_out.len(), marks.len(), "{text}: {:?}", reading.left_out);
        let mut found: Vec<_> =
            reading.left_out.iter().map(|mark| (mark.area, mark.line)).collect();
        found.sort_unstable();
        for ((area, line), mark) in found.iter().zip(marks) {
            // The picture is reduced first, and borders are soft.
            let near = area.iter().zip(mark).all(|(a, b)| a.abs_diff(*b) <= 4);
            assert!(near && *line == 0, "{text}: {area:?} for {mark:?}");
        }
    };
    for text in ["-264.27", "3.5", "12,50", "1-2", "26427"] {
        let (picture, marks) = number(text);
        assert_eq!(marks.len(), text.chars().filter(|sign| !sign.is_ascii_digit()).count());
        reads(picture, text, &marks);
    }
    // Ruled paper, a line, dots, a mark far away, and a mark that the edge cuts off.
    let spoilt = |spoil: &dyn Fn(u32, u32) -> bool| {
        let (mut picture, _) = number("26427");
        for (x, y, pixel) in picture.enumerate_pixels_mut() {
            if spoil(x, y) {
                pixel.0[0] = pixel.0[0].min(110);
            }
        }
        picture
    };
    reads(spoilt(&|_, y| y % 60 < 3), "26427", &[]);
    reads(spoilt(&|_, y| (190..194).contains(&y)), "26427", &[]);
    reads(spoilt(&|x, y| x % 90 < 2 && y % 50 < 2), "26427", &[]);
    reads(spoilt(&|x, y| (40..60).contains(&x) && (5..17).contains(&y)), "26427", &[]);
    let cut_off = |x: u32, y: u32| x < 16 && (110..124).contains(&y);
    reads(spoilt(&cut_off), "26427", &[]);
}

#[test]
fn signs_need_a_digit_beside_them() {
    // Blots in a row: none of them is a digit, so none of them is reported as a sign.
    let picture = GrayImage::from_fn(400, 160, |x, y| {
        let far = |left: f64| f64::from(x).sub(left).hypot(f64::from(y).sub(80.0));
        let blot = far(80.0) < 30.0 || far(180.0) < 30.0 || far(240.0) < 6.0;
        image::Luma([if blot { 20 } else { 245 }])
    });
    let reading = read(&shipped(), &picture.into()).unwrap();
    assert!(reading.digits.iter().all(|digit| digit.rejected), "{reading:?}");
    assert_eq!(reading.left_out, []);
}

/// A number with letters E after it.
fn with_letters(text: &str, letters: u32) -> DynamicImage {
    let (number, _) = number(text);
    let (width, height) = number.dimensions();
    let picture = GrayImage::from_fn(width + letters * 90, height, |x, y| {
        if let Some(pixel) = number.get_pixel_checked(x, y) {
            return *pixel;
        }
        let (column, row) = ((x - width) % 90, y.wrapping_sub(76));
        let letter = column < 50 && row < 80 && (column < 10 || row % 35 < 10);
        image::Luma([if letter { 20 } else { 250 }])
    });
    picture.into()
}

#[test]
fn a_line_of_other_ink_is_no_number() {
    let accepted = |recognizer: &Recognizer, text, letters| {
        read(recognizer, &with_letters(text, letters)).unwrap().accepted
    };
    let recognizer = shipped();
    assert!(accepted(&recognizer, "26427", 1).starts_with("26427"));
    assert!(accepted(&recognizer, "2", 5).chars().all(|digit| digit == '?'));
    // Without a limit, digits are shown in any case.
    assert!(accepted(&recognizer.reject_below(0.0), "2", 5).starts_with('2'));
}

/// The mark that a palm leaves on a sheet of paper.
fn palm() -> DynamicImage {
    let ink = |x: u32, y: u32| {
        let [x, y] = [x, y].map(f64::from);
        x.sub(200.0).hypot(y.sub(150.0)) < 22.0 || x.sub(222.0).hypot(y.sub(140.0)) < 17.0
    };
    let sheet =
        GrayImage::from_fn(400, 300, |x, y| image::Luma([if ink(x, y) { 16 } else { 255 }]));
    sheet.into()
}

#[test]
fn low_confidence_is_rejected() {
    let reading = read(&shipped(), &palm()).unwrap();
    assert_eq!((reading.accepted.as_str(), reading.rejected), ("?", true));
    assert!(reading.digits[0].confidence < REJECT_BELOW);
    let off = read(&shipped().reject_below(0.0), &palm()).unwrap();
    assert_eq!((&off.accepted, &off.text, off.rejected), (&reading.text, &reading.text, false));
    let same = read(&shipped().reject_below(None), &palm()).unwrap();
    assert_eq!(same, reading);

    // A network with other classes than digits rejects nothing by default.
    let config = ModelConfig { classes: 26, ..ModelConfig::default() };
    let random = &mut Random::new(26);
    let tensors = config.state().into_iter().map(|(name, shape)| {
        let values = (0..shape.iter().product()).map(|_| 0.2 * random.unit() - 0.1);
        (name, Array::from_f32(&shape, &values.collect::<Vec<f32>>()))
    });
    let tensors = tensors.collect();
    let letters = Recognizer::new(&Weights::new(config, tensors).unwrap()).unwrap();
    assert!(!read(&letters, &palm()).unwrap().rejected);
    assert!(read(&letters.reject_below(REJECT_BELOW), &palm()).unwrap().rejected);
}

#[test]
fn few_digits_are_rejected_by_default() {
    let (digits, labels) = digits(2000);
    let pictures: Vec<_> = digits.iter().map(grey).collect();
    let readings: Vec<_> =
        read_all(&shipped(), &pictures).into_iter().map(Result::unwrap).collect();
    let rejected = readings.iter().filter(|reading| reading.rejected).count();
    assert!(rejected <= 20, "{rejected} of 2000");
    assert!(readings.iter().all(|reading| reading.left_out.is_empty()));
    let accepted = readings.iter().zip(labels).filter(|(reading, _)| !reading.rejected);
    let wrong = accepted.filter(|(reading, label)| reading.accepted != label.to_string()).count();
    assert!(wrong <= 12, "{wrong} of 2000");
}

#[test]
fn predict_reports_rejected_digits_and_marks() {
    let folder = temp();
    let at = |name: &str| folder.path().join(name);
    let (picture, marks) = number("3.5");
    picture.save(at("3.5.png")).unwrap();
    palm().save(at("palm.png")).unwrap();

    let ended = predict(&[], &[&at("palm.png")]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "?\n"));
    let name = at("palm.png").display().to_string();
    let start = format!("note: {name}: rejected all digits, of confidence 0.0");
    assert!(ended.stderr.starts_with(&start), "{}", ended.stderr);
    assert!(ended.stderr.ends_with(" at most; --reject-below 0 prints them\n"), "{}", ended.stderr);
    let off = predict(&["--reject-below=0"], &[&at("palm.png")]);
    assert!(off.stdout.trim().parse::<u8>().is_ok() && off.stderr.is_empty(), "{off:?}");

    let ended = predict(&[], &[&at("3.5.png")]);
    let name = at("3.5.png").display().to_string();
    let start =
        format!("note: {name}: left out 1 mark beside the digits, a sign or a point perhaps: ");
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "35\n"));
    assert!(ended.stderr.starts_with(&start), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1);

    let ended = predict(&["--json"], &[folder.path()]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let lines: Vec<Value> =
        ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["text"], &lines[0]["accepted"]), (&json!("35"), &json!("35")));
    let [left_out] = lines[0]["left_out"].as_array().unwrap().as_slice() else {
        panic!("{lines:?}")
    };
    assert_eq!(left_out["line"], 0);
    let area: [u32; 4] = serde_json::from_value(left_out["box"].clone()).unwrap();
    assert!(area.iter().zip(marks[0]).all(|(a, b)| a.abs_diff(b) <= 4), "{area:?}");
    assert_eq!((&lines[1]["accepted"], &lines[1]["rejected"]), (&json!("?"), &json!(true)));
    assert_eq!(
        (&lines[1]["digits"][0]["rejected"], &lines[1]["left_out"]),
        (&json!(true), &json!([]))
    );

    for name in ["predict", "serve"] {
        let help = run(name, ["--help"]).success();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(help.contains(&format!("[default: {REJECT_BELOW}]")), "{help}");
    }
}

/// Reads strings of five digits that are `gap` columns apart. Returns the number of correct strings, and the readings.
fn strings(gap: i64, count: usize) -> (usize, Vec<Reading>) {
    let (digits, labels) = digits(5000);
    let random = &mut Random::new(gap.unsigned_abs() + 7);
    let mut texts = Vec::new();
    let pictures: Vec<DynamicImage> = (0..count)
        .map(|_| {
            let chosen: Vec<usize> = (0..5).map(|_| random.between(0, 4999) as usize).collect();
            texts.push(chosen.iter().map(|i| labels[*i].to_string()).collect::<String>());
            let chosen: Vec<_> = chosen.iter().map(|i| digits[*i]).collect();
            let ink = Text::of(&chosen, &[gap; 4], &[0; 5]).ink;
            let bytes = ink.values().iter().map(|value| (255.0 * value).round() as u8).collect();
            let (width, height) = (ink.width() as u32, ink.height() as u32);
            GrayImage::from_raw(width, height, bytes).unwrap().into()
        })
        .collect();
    let readings: Vec<_> =
        read_all(&shipped(), &pictures).into_iter().map(Result::unwrap).collect();
    let right = readings.iter().zip(&texts).filter(|(reading, text)| reading.text == **text);
    (right.count(), readings)
}

#[test]
fn strings_of_digits() {
    for (gap, least) in [(-1, 60), (0, 84), (1, 92), (4, 92)] {
        let (right, readings) = strings(gap, 100);
        assert!(right >= least, "{gap} columns apart: {right} of 100");
        for reading in readings {
            let lefts: Vec<u32> = reading.digits.iter().map(|digit| digit.area[0]).collect();
            assert!(lefts.is_sorted(), "{lefts:?}");
        }
    }
}

/// The upper left corners of the digits of [`page`].
const CORNERS: [(u32, u32); 9] =
    [(20, 8), (60, 5), (100, 9), (15, 62), (55, 60), (95, 58), (25, 112), (65, 113), (105, 110)];

/// A page of three lines, 721, 041 and 495, which are the first test images.
fn page() -> GrayImage {
    let (digits, _) = digits(9);
    let mut page = GrayImage::from_pixel(170, 160, image::Luma([255]));
    for (pixels, (left, top)) in digits.iter().zip(CORNERS) {
        for (i, grey) in (0..).zip(pixels) {
            page.put_pixel(left + i % 28, top + i / 28, image::Luma([255 - grey]));
        }
    }
    page
}

#[test]
fn lines_in_reading_order() {
    let reading = read(&shipped(), &page().into()).unwrap();
    assert_eq!(reading.text, "721\n041\n495");
    for (digit, (left, top)) in reading.digits.iter().zip(CORNERS) {
        let [x, y, width, height] = digit.area;
        assert!(x >= left && y >= top && x + width <= left + 28 && y + height <= top + 28);
    }
}

/// Reads a picture whose lines have a form. Returns the text and the other lines, or the error.
fn read_as(image: &DynamicImage, pattern: &Pattern) -> Result<(String, Vec<String>), String> {
    let reading = shipped().read_as(&picture(image), pattern);
    reading.map(|reading| (reading.text, reading.other_lines)).map_err(|error| error.to_string())
}

#[test]
fn lines_of_a_known_form() {
    let found = |text: &str, others: &[&str]| {
        Ok((text.to_owned(), others.iter().map(ToString::to_string).collect()))
    };
    let three_lines = page().into();
    let page = |pattern: &str| read_as(&three_lines, &pattern.parse().unwrap());
    assert_eq!(page("###"), found("721\n041\n495", &[]));
    assert_eq!(page("#-##"), found("721\n041\n495", &[]));
    assert_eq!(page("7##"), found("721", &["041", "495"]));
    assert_eq!(page("##1"), found("721\n041", &["495"]));
    let message = "expected a line of the form 3##, found 721 and 2 other lines";
    assert_eq!(page("3##"), Err(message.to_owned()));

    // A picture in MNIST's form is one digit.
    let (digits, labels) = digits(1);
    let digit = grey(&digits[0]);
    let label = labels[0].to_string();
    assert_eq!(read_as(&digit, &Pattern::digits(1..=5).unwrap()), found(&label, &[]));
    assert_eq!(
        read_as(&digit, &Pattern::digits(5..=5).unwrap()),
        Err(format!("expected a line of 5 digits, found {label}"))
    );
}

/// Marks beside digits are not read, whether the pattern has them or not.
#[test]
fn forms_with_marks() {
    for text in ["-264.27", "12,50", "1-2"] {
        let (image, marks) = number(text);
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        let any: String = text.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).collect();
        for pattern in [text, &any, &digits, &format!("({any})")] {
            let pattern: Pattern = pattern.parse().unwrap();
            let reading = shipped().read_as(&picture(&image.clone().into()), &pattern).unwrap();
            assert_eq!((&reading.text, reading.rejected), (&digits, false));
            assert_eq!(reading.left_out.len(), marks.len());
        }
    }
}

#[test]
fn the_score_compares_readings() {
    let (image, _) = number("407");
    let picture = picture(&image.into());
    let score = |pattern: &str| {
        let reading = shipped().read_as(&picture, &pattern.parse().unwrap());
        reading.map_or(f32::NEG_INFINITY, |reading| reading.score)
    };
    let plain = shipped().read(&picture).unwrap().score;
    assert!(plain < 0.0 && plain > -1.0, "{plain}");
    assert_eq!((score("###"), score("407"), score("4#7")), (plain, plain, plain));
    assert!(score("###-#") < plain && score("5##") < plain);
}

/// A line of digits.
struct Row<'a> {
    text: &'a str,
    left: u32,
    /// The row of the picture on which the first digit stands.
    base: u32,
    /// The heights of the digits in pixels; they repeat.
    heights: &'a [u32],
    /// The gap between digits in pixels.
    gap: u32,
    /// The rows by which the line falls in each column.
    slope: f32,
}

/// Lines of digits on white paper.
fn lined_page(rows: &[Row]) -> GrayImage {
    let surest = surest_digits();
    let mut sheet = GrayImage::from_pixel(1000, 600, image::Luma([250]));
    for &Row { text, mut left, base, heights, gap, slope } in rows {
        let first = left;
        for (digit, height) in text.bytes().zip(heights.iter().cycle()) {
            let base = base as f32 + slope * (left - first) as f32;
            // A digit takes 20 of its 28 rows.
            let (height, top) = (height * 28 / 20, base as u32 - height * 24 / 20);
            left += draw(&mut sheet, &surest[usize::from(digit - b'0')], [left, top], height) + gap;
        }
    }
    sheet
}

#[test]
fn lines_as_a_person_reads_them() {
    let row = |text, left, base, heights, gap| Row { text, left, base, heights, gap, slope: 0.0 };
    let sloping = |text, base, slope| Row { slope, ..row(text, 60, base, &[70], 30) };
    let layouts: &[(&str, &[Row])] = &[
        (
            "digits of different heights",
            &[row("40718", 60, 160, &[110, 65, 90], 25), row("2653", 40, 330, &[60, 100], 25)],
        ),
        ("a small line", &[row("4071", 60, 200, &[105], 30), row("26530", 80, 290, &[45], 20)]),
        ("digits far apart", &[row("4071", 60, 150, &[60], 180), row("265", 90, 250, &[60], 230)]),
        (
            "a short last line at the right",
            &[row("40718", 60, 150, &[70], 25), row("2", 400, 250, &[70], 0)],
        ),
        ("falling lines", &[sloping("4071826", 150, 0.13), sloping("265", 250, 0.13)]),
        ("rising lines", &[sloping("4071826", 250, -0.13), sloping("265", 350, -0.13)]),
        ("close lines", &[row("40718", 60, 150, &[70], 20), row("26533", 60, 235, &[70], 20)]),
    ];
    let recognizer = shipped();
    for (name, rows) in layouts {
        let text: Vec<_> = rows.iter().map(|row| row.text).collect();
        let reading = read(&recognizer, &lined_page(rows).into()).unwrap();
        assert_eq!(reading.text, text.join("\n"), "{name}");
    }
}

#[test]
fn a_table_is_read_row_by_row() {
    let mut sheet = lined_page(&[
        Row { text: "4071", left: 130, base: 130, heights: &[60], gap: 110, slope: 0.0 },
        Row { text: "2653", left: 110, base: 245, heights: &[60], gap: 120, slope: 0.0 },
        Row { text: "830", left: 120, base: 340, heights: &[60], gap: 115, slope: 0.0 },
    ]);
    for (x, y, pixel) in sheet.enumerate_pixels_mut() {
        let inside = (80..745).contains(&x) && (50..355).contains(&y);
        if inside && ((x - 80) % 165 < 5 || (y - 50) % 100 < 5) {
            pixel.0[0] = 40;
        }
    }
    assert_eq!(read(&shipped(), &sheet.into()).unwrap().text, "4071\n2653\n830");
}

#[test]
fn a_picture_on_its_side_is_turned() {
    let row = |text, base| Row { text, left: 60, base, heights: &[70], gap: 25, slope: 0.0 };
    let sheet = DynamicImage::from(lined_page(&[row("40718", 150), row("2653", 260)]));
    let recognizer = shipped();
    let upright = read(&recognizer, &sheet).unwrap();
    assert_eq!(upright.text, "40718\n2653");
    let [width, height] = [sheet.width(), sheet.height()];
    for (turned, is_right) in [(sheet.rotate90(), true), (sheet.rotate270(), false)] {
        let reading = read(&recognizer, &turned).unwrap();
        assert_eq!(reading.text, upright.text);
        for (digit, upright) in reading.digits.iter().zip(&upright.digits) {
            let [left, top, columns, rows] = upright.area;
            let expected = match is_right {
                true => [height - top - rows, left, rows, columns],
                false => [top, width - left - columns, rows, columns],
            };
            let near = digit.area.iter().zip(expected).all(|(a, b)| a.abs_diff(b) <= 4);
            assert!(near, "{:?} for {expected:?}", digit.area);
        }
    }
    // A single digit is not turned.
    let nine = DynamicImage::from(lined_page(&[row("9", 150)]));
    let reading = read(&recognizer, &nine.rotate90()).unwrap();
    assert_eq!(reading.digits.len(), 1);
}

#[test]
fn threads_share_a_recognizer() {
    fn shared<T: Send + Sync>(_: &T) {}
    let recognizer = shipped();
    shared(&recognizer);
    let (digits, _) = digits(64);
    let pictures: Vec<_> = digits.iter().map(|digit| picture(&grey(digit))).collect();
    let together: Vec<_> = recognizer.read_all(&pictures).into_iter().map(Result::unwrap).collect();
    thread::scope(|scope| {
        for part in 0..4 {
            let (recognizer, pictures, together) = (&recognizer, &pictures, &together);
            scope.spawn(move || {
                for i in (part..64).step_by(4) {
                    assert_eq!(recognizer.read(&pictures[i]).unwrap(), together[i]);
                }
            });
        }
    });
}

#[test]
fn activations_layer_by_layer() {
    let (digits, _) = digits(1);
    for network in [Network::Modern, Network::Original] {
        let layers = Recognizer::shipped(network).unwrap().layers(&digits[0]);
        let shapes: Vec<_> =
            layers.iter().map(|layer| (layer.name, layer.shape.as_slice())).collect();
        let expected: [(&str, &[usize]); 8] = [
            ("input", &[1, 32, 32]),
            ("c1", &[6, 28, 28]),
            ("s2", &[6, 14, 14]),
            ("c3", &[16, 10, 10]),
            ("s4", &[16, 5, 5]),
            ("c5", &[120]),
            ("f6", &[84]),
            ("output", &[10]),
        ];
        assert_eq!(shapes, expected);
        for layer in layers {
            assert_eq!(layer.values.len(), layer.shape.iter().product::<usize>());
        }
    }
}

#[test]
fn files_that_are_no_pictures() {
    let (digits, _) = digits(1);
    let png = encoded(&grey(&digits[0]), ImageFormat::Png);
    let limits = |pixels, memory| PictureLimits { pixels, memory };
    let default = PictureLimits::default();
    let expected = "expected a picture (PNG, JPEG, WebP, TIFF, ...), found";
    let table: &[(&[u8], PictureLimits, &str)] = &[
        (b"", default, "an empty file"),
        (b"%PDF-1.7 and more", default, "a PDF document"),
        (b"\0\0\0\x18ftypheic and more", default, "HEIC, AVIF or a film"),
        (b"seven", default, "plain text"),
        (b"\x01\x02\xff\xfe", default, "none that is known"),
        (
            b"<html>",
            default,
            "a web page (HTML), not the file behind it: download it again, from its direct address",
        ),
    ];
    for (bytes, limits, found) in table {
        let error = Picture::decode(bytes, limits).unwrap_err();
        assert_eq!(error, format!("{expected} {found}"));
    }
    let fails = |bytes: &[u8], limits: &PictureLimits| match Picture::decode(bytes, limits) {
        Ok(picture) => panic!("{}x{}", picture.width(), picture.height()),
        Err(error) => error,
    };
    let error = fails(&png[..60], &default);
    assert!(error.starts_with("expected a whole picture, found a PNG that is broken"), "{error}");
    assert!(Picture::decode(&png, &limits(784, 512 << 20)).is_ok());
    let error = fails(&png, &limits(783, 512 << 20));
    assert_eq!(error, "expected at most 783 pixels, found 28 x 28");
    let large = encoded(&GrayImage::new(2000, 2000).into(), ImageFormat::Png);
    let error = fails(&large, &limits(1 << 30, 1 << 20));
    assert_eq!(error, "expected a picture that takes at most 1 MiB to decode, found a larger PNG");
    let picture = coloured(&digits[0], [20.0; 3], [240.0; 3], 1.0);
    let jpeg = encoded(&picture.into(), ImageFormat::Jpeg);
    let error = fails(&jpeg[..jpeg.len() / 2], &default);
    assert_eq!(error, "expected a whole picture, found a JPEG that ends early");
    let endless = Picture::open(Path::new("/dev/zero"), &limits(784, 1 << 20)).unwrap_err();
    assert_eq!(endless.to_string(), "/dev/zero: expected a file, found a device (of characters)");
    for at in (0..png.len()).step_by(7) {
        let mut broken = png.clone();
        broken[at] ^= 0x55;
        // Reading must end, whatever the result.
        if let Ok(picture) = Picture::decode(&broken, &default) {
            let _ = shipped().read(&picture);
        }
    }
}

#[test]
fn pictures_without_digits() {
    let sheet = |size: (u32, u32), f: &dyn Fn(u32, u32) -> u8| {
        DynamicImage::from(GrayImage::from_fn(size.0, size.1, |x, y| image::Luma([f(x, y)])))
    };
    let noise = |x: u32, y: u32| (x.wrapping_mul(2654435761) ^ y.wrapping_mul(2246822519)) as u8;
    let empty =
        "expected digits, found an empty picture: nothing in it stands out from its background";
    for (picture, found) in [
        (sheet((100, 80), &|_, _| 255), Some(empty)),
        (sheet((28, 28), &|_, _| 0), Some(empty)),
        (sheet((1, 1), &|_, _| 7), Some(empty)),
        (sheet((1, 3000), &|_, y| (y % 256) as u8), None),
        (sheet((3000, 1), &|x, _| if x % 9 == 0 { 0 } else { 255 }), None),
        (sheet((300, 300), &noise), None),
        (sheet((256, 256), &|x, y| if (x + y) % 2 == 0 { 0 } else { 255 }), None),
    ] {
        match (read(&shipped(), &picture), found) {
            (Err(error), Some(found)) => assert_eq!(error.to_string(), found),
            (reading, None) => drop(reading),
            (reading, Some(_)) => panic!("{reading:?}"),
        }
    }
}

/// A file that ends early is an error in every format: the missing pixels are not filled in.
#[test]
fn pictures_that_end_early() {
    let (digits, _) = digits(1);
    let picture = coloured(&digits[0], [30.0, 30.0, 60.0], [240.0, 240.0, 235.0], 1.0);
    let picture = DynamicImage::from(picture);
    let folder = temp();
    use ImageFormat::*;
    for format in [Bmp, Farbfeld, Gif, Ico, Jpeg, Png, Pnm, Qoi, Tga, Tiff, WebP, Hdr, OpenExr] {
        let picture = match format {
            Farbfeld => picture.to_rgba16().into(),
            Hdr | OpenExr => picture.to_rgb32f().into(),
            Ico => picture.thumbnail(200, 200).to_rgba8().into(),
            _ => picture.clone(),
        };
        let bytes = encoded(&picture, format);
        let path = folder.path().join(if format == Tga { "digit.tga" } else { "digit" });
        for percent in [10, 50, 90, 100] {
            fs::write(&path, &bytes[..bytes.len() * percent / 100]).unwrap();
            let opened = Picture::open(&path, &PictureLimits::default());
            match (percent, opened) {
                (100, opened) => drop(opened.unwrap_or_else(|e| panic!("{format:?}: {e}"))),
                (_, Ok(_)) => panic!("{format:?}: {percent} % are read as if whole"),
                (_, Err(error)) => assert!(error.to_string().contains(": expected a "), "{error}"),
            }
        }
    }
}

/// The bytes of a JPEG that hold its height, then its width, two bytes each.
fn jpeg_size(bytes: &mut [u8]) -> &mut [u8] {
    let frame = bytes.windows(2).position(|two| two == [0xff, 0xc0]).expect("a frame");
    &mut bytes[frame + 5..][..4]
}

#[test]
fn a_jpeg_holds_as_many_pixels_as_its_header_says() {
    let (digits, _) = digits(1);
    let picture = coloured(&digits[0], [30.0, 30.0, 60.0], [240.0, 240.0, 235.0], 1.0);
    let picture = DynamicImage::from(picture);
    let early = Err("expected a whole picture, found a JPEG that ends early".to_owned());
    for picture in [picture.clone(), picture.to_luma8().into()] {
        let jpeg = encoded(&picture, ImageFormat::Jpeg);
        let size = |height: u16, width: u16| {
            let mut bytes = jpeg.clone();
            jpeg_size(&mut bytes)
                .copy_from_slice(&[height.to_be_bytes(), width.to_be_bytes()].concat());
            Picture::decode(&bytes, &PictureLimits::default()).map(|picture| picture.height())
        };
        assert_eq!(size(400, 400), Ok(400));
        assert_eq!(size(7000, 7000), early);
        // 400 rows end in a block: one more row takes 50 blocks more.
        assert_eq!(size(401, 400), early);
        assert_eq!(size(393, 400), Ok(393));
        let decode = |bytes: &[u8]| {
            Picture::decode(bytes, &PictureLimits::default())
                .map(|picture| pixels(&picture).into_bytes())
        };
        let whole = decode(&jpeg);
        // Only the end marker is missing; then other data follow it.
        assert_eq!(decode(&jpeg[..jpeg.len() - 2]), whole);
        assert_eq!(decode(&[&jpeg[..], b"more"].concat()), whole);
        // The end marker comes too early.
        let early = early.clone().map(|_: u32| Vec::new());
        for length in (700..jpeg.len() - 3).step_by(97) {
            assert_eq!(decode(&[&jpeg[..length], &[0xff, 0xd9]].concat()), early, "{length}");
        }
    }
}

/// A folder with two digits, one of them in a subfolder, and two files that are no pictures.
fn folder() -> (tempfile::TempDir, Vec<u8>) {
    let (digits, labels) = digits(2);
    let folder = temp();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("more")).unwrap();
    fs::write(path("a.png"), encoded(&grey(&digits[0]), ImageFormat::Png)).unwrap();
    fs::write(path("more/b"), encoded(&grey(&digits[1]), ImageFormat::Png)).unwrap();
    fs::write(path("empty.jpg"), "").unwrap();
    fs::write(path("notes.txt"), "no picture").unwrap();
    (folder, labels)
}

fn predict(arguments: &[&str], paths: &[&Path]) -> Ended {
    program("predict").args(arguments).args(paths).output().unwrap().into()
}

#[test]
fn predict_prints_what_it_reads() {
    let (folder, labels) = folder();
    let at = |name: &str| folder.path().join(name);
    let one = predict(&[], &[&at("a.png")]);
    assert_eq!(one.success(), format!("{}\n", labels[0]));

    let shown = at("shown");
    let all = predict(&["--show", shown.to_str().unwrap()], &[folder.path()]);
    let (a, b, empty) = (at("a.png"), at("more/b"), at("empty.jpg"));
    let lines = format!("{}: {}\n{}: {}\n", a.display(), labels[0], b.display(), labels[1]);
    assert_eq!((all.code, all.stdout), (Some(1), lines));
    let error = "expected a picture (PNG, JPEG, WebP, TIFF, ...), found an empty file";
    assert_eq!(all.stderr, format!("error: {}: {error}\n", empty.display()));
    let seen = image::open(shown.join("a.png")).unwrap().into_luma8();
    assert_eq!(seen.dimensions(), (32, 32));
    // Nothing in the folder is overwritten.
    predict(&["--show", shown.to_str().unwrap()], &[&at("a.png")]).fails_with(&format!(
        "--show {}: expected a new or an empty folder, found files in it",
        shown.display()
    ));
    // The written picture gives the same digit.
    let again = predict(&[], &[&shown.join("b.png")]);
    assert_eq!(again.success(), format!("{}\n", labels[1]));

    let rejected = predict(&["--reject-below=1"], &[&a]);
    assert_eq!(rejected.success(), "?\n");
    let pattern = at("more/*");
    assert_eq!(predict(&[], &[&pattern]).success(), format!("{}\n", labels[1]));
}

#[test]
fn predict_in_json() {
    let (folder, labels) = folder();
    let ended = predict(&["--json", "--reject-below=0.2"], &[folder.path()]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(1), ""));
    let lines: Vec<Value> =
        ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    for (line, label) in [(&lines[0], labels[0]), (&lines[2], labels[1])] {
        assert_eq!(line["text"], label.to_string());
        assert_eq!(line["rejected"], false);
        let digit = &line["digits"][0];
        assert_eq!(digit["label"], label);
        let probabilities = digit["probabilities"].as_array().unwrap();
        let sum: f64 = probabilities.iter().map(|p| p.as_f64().unwrap()).sum();
        assert!(probabilities.len() == 10 && (sum - 1.0).abs() < 1e-5);
        let sure = digit["confidence"].as_f64().unwrap();
        assert!(sure > 0.2 && sure <= probabilities[label as usize].as_f64().unwrap());
        let area: Vec<u64> = serde_json::from_value(digit["box"].clone()).unwrap();
        assert!(area[0] + area[2] <= 28 && area[1] + area[3] <= 28);
    }
    assert!(lines[1]["file"].as_str().unwrap().ends_with("empty.jpg"));
    assert!(lines[1]["error"].as_str().unwrap().ends_with("found an empty file"));
}

#[test]
fn predict_reads_lines_of_a_known_form() {
    let folder = temp();
    let path = folder.path().join("page.png");
    page().save(&path).unwrap();
    let name = path.display();
    let options: &[&[&str]] =
        &[&["--digits", "3"], &["--digits=2-4"], &["--pattern", "###"], &["--pattern=-##,#"]];
    for options in options {
        assert_eq!(predict(options, &[&path]).success(), "721\n041\n495\n");
    }
    let ended = predict(&["--pattern", "##1"], &[&path]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "721\n041\n"));
    assert_eq!(ended.stderr, format!("note: {name}: left out 1 line of another form: 495\n"));
    let ended = predict(&["--digits", "6"], &[&path]);
    let message = "expected a line of 6 digits, found 721 and 2 other lines";
    ended.fails_with(&format!("{name}: {message}"));
    let ended = predict(&["--json", "--pattern", "7##"], &[&path]);
    let line: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&line["text"], &line["other_lines"]), (&json!("721"), &json!(["041", "495"])));
    assert!(line["score"].as_f64().unwrap() <= 0.0);
}

#[test]
fn errors_of_predict() {
    let folder = temp();
    let missing = folder.path().join("none.png");
    let ended = predict(&[], &[&missing]);
    let message = format!("{}: No such file or directory (os error 2)", missing.display());
    ended.fails_with(&message);
    let nothing = predict(&[], &[folder.path()]);
    nothing.fails_with(&format!("{}: expected pictures, found none", folder.path().display()));
    let pattern = folder.path().join("*.png");
    let nothing = predict(&[], &[&pattern]);
    nothing.fails_with(&format!("{}: expected pictures, found none", pattern.display()));
    // The other pictures are read.
    let (digits, labels) = digits(1);
    let good = folder.path().join("good");
    fs::write(&good, encoded(&grey(&digits[0]), ImageFormat::Png)).unwrap();
    std::os::unix::fs::symlink("nowhere", folder.path().join("dangling.png")).unwrap();
    let both = predict(&[], &[&pattern.with_extension("jpg"), folder.path()]);
    assert_eq!((both.code, both.stdout), (Some(1), format!("{}: {}\n", good.display(), labels[0])));
    assert_eq!(both.stderr.lines().count(), 2, "{}", both.stderr);
    assert_eq!(run("predict", ["--reject-below=2", "a.png"]).code, Some(2));
    assert_eq!(run("predict", [""; 0]).code, Some(2));
}

#[test]
fn predict_ends_quietly_if_its_output_is_closed() {
    let (digits, _) = digits(1);
    let folder = temp();
    let png = encoded(&grey(&digits[0]), ImageFormat::Png);
    for i in 0..600 {
        fs::write(folder.path().join(format!("{i}.png")), &png).unwrap();
    }
    let all = predict(&[], &[folder.path()]);
    assert_eq!(all.stdout.lines().count(), 600);
    assert_eq!(all.code, Some(0));
    let mut child = program("predict")
        .arg(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), ended.stderr.as_slice()), (Some(0), &b""[..]));
}

/// Patterns with many marks. Each step has a limit, so that reading them does not take minutes.
#[test]
fn patterns_are_read_in_limited_time() {
    let recognizer = shipped().time_limit(Duration::from_secs(300));
    let picture = |side: u32, ink: &dyn Fn(u32, u32) -> bool| {
        GrayImage::from_fn(side, side, |x, y| image::Luma([if ink(x, y) { 0 } else { 255 }])).into()
    };
    let patterns: [DynamicImage; 4] = [
        picture(1600, &|x, y| x % 3 == 0 && y % 3 == 0),
        picture(1200, &|x, y| x % 4 < 2 && y % 4 < 2),
        picture(1000, &|x, y| x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(40_503) & 7 == 0),
        // Nested frames.
        picture(1000, &|x, y| x.min(y).min(999 - x).min(999 - y) % 4 == 0),
    ];
    for (i, reading) in read_all(&recognizer, &patterns).into_iter().enumerate() {
        let words = reading.map_or_else(|error| error.to_string(), |reading| reading.text);
        assert!(!words.contains("takes longer"), "pattern {i}: {words}");
    }
    // The time limit is 0.
    let none = shipped().time_limit(Duration::ZERO);
    let message = read(&none, &patterns[0]).unwrap_err().to_string();
    assert_eq!(message, "expected a picture that is read within 0 s, found that it takes longer");
}

/// A sheet of dots with a digit. At full size there are too many dots; at the smaller size they merge, and the digit is
/// read. This reading is the result.
#[test]
fn a_reading_at_the_smaller_size_stays() {
    let (digits, labels) = digits(1);
    let small = grey(&digits[0]).into_luma8();
    let side = 1600;
    let large = image::imageops::resize(&small, 120, 120, image::imageops::FilterType::CatmullRom);
    let picture = GrayImage::from_fn(side, side, |x, y| {
        let inside = (700..820).contains(&x) && (700..820).contains(&y);
        let dot = !(600..920).contains(&x) || !(600..920).contains(&y);
        let ink = match () {
            () if inside => large.get_pixel(x - 700, y - 700).0[0],
            () if dot && x % 12 < 3 && y % 12 < 2 => 255,
            () => 0,
        };
        image::Luma([255 - ink])
    });
    let reading = read(&shipped(), &picture.into()).unwrap();
    assert_eq!(reading.text, labels[0].to_string());
}
