//! Tests of the reader of data sets: valid files, damaged files, the embedded MNIST.

use std::fs;
use std::path::Path;

use lenet5::data::{Dataset, Split};
use lenet5_core::data::idx;
use tch::Kind;

use crate::util::{gzip, root, temp, write_idx};

/// Creates an IDX file: magic number, sizes, data.
fn file(magic: u32, sizes: &[u32], data: &[u8]) -> Vec<u8> {
    let words = std::iter::once(&magic).chain(sizes);
    words.flat_map(|word| word.to_be_bytes()).chain(data.iter().copied()).collect()
}

fn error(bytes: &[u8], dimensions: u8) -> String {
    idx::decode(bytes, dimensions).expect_err("broken")
}

#[test]
fn good_files() {
    let data: Vec<u8> = (0..24).collect();
    let plain = file(0x0803, &[2, 3, 4], &data);
    let array = idx::decode(&plain[..], 3).unwrap();
    assert_eq!((array.dimensions.as_slice(), &array.data), ([2, 3, 4].as_slice(), &data));
    assert_eq!(idx::decode(&gzip(&plain)[..], 3).unwrap(), array);
    // gzip files may be concatenated.
    let halves = [gzip(&plain[..20]), gzip(&plain[20..])].concat();
    assert_eq!(idx::decode(&halves[..], 3).unwrap(), array);
    assert!(idx::decode(&file(0x0801, &[0], &[])[..], 1).unwrap().data.is_empty());
}

#[test]
fn broken_files() {
    let magic = |found: &str| {
        format!(
            "expected IDX magic number 0x00000803 (unsigned bytes, 3 dimension(s)), found {found}"
        )
    };
    let size = |expected: &str, sizes: &str, found: &str| {
        format!("expected {expected} bytes of data for dimensions {sizes}, found {found}")
    };
    let limit = |sizes: &str| {
        format!("expected at most 1073741824 bytes of data, found dimensions {sizes}")
    };
    let max = u32::MAX;
    let table = [
        // Images instead of labels and the reverse, other element types, other byte orders.
        (
            file(0x0801, &[1, 2, 2], &[0; 4]),
            magic("0x00000801: IDX of unsigned bytes in 1 dimension(s), of sizes [1]"),
        ),
        (
            file(0x0804, &[1, 1, 2, 2], &[0; 4]),
            magic("0x00000804: IDX of unsigned bytes in 4 dimension(s), of sizes [1, 1, 2, 2]"),
        ),
        (
            file(0x0D03, &[1, 2, 2], &[0; 16]),
            magic("0x00000d03: IDX of float32 in 3 dimension(s), of sizes [1, 2, 2]"),
        ),
        (
            file(0x0C02, &[9, 8], &[0; 288]),
            magic("0x00000c02: IDX of int32 in 2 dimension(s), of sizes [9, 8]"),
        ),
        (file(0x0803_0000, &[1, 2, 2], &[0; 4]), magic("0x08030000")),
        (file(0x0308_0000, &[1, 2, 2], &[0; 4]), magic("0x03080000")),
        (
            b"<!DOCTYPE html>".to_vec(),
            magic(
                "0x3c21444f: a web page (HTML), not the file behind it: download it again, from its \
                 direct address",
            ),
        ),
        // Files that are shorter and longer than the header states.
        (file(0x0803, &[2, 2, 2], &[]), size("8", "[2, 2, 2]", "0")),
        (file(0x0803, &[2, 2, 2], &[0; 7]), size("8", "[2, 2, 2]", "7")),
        (file(0x0803, &[2, 2, 2], &[0; 9]), size("8", "[2, 2, 2]", "more")),
        (file(0x0803, &[0, 28, 28], &[0]), size("0", "[0, 28, 28]", "more")),
        // The limit from both sides; a header alone makes the reader allocate nothing.
        (file(0x0803, &[1 << 15, 1 << 15, 1], &[]), size("1073741824", "[32768, 32768, 1]", "0")),
        (file(0x0803, &[1 << 15, (1 << 15) + 1, 1], &[]), limit("[32768, 32769, 1]")),
        (file(0x0803, &[max, max, max], &[]), limit("[4294967295, 4294967295, 4294967295]")),
        // The product is 2^96, which is 0 in 64 bits.
        (
            file(0x0803, &[1 << 31, 1 << 31, 1 << 31], &[]),
            limit("[2147483648, 2147483648, 2147483648]"),
        ),
    ];
    for (bytes, message) in table {
        assert_eq!(error(&bytes, 3), message);
        assert_eq!(error(&gzip(&bytes), 3), message, "in gzip");
    }
}

#[test]
fn truncated_files() {
    let whole = file(0x0803, &[2, 3, 4], &[7; 24]);
    for length in 0..whole.len() {
        let expected = match length {
            0 => "expected an IDX file, found an empty file".to_owned(),
            1..16 => {
                let part =
                    ["the magic number", "dimension 1", "dimension 2", "dimension 3"][length / 4];
                format!("expected an IDX file, found the end of the file within {part}")
            }
            _ => {
                format!("expected 24 bytes of data for dimensions [2, 3, 4], found {}", length - 16)
            }
        };
        assert_eq!(error(&whole[..length], 3), expected);
    }
    let compressed = gzip(&file(0x0803, &[2, 3, 4], &(0..24).collect::<Vec<_>>()));
    for length in 0..compressed.len() {
        let message = error(&compressed[..length], 3);
        assert!(message.starts_with("expected "), "{length}: {message}");
    }
}

#[test]
fn gzip_with_a_wrong_checksum() {
    let mut bytes = gzip(&file(0x0801, &[3], &[1, 2, 3]));
    let checksum = bytes.len() - 8;
    bytes[checksum] ^= 1;
    assert_eq!(
        error(&bytes, 1),
        "expected IDX data, plain or gzip, found a broken stream (corrupt gzip stream does not have a matching checksum)"
    );
}

const TEST_IMAGES: &str = "t10k-images-idx3-ubyte";
const TEST_LABELS: &str = "t10k-labels-idx1-ubyte";

/// Returns the error of `Dataset::read` for a folder with these test images and labels, without the
/// folder.
fn read(folder: &Path, images: &[usize], labels: &[u8]) -> Result<Dataset, String> {
    write_idx(&folder.join(TEST_IMAGES), images, &vec![0; images.iter().product()]);
    write_idx(&folder.join(TEST_LABELS), &[labels.len()], labels);
    message(folder, Dataset::read(folder, Split::Test, 10))
}

fn message<T>(folder: &Path, result: lenet5::Result<T>) -> Result<T, String> {
    let folder = folder.display().to_string();
    result.map_err(|error| error.to_string().replace(&folder, "DIR"))
}

#[test]
fn data_sets() {
    let folder = temp();
    let folder = folder.path();
    let data = read(folder, &[3, 28, 28], &[0, 9, 5]).unwrap();
    assert_eq!((data.len(), data.images().size()), (3, vec![3, 28, 28]));
    assert_eq!(Vec::<i64>::try_from(data.labels()).unwrap(), [0, 9, 5]);
    assert_eq!(read(folder, &[1, 32, 32], &[0]).unwrap().images().size(), [1, 32, 32]);

    // Images of other sizes are fitted.
    write_idx(&folder.join(TEST_IMAGES), &[1, 60, 40], &[9; 60 * 40]);
    write_idx(&folder.join(TEST_LABELS), &[1], &[3]);
    let data = Dataset::read(folder, Split::Test, 10).unwrap();
    assert_eq!(data.images().size(), [1, 28, 28]);
    assert_eq!(data.notes(), ["the images of 60x40 pixels were brought to MNIST's form"]);

    let table: [(&[usize], &[u8], &str); 7] = [
        (
            &[1, 1025, 28],
            &[0],
            "DIR/t10k-images-idx3-ubyte: expected images of at most 1024 pixels on a side, found 1025x28",
        ),
        (&[0, 28, 28], &[], "DIR/t10k-images-idx3-ubyte: expected images, found none"),
        (
            &[2, 28, 28],
            &[0],
            "DIR/t10k-labels-idx1-ubyte: expected 2 labels, one for each image of DIR/t10k-images-idx3-ubyte, found 1",
        ),
        (
            &[2, 28, 28],
            &[0, 1, 2],
            "DIR/t10k-labels-idx1-ubyte: expected 2 labels, one for each image of DIR/t10k-images-idx3-ubyte, found 3",
        ),
        (
            &[2, 28, 28],
            &[9, 10],
            "DIR/t10k-labels-idx1-ubyte: expected labels from 0 to 9, found 10 at index 1; the largest is 10: train --classes 11",
        ),
        (
            &[2, 28, 28],
            &[255, 0],
            "DIR/t10k-labels-idx1-ubyte: expected labels from 0 to 9, found 255 at index 0; the largest is 255: train --classes 256",
        ),
        (
            &[1, 28],
            &[0],
            "DIR/t10k-images-idx3-ubyte: expected IDX magic number 0x00000803 (unsigned bytes, 3 dimension(s)), found 0x00000802: IDX of unsigned bytes in 2 dimension(s), of sizes [1, 28]",
        ),
    ];
    for (images, labels, expected) in table {
        assert_eq!(read(folder, images, labels).expect_err(expected), expected);
    }
    // The network has as many classes as outputs.
    write_idx(&folder.join(TEST_IMAGES), &[2, 28, 28], &[0; 2 * 28 * 28]);
    write_idx(&folder.join(TEST_LABELS), &[2], &[25, 26]);
    assert_eq!(Dataset::read(folder, Split::Test, 27).unwrap().len(), 2);
    assert_eq!(
        message(folder, Dataset::read(folder, Split::Test, 26)).expect_err("26 classes"),
        "DIR/t10k-labels-idx1-ubyte: expected labels from 0 to 25, found 26 at index 1; the largest is 26: train \
         --classes 27"
    );
    write_idx(&folder.join(TEST_LABELS), &[2], &[1, 26]);
    assert_eq!(
        message(folder, Dataset::read(folder, Split::Test, 26)).expect_err("26 classes"),
        "DIR/t10k-labels-idx1-ubyte: expected labels from 0 to 25, found 26 at index 1; here labels run \
         from 1 to 26: train --classes 27, whose class 0 stays empty"
    );
}

#[test]
fn missing_files() {
    let folder = temp();
    let folder = folder.path();
    let read = |split| message(folder, Dataset::read(folder, split, 10)).expect_err("missing");
    let forms = "expected a folder with IDX files (train-images-idx3-ubyte, ...) or with a folder of pictures \
                 for each class, CSV, npz, or the zip codes' text";
    assert_eq!(read(Split::Train), format!("DIR: {forms}, found an empty folder"));
    write_idx(&folder.join(TEST_IMAGES), &[1, 28, 28], &[0; 28 * 28]);
    assert_eq!(
        read(Split::Test),
        "DIR: expected t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte.gz, found \
         \"t10k-images-idx3-ubyte\""
    );
    assert_eq!(
        message(folder, Dataset::read(&folder.join(TEST_IMAGES), Split::Test, 10)).unwrap_err(),
        "DIR/t10k-images-idx3-ubyte: expected the folder of the files, found one of them (IDX images): name \
         the folder"
    );
    let nowhere = folder.join("nowhere");
    assert_eq!(
        message(folder, Dataset::read(&nowhere, Split::Test, 10)).expect_err("missing"),
        "DIR/nowhere: No such file or directory (os error 2)"
    );
}

#[test]
fn labels_of_qmnist() {
    let words = |rows: &[i32]| -> Vec<u8> {
        let row = |label: &i32| [*label, 1, 2, 3, 4, 5, 6, 7];
        rows.iter().flat_map(row).flat_map(i32::to_be_bytes).collect()
    };
    let labels = |sizes: &[u32], data: &[u8]| idx::decode_labels(&file(0x0c02, sizes, data)[..]);
    assert_eq!(labels(&[3, 8], &words(&[5, 0, 9])).unwrap(), [5, 0, 9]);
    assert_eq!(idx::decode_labels(&file(0x0801, &[2], &[7, 200])[..]).unwrap(), [7, 200]);
    for (result, message) in [
        (labels(&[2, 8], &words(&[5, -1])), "expected labels from 0 on, found -1 at index 1"),
        (
            labels(&[4, 4], &words(&[5, 6])),
            "expected QMNIST's labels with 8 columns, found dimensions [4, 4]",
        ),
        (
            labels(&[2, 8], &words(&[5])),
            "expected 64 bytes of data for dimensions [2, 8], found 32",
        ),
        (
            labels(&[1 << 29, 8], &[]),
            "expected at most 1073741824 bytes of data, found dimensions [536870912, 8]",
        ),
    ] {
        assert_eq!(result.unwrap_err(), message);
    }
}

#[test]
fn other_layouts_of_the_same_files() {
    let images = [7; 28 * 28];
    for (inside, image_name, label_name) in [
        ("", "t10k-images.idx3-ubyte", "t10k-labels.idx1-ubyte"),
        ("MNIST/raw", TEST_IMAGES, TEST_LABELS),
        ("FashionMNIST/raw", "t10k-images.idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
        (
            "raw",
            "emnist-letters-test-images-idx3-ubyte.gz",
            "emnist-letters-test-labels-idx1-ubyte",
        ),
    ] {
        let folder = temp();
        let inside = folder.path().join(inside);
        fs::create_dir_all(&inside).unwrap();
        write_idx(&inside.join(image_name), &[1, 28, 28], &images);
        write_idx(&inside.join(label_name), &[1], &[3]);
        assert_eq!(Dataset::read(folder.path(), Split::Test, 10).unwrap().len(), 1);
        // A file and its compressed copy are one data set.
        let plain = image_name.trim_end_matches(".gz");
        write_idx(&inside.join(plain), &[1, 28, 28], &images);
        write_idx(&inside.join(format!("{plain}.gz")), &[1, 28, 28], &images);
        assert_eq!(Dataset::read(folder.path(), Split::Test, 10).unwrap().len(), 1);
    }
    let folder = temp();
    for name in ["KMNIST/raw", "MNIST/raw"] {
        let inside = folder.path().join(name);
        fs::create_dir_all(&inside).unwrap();
        write_idx(&inside.join(TEST_IMAGES), &[1, 28, 28], &images);
    }
    assert_eq!(
        message(folder.path(), Dataset::read(folder.path(), Split::Test, 10)).unwrap_err(),
        "DIR: expected one data set, found DIR/KMNIST/raw/t10k-images-idx3-ubyte and \
         DIR/MNIST/raw/t10k-images-idx3-ubyte: name the folder of one of them"
    );
}

#[test]
fn half_a_gzip_is_named() {
    let data: Vec<u8> = (0..2000u32).map(|i| (i.wrapping_mul(2654435761) >> 13) as u8).collect();
    let whole = gzip(&file(0x0801, &[2000], &data));
    assert_eq!(
        error(&whole[..whole.len() / 2], 1),
        "expected IDX data, found gzip that ends early: download or copy it again"
    );
}

#[test]
fn gzip_and_plain_give_the_same() {
    let (plain, compressed) = (temp(), temp());
    let images: Vec<u8> = (0..2 * 28 * 28).map(|i| i as u8).collect();
    for (folder, suffix) in [(&plain, ""), (&compressed, ".gz")] {
        write_idx(&folder.path().join(format!("{TEST_IMAGES}{suffix}")), &[2, 28, 28], &images);
        write_idx(&folder.path().join(format!("{TEST_LABELS}{suffix}")), &[2], &[3, 4]);
    }
    let [plain, compressed] =
        [&plain, &compressed].map(|folder| Dataset::read(folder.path(), Split::Test, 10).unwrap());
    assert_eq!(plain.images(), compressed.images());
    assert_eq!(plain.labels(), compressed.labels());
    // The content decides, not the name: a gzip file without its suffix.
    let renamed = temp();
    for (name, sizes, data) in
        [(TEST_IMAGES, &[2, 28, 28][..], &images[..]), (TEST_LABELS, &[2], &[3, 4])]
    {
        let path = renamed.path().join(name);
        write_idx(&path, sizes, data);
        fs::write(&path, gzip(&fs::read(&path).unwrap())).unwrap();
    }
    let renamed = Dataset::read(renamed.path(), Split::Test, 10).unwrap();
    assert_eq!(renamed.images(), plain.images());
}

#[test]
fn names_of_emnist() {
    let folder = temp();
    let folder = folder.path();
    let write = |name: &str, count: usize| {
        write_idx(
            &folder.join(format!("emnist-{name}-images-idx3-ubyte.gz")),
            &[count, 28, 28],
            &vec![0; count * 28 * 28],
        );
        write_idx(
            &folder.join(format!("emnist-{name}-labels-idx1-ubyte")),
            &[count],
            &vec![26; count],
        );
    };
    write("letters-train", 3);
    write("letters-test", 2);
    assert_eq!(Dataset::read(folder, Split::Train, 26).unwrap().len(), 3);
    let test = Dataset::read(folder, Split::Test, 26).unwrap();
    // The letters' labels begin at 1.
    assert_eq!(Vec::<i64>::try_from(test.labels()).unwrap(), [25, 25]);
    assert_eq!(
        test.notes(),
        [
            "EMNIST's images were transposed: in its files they lie on their side",
            "EMNIST's labels 1 to 26 became 0 to 25"
        ]
    );
    write("digits-test", 1);
    assert_eq!(
        message(folder, Dataset::read(folder, Split::Test, 26)).expect_err("two data sets"),
        "DIR: expected one file *-test-images-idx3-ubyte, found 2"
    );
}

#[test]
fn the_embedded_mnist() {
    // The known numbers of MNIST's images by label.
    let parts = [
        (Split::Train, [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]),
        (Split::Test, [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]),
    ];
    for (split, counts) in parts {
        let data = Dataset::embedded(split, 10).unwrap();
        let found = Vec::<i64>::try_from(data.labels().bincount(None::<tch::Tensor>, 10)).unwrap();
        assert_eq!(found, counts);
        assert_eq!(data.images().size(), [counts.iter().sum(), 28, 28]);
        assert_eq!(data.images().kind(), Kind::Uint8);
        let folder = Dataset::read(&root().join("data/mnist"), split, 10).unwrap();
        assert_eq!((folder.images(), folder.labels()), (data.images(), data.labels()));
    }
}
