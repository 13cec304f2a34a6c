//! Data sets in other forms than IDX: good files, broken files, and folders with other content.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use lenet5_core::Picture;
use lenet5_core::data::{Fit, LabelledImages, Split};
use tempfile::TempDir;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Reads a part of a data set of ten classes. The error has no path of the temporary folder.
fn read_part(path: &Path, split: Split) -> Result<LabelledImages, String> {
    let text = |error: lenet5_core::Error| {
        let text = error.to_string();
        let at =
            text.find(".tmp").map_or(0, |start| start + text[start..].find(['/', ':']).unwrap());
        text[at..].trim_start_matches(['/', ':', ' ']).to_owned()
    };
    LabelledImages::read(path, split, 10, Fit::Auto).map_err(text)
}

/// Reads the data set in a file of this name and content.
fn read_file(name: &str, content: &[u8]) -> Result<LabelledImages, String> {
    let folder = folder();
    let path = folder.path().join(name);
    fs::write(&path, content).unwrap();
    let read = read_part(&path, Split::Train);
    // In a folder of its own the file is found by its content.
    assert_eq!(read_part(folder.path(), Split::Train).is_ok(), read.is_ok());
    read
}

/// Returns a digit of `side` x `side` pixels: a bar of ink.
fn bar(side: usize) -> Vec<u8> {
    (0..side * side).map(|i| if (i % side) * 8 / side == 3 { 255 } else { 0 }).collect()
}

/// Returns CSV text with labels and images, without names.
fn csv(labels: &[u8], image: &[u8]) -> String {
    let pixels: String = image.iter().map(|pixel| format!(",{pixel}")).collect();
    labels.iter().map(|label| format!("{label}{pixels}\n")).collect()
}

/// Returns the names of CSV columns.
fn names(first: &str, pixels: usize) -> String {
    (0..pixels).fold(first.to_owned(), |text, i| format!("{text},pixel{i}")) + "\n"
}

/// Returns the zip codes' text for some labels.
fn zip_codes(labels: &[u8]) -> String {
    let pixels: String =
        bar(16).iter().map(|v| if *v > 0 { " 0.988" } else { " -1.000" }).collect();
    labels.iter().map(|label| format!("{label}.0000{pixels} \n")).collect()
}

/// Returns an npy file.
fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// Returns a zip archive of stored members.
fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in members {
        let mut common = vec![20, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        common.extend(crc32fast::hash(data).to_le_bytes());
        common.extend([(data.len() as u32).to_le_bytes(); 2].concat());
        common.extend((name.len() as u16).to_le_bytes());
        common.extend([0; 2]);
        directory.extend([&b"PK\x01\x02\x14\x00"[..], &common, &[0; 10]].concat());
        directory.extend((out.len() as u32).to_le_bytes());
        directory.extend(name.as_bytes());
        out.extend([&b"PK\x03\x04"[..], &common, name.as_bytes(), data].concat());
    }
    let (start, count) = (out.len() as u32, (members.len() as u16).to_le_bytes());
    out.extend(&directory);
    out.extend([&b"PK\x05\x06\0\0\0\0"[..], &count, &count].concat());
    out.extend((directory.len() as u32).to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend([0; 2]);
    out
}

fn npz(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let members: Vec<(&str, &[u8])> =
        members.iter().map(|(name, data)| (*name, data.as_slice())).collect();
    archive(&members)
}

fn write_png(path: &Path, side: usize, grey: Vec<u8>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let png = Picture::from_grey(side as u32, side as u32, grey).unwrap().to_png().unwrap();
    fs::write(path, png).unwrap();
}

#[test]
fn tables_are_read() {
    let image = bar(28);
    let plain = csv(&[3, 0, 9], &image);
    let named = names("label", 784) + &plain;
    // Some tables have the label at the end.
    let row = plain.lines().next().unwrap();
    let (label, pixels) = row.split_once(',').unwrap();
    let at_end =
        format!("{},class\n{pixels},{label}\n", names("", 784).trim_start_matches(',').trim_end());
    for (text, labels) in [
        (plain.clone(), vec![3, 0, 9]),
        (named.clone(), vec![3, 0, 9]),
        (named.replace('\n', "\r\n"), vec![3, 0, 9]),
        (format!("\u{feff}{named}"), vec![3, 0, 9]),
        (plain.replace(",255", ",255.0").replace(",0", ", 0 "), vec![3, 0, 9]),
        (at_end, vec![3]),
    ] {
        for content in [text.clone().into_bytes(), gzip(text.as_bytes())] {
            let data = read_file("digits", &content).unwrap();
            assert_eq!((data.side, &data.labels, data.has_parts), (28, &labels, false));
            assert_eq!(data.images, image.repeat(labels.len()));
            assert!(data.notes.is_empty());
        }
    }
    let data = read_file("zip.train.gz", &gzip(zip_codes(&[6, 1]).as_bytes())).unwrap();
    assert_eq!((data.side, data.labels), (28, vec![6, 1]));
    // The bar of 16 rows is 20 rows high, and in the middle.
    let rows: Vec<usize> =
        (0..28).filter(|y| data.images[y * 28..][..28].iter().any(|v| *v > 0)).collect();
    assert_eq!((rows[0], rows.len()), (5, 20));
    assert_eq!(data.notes, ["the images of 16x16 pixels were brought to MNIST's form"]);
}

#[test]
fn broken_tables_are_refused() {
    let image = bar(28);
    let good = csv(&[3, 0], &image);
    let table = [
        (
            csv(&[3, 10], &image),
            "expected labels from 0 to 9, found 10 at index 1; the largest is 10: train --classes 11",
        ),
        (
            good.replacen(",255", ",256", 1),
            "expected pixels from 0 to 255, found 256 in line 1, column 13",
        ),
        (
            good.replacen(",255", ",-1", 1),
            "expected a whole number from 0 on, found \"-1\" in line 1, column 13",
        ),
        (
            good.replacen(",255", ",0.5", 1),
            "expected a whole number from 0 on, found \"0.5\" in line 1, column 13",
        ),
        (
            good.replacen(",255", ",", 1),
            "expected a whole number from 0 on, found \"\" in line 1, column 13",
        ),
        (format!("{good}3,4\n"), "expected 785 columns in each line, found 2 in line 3"),
        (names("label", 784), "expected images, found none"),
        (
            names("pixel", 783) + &names("0", 783).replace("pixel", ""),
            "expected a label and the pixels of a square image in each line, found 784 pixels without a label, as \
             Kaggle's test.csv has them: hold training images out with --validation",
        ),
        (
            "1,2,3,4,5,6,7,8\n".to_owned(),
            "expected a label and the pixels of a square image in each line (785 columns for 28x28), found 8 columns",
        ),
        (
            zip_codes(&[1]).replacen(" 0.988", "", 1),
            "expected a label and 256 values in each line, as in the zip codes' files, found 256 in line 1",
        ),
        (
            zip_codes(&[1]).replacen("0.988", "1.1", 1),
            "expected a number from -1 to 1, found \"1.1\" in line 1, column 8",
        ),
        (
            zip_codes(&[1]).replacen("0.988", "NaN", 1),
            "expected a number from -1 to 1, found \"NaN\" in line 1, column 8",
        ),
        (
            zip_codes(&[1]).replacen("1.0", "1.5", 1),
            "expected a label, found \"1.5000\" in line 1, column 1",
        ),
        (
            zip_codes(&[1]).replace("0.988", "-1"),
            "expected ink in each image, found none at index 0: --fit whole takes blank images too",
        ),
    ];
    for (text, message) in table {
        for content in [text.clone().into_bytes(), gzip(text.as_bytes())] {
            assert_eq!(
                read_file("digits.csv", &content).unwrap_err(),
                format!("digits.csv: {message}")
            );
        }
    }
    // Files that end early, and random changes.
    let whole = gzip((names("label", 784) + &good).as_bytes());
    let message = read_file("digits.csv", &whole[..whole.len() / 2]).unwrap_err();
    assert_eq!(
        message,
        "digits.csv: expected a table, found gzip that ends early: download or copy it again"
    );
    let mut bytes = zip_codes(&[1, 2]).into_bytes();
    for i in 0..500_usize {
        let at = i.wrapping_mul(2_654_435_761) % bytes.len();
        let old = std::mem::replace(&mut bytes[at], (i % 256) as u8);
        let _ = read_file("digits.txt", &bytes);
        bytes[at] = old;
    }
}

#[test]
fn npz_is_read() {
    let image = bar(28);
    let images = |count: usize| image.repeat(count);
    let words: Vec<u8> = image.iter().flat_map(|v| i64::from(*v).to_le_bytes()).collect();
    let both = npz(&[
        ("x_test.npy", npy("|u1", "(1, 28, 28)", &images(1))),
        ("y_test.npy", npy("|u1", "(1,)", &[5])),
        ("x_train.npy", npy("|u1", "(2, 28, 28)", &images(2))),
        ("y_train.npy", npy(">i4", "(2, 1)", &[0, 0, 0, 3, 0, 0, 0, 4])),
    ]);
    let folder = folder();
    let path = folder.path().join("mnist.npz");
    fs::write(&path, &both).unwrap();
    for (path, split, labels) in [
        (&*path, Split::Train, vec![3, 4]),
        (&*path, Split::Test, vec![5]),
        (folder.path(), Split::Test, vec![5]),
    ] {
        let data = read_part(path, split).unwrap();
        assert_eq!(
            (data.images.len() / 784, data.labels, data.has_parts),
            (labels.len(), labels, true)
        );
    }
    for shape in ["(1, 28, 28)", "(1, 784)", "(1, 28, 28, 1)", "(1, 1, 28, 28)"] {
        let all = npz(&[("x.npy", npy("<i8", shape, &words)), ("y.npy", npy("|i1", "(1,)", &[7]))]);
        let data = read_file("all.npz", &all).unwrap();
        assert_eq!((data.images, data.labels, data.has_parts), (image.clone(), vec![7], false));
    }
}

#[test]
fn broken_npz_is_refused() {
    let x = || npy("|u1", "(1, 28, 28)", &bar(28));
    let y = || npy("|u1", "(1,)", &[7]);
    let table = [
        (
            npz(&[("a.npy", x())]),
            "expected the arrays x_train, y_train, x_test and y_test, or x and y, found a",
        ),
        (
            npz(&[("x.npy", npy("<f8", "(1, 28, 28)", &[0; 6272])), ("y.npy", y())]),
            "array x: expected integers, found elements of type \"<f8\": write pixels from 0 to 255 as \
             x.astype('uint8')",
        ),
        (
            npz(&[("x.npy", x()), ("y.npy", npy("|u1", "(2,)", &[7, 7]))]),
            "expected 1 labels, one for each image of all.npz, found 2",
        ),
        (
            npz(&[("x.npy", x()), ("y.npy", npy("|i1", "(1,)", &[255]))]),
            "expected labels from 0 on, found -1",
        ),
        (
            npz(&[("x.npy", x()), ("y.npy", npy("|u1", "(1, 10)", &[0; 10]))]),
            "array y: expected labels, of shape (N), found the shape [1, 10]",
        ),
        (
            npz(&[("x.npy", npy("|u1", "(1, 28, 28, 3)", &[0; 2352])), ("y.npy", y())]),
            "array x: expected grey images, of shape (N, rows, columns), found the shape [1, 28, 28, 3]",
        ),
        (
            npz(&[("x.npy", npy("<u2", "(1, 1, 1)", &[0, 1])), ("y.npy", y())]),
            "expected pixels from 0 to 255, found 256",
        ),
        (
            npz(&[("x.npy", npy("|u1", "(1, 28, 28)", &[0; 783])), ("y.npy", y())]),
            "array x: expected elements for the shape [1, 28, 28], found 783 bytes",
        ),
        (
            npz(&[("x.npy", npy("|u1", "(18446744073709551615, 2, 2)", &[0; 4])), ("y.npy", y())]),
            "array x: expected elements for the shape [18446744073709551615, 2, 2], found 4 bytes",
        ),
        (
            npz(&[("x.npy", npy("|u1", "(0, 28, 28)", &[])), ("y.npy", npy("|u1", "(0,)", &[]))]),
            "expected images, found none",
        ),
        (
            npz(&[("x.npy", npy("|u1", "(1, 0, 28)", &[])), ("y.npy", y())]),
            "expected images, found none",
        ),
        (
            npz(&[("x.npy", npy("|u1", "(1, 2000, 1)", &[9; 2000])), ("y.npy", y())]),
            "expected images of at most 1024 pixels on a side, found 2000x1",
        ),
    ];
    for (content, message) in table {
        let error = read_file("all.npz", &content).unwrap_err();
        let error = error.split_once(" of /").map_or(error.clone(), |(before, after)| {
            format!("{before} of {}", &after[after.find("all.npz").unwrap()..])
        });
        assert_eq!(error, format!("all.npz: {message}"));
    }
    let mut good = npz(&[("x.npy", npy("|u1", "(1, 4, 4)", &bar(4))), ("y.npy", y())]);
    let path = folder();
    let path = path.path().join("all.npz");
    for length in 0..good.len() {
        fs::write(&path, &good[..length]).unwrap();
        read_part(&path, Split::Train).unwrap_err();
    }
    for at in 0..good.len() {
        for bit in 0..8 {
            good[at] ^= 1 << bit;
            fs::write(&path, &good).unwrap();
            let _ = read_part(&path, Split::Train);
            good[at] ^= 1 << bit;
        }
    }
}

#[test]
fn folders_of_classes_are_read() {
    let folder = folder();
    let folder = folder.path();
    let dark = |side| bar(side).iter().map(|v| 255 - v).collect::<Vec<u8>>();
    for i in 0..4 {
        write_png(&folder.join(format!("one/1/{i}.png")), 28, bar(28));
    }
    write_png(&folder.join("one/7/a.png"), 28, dark(28));
    write_png(&folder.join("one/7/b.png"), 200, dark(200));
    fs::write(folder.join("one/7/.DS_Store"), "x").unwrap();
    fs::write(folder.join("one/7/notes.txt"), "x").unwrap();
    let data = read_part(&folder.join("one"), Split::Test).unwrap();
    // Classes are mixed evenly, so that the last images are of all classes.
    assert_eq!((data.labels, data.has_parts), (vec![1, 7, 1, 1, 7, 1], false));
    // Dark ink on white paper is inverted, and a larger picture is fitted.
    assert_eq!(data.images[..2 * 784], bar(28).repeat(2));
    let large = &data.images[4 * 784..5 * 784];
    assert_eq!((0..28).filter(|y| large[y * 28..][..28].iter().any(|v| *v > 0)).count(), 20);
    assert_eq!(data.notes, ["1 files were left out, whose names are not those of pictures"]);

    for part in ["train", "Test"] {
        write_png(&folder.join(format!("two/{part}/cat/1.png")), 28, bar(28));
    }
    write_png(&folder.join("two/train/ant/1.png"), 28, bar(28));
    let read = |split| read_part(&folder.join("two"), split).unwrap();
    let (train, test) = (read(Split::Train), read(Split::Test));
    assert_eq!((train.labels, train.has_parts), (vec![0, 1], true));
    // A class has the same label in both parts.
    assert_eq!((test.labels, test.has_parts), (vec![1], true));
    assert_eq!(test.notes, ["the classes are 0 = ant, 1 = cat"]);
}

#[test]
fn broken_folders_are_refused() {
    let folder = folder();
    let folder = folder.path();
    let error = |name: &str| read_part(&folder.join(name), Split::Train).unwrap_err();
    write_png(&folder.join("a/10/1.png"), 28, bar(28));
    assert_eq!(
        error("a"),
        "a: expected labels from 0 to 9, found 10 among the folders of the classes: train --classes 11"
    );
    write_png(&folder.join("b/1/1.png"), 60, vec![255; 3600]);
    assert_eq!(error("b"), "b/1/1.png: expected a digit, found nothing that looks like writing");
    fs::write(folder.join("b/1/1.png"), "<html>").unwrap();
    assert_eq!(
        error("b"),
        "b/1/1.png: expected a picture (PNG, JPEG, WebP, TIFF, ...), found a web page (HTML), not the file \
         behind it: download it again, from its direct address"
    );
    // Twelve tables, of which none is named as a part.
    fs::create_dir(folder.join("c")).unwrap();
    for name in ["x.csv", "y.csv"] {
        fs::write(folder.join("c").join(name), csv(&[1], &bar(28))).unwrap();
    }
    assert_eq!(
        error("c"),
        "c: expected one table with images, or one with \"train\" and one with \"test\" in its name, found \
         \"x.csv\", \"y.csv\""
    );
    fs::create_dir(folder.join("d")).unwrap();
    let forms = "expected a folder with IDX files (train-images-idx3-ubyte, ...) or with a folder of pictures for \
                 each class, CSV, npz, or the zip codes' text";
    assert_eq!(error("d"), format!("d: {forms}, found an empty folder"));
    for (name, content, found) in [
        ("x.parquet", &b"PAR1...."[..], "Parquet, as Hugging Face's data sets have it"),
        ("x.h5", b"\x89HDF\r\n\x1a\n", "HDF5, as Keras writes"),
        ("x.zip", b"PK\x03\x04....", "a zip archive"),
        ("x.tar.gz", &gzip(b"...."), "gzip"),
    ] {
        let path = folder.join("d").join(name);
        fs::write(&path, content).unwrap();
        let error = error(&format!("d/{name}"));
        let start =
            format!("d/{name}: expected a data set, found {found}; to convert it: python3 -");
        assert!(error.starts_with(&start), "{error}");
        assert!(error.contains(&format!("'{name}'")), "{error}");
        fs::remove_file(path).unwrap();
    }
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 247752\n";
    for (content, found) in [
        (pointer, "a Git LFS pointer in place of the file: run `git lfs pull`"),
        (
            "<!DOCTYPE html><html>",
            "a web page (HTML), not the file behind it: download it again, from its direct address",
        ),
    ] {
        fs::write(folder.join("d/train.csv"), content).unwrap();
        assert_eq!(error("d/train.csv"), format!("d/train.csv: {forms}, found {found}"));
        let error = error("d");
        let short = found.split(':').next().unwrap();
        assert_eq!(error, format!("d: {forms}, found \"train.csv\" ({short})"));
    }
    assert_eq!(error("nowhere"), "nowhere: No such file or directory (os error 2)");
}
