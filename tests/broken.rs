//! Damaged files of weights, and other files: each gives a clear error, and no code in it is
//! executed.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;

use lenet5::Array;
use lenet5::model::ModelConfig;
use lenet5::weights::{self, Checkpoint, Format, Limits, Weights, pickle};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use tempfile::TempDir;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::util::{peak_memory, temp};
use crate::weights::{FORMATS, forms, random};

/// Returns the message of `Weights::read` for a file of these bytes, without the path.
struct Reader(TempDir);

impl Reader {
    fn new() -> Self {
        Self(temp())
    }

    fn read(&self, bytes: &[u8]) -> Result<Weights, String> {
        let path = self.0.path().join("file");
        fs::write(&path, bytes).unwrap();
        Weights::read(&path).map_err(|error| {
            let text = error.to_string();
            let prefix = format!("{}: ", path.display());
            text.strip_prefix(&prefix).unwrap_or_else(|| panic!("no path: {text}")).to_owned()
        })
    }

    fn error(&self, what: &str, bytes: &[u8]) -> String {
        match self.read(bytes) {
            Ok(_) => panic!("{what}: was read"),
            Err(message) => message,
        }
    }
}

/// Checks a table of (name, bytes, exact message), and prints all messages that differ.
fn check_table(table: Vec<(&str, Vec<u8>, &str)>) {
    let reader = Reader::new();
    let mut wrong = String::new();
    for (what, bytes, expected) in table {
        let message = reader.error(what, &bytes);
        if message != expected {
            wrong += &format!("{what}\n  expected {expected}\n  found    {message}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn files_of_something_else() {
    check_table(vec![
        ("empty", vec![], "expected weights, found an empty file"),
        (
            "one byte",
            vec![b'P'],
            "expected torch.save's archive or pickles, TorchScript or safetensors, found plain text",
        ),
        (
            "text",
            b"hello, these are no weights at all".to_vec(),
            "expected torch.save's archive or pickles, TorchScript or safetensors, found plain text",
        ),
        (
            "a pickle without a zip",
            b"\x80\x02}q\x00.".to_vec(),
            "expected torch.save's archive or pickles, TorchScript or safetensors, found a pickle that torch.save did not write",
        ),
        (
            "a picture",
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec(),
            "expected torch.save's archive or pickles, TorchScript or safetensors, found a picture",
        ),
        (
            "a zip's first bytes",
            b"PK\x03\x04".to_vec(),
            "expected a zip archive, found one that ends early: download or copy it again",
        ),
        (
            "a zip of something else",
            zip(&[("readme.txt", b"hello")]),
            "expected a PyTorch archive, found a zip without data.pkl",
        ),
        (
            "data.pkl too deep in the zip",
            zip(&[("a/b/data.pkl", b"\x80\x02}.")]),
            "expected a PyTorch archive, found a zip without data.pkl",
        ),
        (
            "an empty data.pkl",
            zip(&[("a/data.pkl", &[])]),
            "expected more of the pickle, found its end at byte 0 of the pickle",
        ),
        (
            "an empty dict",
            archive(b"}"),
            "expected a state dict of LeNet-5, found a dict without tensors",
        ),
        ("an empty list", archive(b"]"), "expected a state dict of LeNet-5, found a list"),
        ("a number", archive(b"K\x01"), "expected a state dict of LeNet-5, found an integer"),
        ("None", archive(b"N"), "expected a state dict of LeNet-5, found None"),
        (
            "one tensor",
            archive(&tensor("Float", 0, 0, &[2, 2], &[2, 1])),
            "expected the ten parameters of LeNet-5, found 1 tensor:  [2, 2]",
        ),
        (
            "TorchScript without parameters",
            { zip(&[("a/data.pkl", b"\x80\x02}."), ("a/constants.pkl", b"\x80\x02).")]) },
            "expected a state dict of LeNet-5, found TorchScript without parameters",
        ),
        (
            "another byte order",
            { zip(&[("a/data.pkl", b"\x80\x02}."), ("a/byteorder", b"pdp")]) },
            "expected byte order little or big, found pdp",
        ),
    ]);
}

/// Writes a file of weights whose tensors were changed.
fn changed(format: Format, change: impl Fn(&mut Vec<(String, Array)>)) -> Vec<u8> {
    let mut weights = random(&ModelConfig::default());
    change(&mut weights.tensors);
    weights::to_bytes(&weights, format).unwrap()
}

#[test]
fn tensors_of_something_else() {
    for (format, _) in FORMATS {
        let put = |i: usize, value: f32| {
            changed(format, |tensors| {
                let mut values = tensors[i].1.to_f32();
                values[1] = value;
                tensors[i].1 = Array::from_f32(tensors[i].1.shape(), &values);
            })
        };
        check_table(vec![
            (
                "NaN",
                put(0, f32::NAN),
                "c1.weight: expected finite numbers, found 1 that are not (NaN or infinite)",
            ),
            (
                "infinity",
                put(9, f32::NEG_INFINITY),
                "output.bias: expected finite numbers, found 1 that are not (NaN or infinite)",
            ),
            (
                "a name too much",
                changed(format, |t| t.push(("f7.bias".to_owned(), Array::zeros(&[1])))),
                "expected the ten parameters of LeNet-5, found f7.bias beside them",
            ),
            (
                "another shape",
                changed(format, |t| t[0].1 = Array::zeros(&[6, 1, 3, 3])),
                "c1.weight: expected shape [6, 1, 5, 5], found [6, 1, 3, 3]",
            ),
            (
                "another shape of the same size",
                changed(format, |t| t[6].1 = Array::zeros(&[120, 84])),
                "f6.weight: expected shape [84, 120], found [120, 84]",
            ),
            (
                "another number of classes than stored",
                {
                    changed(format, |t| {
                        t[8].1 = Array::zeros(&[26, 84]);
                        t[9].1 = Array::zeros(&[26]);
                    })
                },
                "output.weight: expected shape [10, 84], found [26, 84]",
            ),
        ]);
        if format == Format::TorchScript {
            continue; // a file with these tensors could not be written
        }
        check_table(vec![
            (
                "a name is missing",
                changed(format, |t| drop(t.remove(3))),
                "expected the parameter c3.bias, found none",
            ),
            (
                "integers",
                changed(format, |t| t[1].1 = Array::from_i64(&[6], &[1; 6])),
                "c1.bias: expected floats, found int64",
            ),
            (
                "foreign names, one too few",
                changed(format, |t| {
                    t.pop();
                    t.iter_mut().for_each(|(name, _)| *name = format!("net.{name}"));
                }),
                "expected the parameter output.bias, found none",
            ),
            (
                "foreign names, another shape",
                changed(format, |t| {
                    t.iter_mut().for_each(|(name, _)| *name = format!("net.{name}"));
                    t[2].1 = Array::zeros(&[16, 6, 3, 3]);
                }),
                "net.c3.weight (for c3.weight): expected shape [16, 6, 5, 5], found [16, 6, 3, 3]",
            ),
        ]);
    }
}

#[test]
fn torchscript_has_to_compile() {
    let mut weights = random(&ModelConfig::default());
    weights.tensors.truncate(3);
    let error = weights::to_bytes(&weights, Format::TorchScript).unwrap_err().to_string();
    assert!(error.starts_with("libtorch: '__torch__.lenet5.c3"), "{error}");
    assert!(error.contains("object has no attribute or method 'bias'"), "{error}");
}

/// Creates an uncompressed zip archive.
fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in files {
        zip.start_file(*name, options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// Creates a compressed zip archive.
fn deflated(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// Creates a `torch.save` file of this pickled value, with one storage of 16 bytes.
fn archive(value: &[u8]) -> Vec<u8> {
    let pickle = [b"\x80\x02", value, b"."].concat();
    zip(&[("archive/data.pkl", &pickle), ("archive/data/0", &[0; 16])])
}

fn integer(value: i64) -> Vec<u8> {
    [&[0x8a, 8][..], &value.to_le_bytes()].concat()
}

fn string(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

fn tuple(items: &[i64]) -> Vec<u8> {
    let items: Vec<u8> = items.iter().flat_map(|&item| integer(item)).collect();
    [b"(", &items[..], b"t"].concat()
}

/// Returns the pickle of a tensor over the storage `key`.
fn tensor(class: &str, key: i64, offset: i64, size: &[i64], stride: &[i64]) -> Vec<u8> {
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n((",
        &string("storage")[..],
        format!("ctorch\n{class}Storage\n").as_bytes(),
        &string(&key.to_string()),
        &string("cpu"),
        &integer(4),
        b"tQ",
        &integer(offset),
        &tuple(size),
        &tuple(stride),
        b"\x89ccollections\nOrderedDict\n)RtR",
    ]
    .concat()
}

#[test]
fn absurd_tensors() {
    let float =
        |offset, size: &[i64], stride: &[i64]| archive(&tensor("Float", 0, offset, size, stride));
    check_table(vec![
        (
            "2^64 elements",
            float(0, &[1 << 62, 4], &[1, 1]),
            "expected tensors of at most 67108864 bytes in all, found more with one of size [4611686018427387904, 4]; --max-memory raises this",
        ),
        (
            "2^62 elements",
            float(0, &[1 << 62], &[1]),
            "expected tensors of at most 67108864 bytes in all, found more with one of size [4611686018427387904]; --max-memory raises this",
        ),
        (
            "a size below 0",
            float(0, &[-4], &[1]),
            "expected a tensor's size as a tuple of integers from 0",
        ),
        (
            "a stride below 0",
            float(3, &[4], &[-1]),
            "expected a tensor's stride as a tuple of integers from 0",
        ),
        (
            "an offset below 0",
            float(-1, &[4], &[1]),
            "expected a tensor's offset as an integer from 0",
        ),
        (
            "one element too many",
            float(0, &[5], &[1]),
            "expected a tensor within its storage of 4 elements, found offset 0, size [5], stride [1]",
        ),
        (
            "an offset of one too many",
            float(1, &[4], &[1]),
            "expected a tensor within its storage of 4 elements, found offset 1, size [4], stride [1]",
        ),
        (
            "a stride beyond the storage",
            float(0, &[2, 2], &[3, 1]),
            "expected a tensor within its storage of 4 elements, found offset 0, size [2, 2], stride [3, 1]",
        ),
        (
            "a huge stride",
            float(0, &[4], &[i64::MAX]),
            "expected a tensor within its storage of 4 elements, found offset 0, size [4], stride [9223372036854775807]",
        ),
        (
            "a huge offset",
            float(i64::MAX, &[1], &[1]),
            "expected a tensor within its storage of 4 elements, found offset 9223372036854775807, size [1], stride [1]",
        ),
        (
            "fewer strides than sizes",
            float(0, &[2, 2], &[1]),
            "expected as many strides as sizes, 8 at most, found 1 and 2",
        ),
        (
            "nine dimensions",
            float(0, &[1; 9], &[1; 9]),
            "expected as many strides as sizes, 8 at most, found 9 and 9",
        ),
        (
            "no elements, but huge",
            float(0, &[0, i64::MAX, i64::MAX], &[1, 1, 1]),
            "expected the ten parameters of LeNet-5, found 1 tensor:  [0, 9223372036854775807, 9223372036854775807]",
        ),
        (
            "no storage",
            archive(&tensor("Float", 7, 0, &[1], &[1])),
            "expected the storage archive/data/7 in the archive, found none",
        ),
        (
            "doubles, twice as long",
            archive(&tensor("Double", 0, 0, &[3], &[1])),
            "expected a tensor within its storage of 2 elements, found offset 0, size [3], stride [1]",
        ),
        (
            "complex numbers",
            archive(&tensor("ComplexFloat", 0, 0, &[1], &[1])),
            ": expected a tensor of floats, found a complex tensor",
        ),
        (
            "no storage, but a string",
            archive(b"ctorch._utils\n_rebuild_tensor_v2\n(X\x01\x00\x00\x00aK\x00))tR"),
            "expected a reference to a storage",
        ),
        (
            "no arguments",
            archive(b"ctorch._utils\n_rebuild_tensor_v2\n)R"),
            "expected storage, offset, size and stride of a tensor",
        ),
    ]);
}

#[test]
fn absurd_pickles() {
    // Each list holds the previous one twice: 2^60 numbers in a few hundred bytes.
    let mut bomb = b"]q\x00".to_vec();
    for _ in 0..60 {
        bomb = [&bomb[..], b"0](h\x00h\x00eq\x00"].concat();
    }
    // Many OrderedDicts of a long list that holds no pairs.
    let in_vain = [
        &b"]("[..],
        &b"N".repeat(100_000),
        b"eq\x000ccollections\nOrderedDict\nq\x010](",
        &b"h\x01h\x00\x85R".repeat(10_000),
        b"e",
    ]
    .concat();
    let mut long_key = tensor("Float", 0, 0, &[1], &[1]);
    let place = long_key.windows(6).position(|window| window == string("0")).unwrap();
    long_key.splice(place..place + 6, string(&"k".repeat(300)));
    // An integer of 200 bytes instead of the 7,777.
    let mut long_size = tensor("Float", 0, 0, &[7777], &[1]);
    let place = long_size.windows(10).position(|window| window == integer(7777)).unwrap();
    long_size.splice(place..place + 10, [&[0x8a, 200][..], &[1; 200]].concat());
    check_table(vec![
        (
            "a command",
            archive(b"cposix\nsystem\n(X\x04\x00\x00\x00exittR"),
            "expected a state dict of LeNet-5, found a call of `posix.system` (not run)",
        ),
        (
            "a command in an entry",
            {
                archive(
                    &[b"}", &string("c1.weight")[..], b"cos\nsystem\n", &string("exit"), b"\x85Rs"]
                        .concat(),
                )
            },
            "expected a state dict of LeNet-5, found a dict without tensors, with a call of `os.system` (not run)",
        ),
        (
            "eval as a state",
            archive(b"cbuiltins\neval\n)R}b"),
            "expected a state dict of LeNet-5, found an object of `builtins.eval`",
        ),
        (
            "a list of lists",
            archive(&[&b"]"[..], &vec![b']'; 100_000], &vec![b'a'; 100_000]].concat()),
            "expected at most 100 levels of nesting, found more",
        ),
        (
            "a tuple of tuples",
            archive(&[&b")"[..], &vec![0x85; 100_000]].concat()),
            "expected at most 100 levels of nesting, found more",
        ),
        (
            "a list in itself",
            archive(b"]q\x00h\x00a"),
            "expected at most 100 levels of nesting, found more",
        ),
        (
            "a memo bomb",
            archive(&bomb),
            "expected at most 1048576 values, found more; --max-memory raises this",
        ),
        (
            "a million references in vain",
            archive(&in_vain),
            "expected at most 1048576 values, found more; --max-memory raises this",
        ),
        ("a storage's key of 300 letters", archive(&long_key), "expected a reference to a storage"),
        (
            "a string beyond the end",
            archive(b"X\xff\xff\xff\xffabc"),
            "expected more of the pickle, found its end at byte 7 of the pickle",
        ),
        (
            "bytes beyond the end",
            archive(b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff"),
            "expected more of the pickle, found its end at byte 11 of the pickle",
        ),
        (
            "text that is no UTF-8",
            archive(b"X\x01\x00\x00\x00\xff"),
            "expected a state dict of LeNet-5, found bytes",
        ),
        (
            "a size of 200 bytes",
            archive(&long_size),
            "expected a tensor's size as a tuple of integers from 0",
        ),
        (
            "an unknown opcode",
            archive(b"\xff"),
            "expected a pickle, found the unknown opcode 0xff at byte 3 of the pickle",
        ),
        (
            "an opcode of protocol 0",
            archive(b"S'a'\n"),
            "expected a pickle, found the unknown opcode 0x53 at byte 3 of the pickle",
        ),
        (
            "an integer of letters",
            archive(b"Iabc\n"),
            "expected an integer in decimal digits at byte 7 of the pickle",
        ),
        (
            "an integer of 60 digits",
            archive(format!("L{}L\n", "9".repeat(60)).as_bytes()),
            "expected an integer in decimal digits at byte 65 of the pickle",
        ),
        (
            "protocol 0",
            zip(&[("a/data.pkl", b"\x80\x00}.")]),
            "expected pickle protocol 1 to 5, found 0 at byte 2 of the pickle",
        ),
        (
            "protocol 6",
            zip(&[("a/data.pkl", b"\x80\x06}.")]),
            "expected pickle protocol 1 to 5, found 6 at byte 2 of the pickle",
        ),
        (
            "an empty stack",
            archive(&[]),
            "expected a value on the stack, found none at byte 3 of the pickle",
        ),
        (
            "nothing to put",
            archive(b"q\x00"),
            "expected a value on the stack, found none at byte 4 of the pickle",
        ),
        (
            "an unknown memo",
            archive(b"h\x05"),
            "expected entry 5 in the memo, found none at byte 4 of the pickle",
        ),
        ("no mark", archive(b"t"), "expected a mark, found none at byte 3 of the pickle"),
        (
            "below a mark",
            archive(b"N(R"),
            "expected a value on the stack, found none at byte 5 of the pickle",
        ),
        (
            "a key without a value",
            archive(b"}(Ku"),
            "expected a state dict of LeNet-5, found an integer",
        ),
        (
            "items of a number",
            archive(b"K\x01K\x02K\x03s"),
            "expected a dict to set items of at byte 9 of the pickle",
        ),
        (
            "an append to a number",
            archive(b"K\x01K\x02a"),
            "expected a list to append to at byte 7 of the pickle",
        ),
        (
            "no end",
            zip(&[("a/data.pkl", b"\x80\x02}")]),
            "expected more of the pickle, found its end at byte 3 of the pickle",
        ),
        (
            "no name after a global",
            archive(b"ctorch"),
            "expected a line, found the end at byte 3 of the pickle",
        ),
    ]);
}

/// Tests each limit from both sides: just below it a file is rejected for its content, not for its
/// size.
#[test]
fn limits() {
    let one =
        |what: &str| format!("expected the ten parameters of LeNet-5, found 1 tensor: {what}");
    // 16 bytes for the storage, and the rest of 64 MiB for the tensor.
    let bytes = |elements| archive(&tensor("Float", 0, 0, &[elements], &[0]));
    let small = tensor("Float", 0, 0, &[1], &[1]);
    let named = |length| archive(&[b"}", &string(&"n".repeat(length))[..], &small, b"s"].concat());
    // The same tensor under many names.
    let many = |count: usize| {
        let entry = |i: usize| [&string(&i.to_string())[..], b"h\x00s"].concat();
        let entries: Vec<u8> = (0..count).flat_map(entry).collect();
        archive(&[&small[..], b"q\x000}", &entries].concat())
    };
    // The bytes of a pickle around its string: protocol, opcode, length, STOP.
    let pickle = |length: usize| archive(&string(&"s".repeat(length - 8)));
    let class = |length: usize| archive(format!("c{}\nname\n", "m".repeat(length)).as_bytes());
    let nested = |levels| archive(&[&b")"[..], &vec![0x85; levels]].concat());
    let tuple = "expected a state dict of LeNet-5, found a tuple";
    let shown = format!(
        "expected a state dict of LeNet-5, found the name `{}...` (not looked up)",
        "m".repeat(80)
    );
    check_table(vec![
        ("64 MiB of tensors", bytes((1 << 24) - 4), &one(" [16777212]")),
        (
            "an element more",
            bytes((1 << 24) - 3),
            "expected tensors of at most 67108864 bytes in all, found more with one of size [16777213]; --max-memory raises this",
        ),
        ("a name of 999 bytes", named(999), &one(&format!("{}... [1]", "n".repeat(80)))),
        (
            "a name of 1,000 bytes",
            named(1000),
            "expected names below 1000 bytes, found a longer one",
        ),
        (
            "10,000 tensors",
            many(10_000),
            "expected the ten parameters of LeNet-5, found 10000 tensors: 0 [1], 1 [1], 2 [1], 3 [1], 4 [1], 5 [1], ...",
        ),
        ("10,001 tensors", many(10_001), "expected at most 10000 tensors, found more"),
        ("a pickle of 4 MiB", pickle(1 << 22), "expected a state dict of LeNet-5, found a string"),
        (
            "a byte more",
            pickle((1 << 22) + 1),
            "expected archive/data.pkl in the archive to be at most 4194304 bytes, found more; --max-memory raises this",
        ),
        ("a class of 256 bytes", class(256), &shown),
        (
            "a class of 257 bytes",
            class(257),
            "expected a name of at most 256 bytes, found 257 at byte 3 of the pickle",
        ),
        ("100 levels", nested(100), tuple),
        ("101 levels", nested(101), "expected at most 100 levels of nesting, found more"),
    ]);
}

/// Creates the directory of a zip with `count` entries that all refer to one empty member, with
/// names of `length` bytes.
fn directory(count: u16, length: u16) -> Vec<u8> {
    let member = zip(&[("a", &[])]);
    let local = member.len() - 22 - 47;
    let mut entry = member[local..][..46].to_vec();
    entry[28..30].copy_from_slice(&length.to_le_bytes());
    let mut bytes = member[..local].to_vec();
    for i in 0..count {
        bytes.extend(&entry);
        bytes.extend(format!("{i:0width$}", width = usize::from(length)).bytes());
    }
    let size = (bytes.len() - local) as u32;
    let mut end = member[member.len() - 22..].to_vec();
    end[8..10].copy_from_slice(&count.to_le_bytes());
    end[10..12].copy_from_slice(&count.to_le_bytes());
    end[12..16].copy_from_slice(&size.to_le_bytes());
    end[16..20].copy_from_slice(&(local as u32).to_le_bytes());
    [bytes, end].concat()
}

#[test]
fn zips_that_lie() {
    let name = "archive/data.pkl";
    let good = zip(&[(name, b"\x80\x02}."), ("archive/version", b"3\n")]);
    // The offset and the size in the second entry of the directory.
    let second = good.windows(4).rposition(|window| window == b"PK\x01\x02").unwrap();
    let changed = |at: usize, value: u32| {
        let mut bytes = good.clone();
        bytes[second + at..][..4].copy_from_slice(&value.to_le_bytes());
        bytes
    };
    check_table(vec![
        (
            "two members in one place",
            changed(42, 0),
            "expected a zip archive, found one whose members overlap",
        ),
        (
            "a member beyond the directory",
            changed(20, 1000),
            "expected a zip archive, found one whose members overlap",
        ),
        (
            "a member beyond the end",
            changed(42, 1 << 30),
            "expected a zip archive, found a broken one (a member lies beyond the end)",
        ),
        (
            "10,000 members",
            directory(10_000, 8),
            "expected a zip archive, found one whose members overlap",
        ),
        (
            "10,001 members",
            directory(10_001, 8),
            "expected at most 10000 members of the zip archive, found more",
        ),
        (
            "a bomb",
            deflated(&[(name, &[b"\x80\x02", &vec![b'0'; 4 << 20][..]].concat())]),
            "expected archive/data.pkl in the archive to be at most 4194304 bytes, found more; --max-memory raises this",
        ),
        (
            "a bomb of a storage",
            deflated(&[
                (name, &[b"\x80\x02", &tensor("Float", 0, 0, &[2], &[1])[..], b"."].concat()),
                ("archive/data/0", &vec![0; (64 << 20) + 1]),
            ]),
            "expected archive/data/0 in the archive to be at most 67108864 bytes, found more; --max-memory raises this",
        ),
    ]);
}

/// Creates a file in the format before PyTorch 1.6: the value, the keys, then the storages.
fn legacy(value: &[u8], keys: &[u8], storages: &[u8]) -> Vec<u8> {
    let start = fs::read(forms().join("legacy_state_dict.pth")).unwrap();
    // The magic number, the version and the system end at the third STOP, before the value's
    // protocol.
    let end = start.windows(3).enumerate().filter(|(_, w)| *w == b".\x80\x02").nth(2).unwrap().0;
    [&start[..=end], b"\x80\x02", value, b".\x80\x02", keys, b".", storages].concat()
}

#[test]
fn broken_older_files() {
    let one = tensor("Float", 0, 0, &[4], &[1]);
    let count = |count: u64| count.to_le_bytes().to_vec();
    let key = [&b"]"[..], &string("0"), b"a"].concat();
    let whole = [count(4), vec![0; 16]].concat();
    let mut big = legacy(&one, &key, &whole);
    let place = big.windows(13).position(|window| window == b"little_endian").unwrap();
    let flag = place + big[place..].iter().position(|&byte| byte == 0x88).unwrap();
    big[flag] = 0x89;
    let mut version = legacy(&one, &key, &whole);
    let place = version.windows(3).position(|w| w == b"M\xe9\x03").unwrap();
    version[place + 1] = 0;
    check_table(vec![
        (
            "whole",
            legacy(&one, &key, &whole),
            "expected the ten parameters of LeNet-5, found 1 tensor:  [4]",
        ),
        ("big-endian", big, "expected byte order little, found big"),
        ("another version", version, "expected version 1001 of torch.save's old format"),
        ("no storage", legacy(&one, b"]", &[]), "expected the storage 0 in the file, found none"),
        (
            "a storage of 2^61 elements",
            legacy(&one, &key, &count(1 << 61)),
            "expected more of the storage 0, found the file's end",
        ),
        (
            "a storage of 2^64 - 1 elements",
            legacy(&one, &key, &count(u64::MAX)),
            "expected more of the storage 0, found the file's end",
        ),
        (
            "a storage one byte short",
            legacy(&one, &key, &whole[..23]),
            "expected more of the storage 0, found the file's end",
        ),
        (
            "no count",
            legacy(&one, &key, &whole[..7]),
            "expected more of the storage 0, found the file's end",
        ),
        (
            "a key twice",
            legacy(&one, &[&b"]"[..], &string("0"), b"q\x00ah\x00a"].concat(), &whole),
            "expected each storage once, found 0 again",
        ),
        (
            "a key that nothing refers to",
            legacy(b"}", &key, &whole),
            "expected a storage of a known type, found 0 of another",
        ),
        (
            // The items are an argument of OrderedDict; strings are bytes; the storage is a view.
            "a state dict of Python 2 and PyTorch 0.1",
            legacy(
                &[
                    b"ccollections\nOrderedDict\n](](U\x01wctorch._utils\n_rebuild_tensor\n((",
                    &b"U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x04(U\x01vK\x01K\x03ttQ"[..],
                    b"K\x01ctorch\nSize\n(K\x02t\x85R(K\x01ttRee\x85R",
                ]
                .concat(),
                &key,
                &whole,
            ),
            "expected the ten parameters of LeNet-5, found 1 tensor: w [2]",
        ),
        (
            "keys that are no list",
            legacy(&one, b"}", &whole),
            "expected the keys of the storages as a list",
        ),
        (
            "a key that is no string",
            legacy(&one, b"]K\x00a", &whole),
            "expected the key of a storage as a string",
        ),
    ]);
}

/// No file takes more memory than the default limit, whatever its headers state. Tested with the
/// largest file that each limit accepts, and the smallest that it rejects.
#[test]
fn memory_stays_within_the_limit() {
    let folder = temp();
    let path = folder.path().join("file");
    let peak = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        peak_memory("inspect", &path)
    };
    let without = peak(&zip(&[]));
    let limit = Limits::default();
    let file = |length: u64| {
        let mut bytes = vec![0; length as usize];
        bytes[..4].copy_from_slice(b"PK\x03\x04");
        bytes
    };
    let pickle = limit.pickle_bytes();
    let memo = [&b"]"[..], &string(&"s".repeat(pickle / 2)), b"q\x00a"].concat();
    // A list of a thousand references to one value, a thousand times, makes a million values.
    let thousands = |value: &[u8]| {
        let list = [value, b"q\x000](", &b"h\x00".repeat(1000), b"eq\x01"].concat();
        archive(&[&list[..], b"0](", &b"h\x01".repeat(1000), b"e"].concat())
    };
    let tensors = (limit.tensor_bytes() / 4 - 4) as i64;
    let header = |length: usize| {
        let entry = |i| format!(r#""{i:05}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#);
        let entries: Vec<_> = (0..length / 60).map(entry).collect();
        with_header(&format!("{{{}}}", entries.join(",")), &[])
    };
    for (what, bytes) in [
        ("a file at its limit", file(limit.file_bytes())),
        ("a file over its limit", file(limit.file_bytes() + 1)),
        ("lists", archive(&vec![b']'; pickle - 3])),
        ("dicts of marks", archive(&b"(d".repeat(pickle / 2 - 2))),
        ("tuples", archive(&b"))".repeat(pickle / 2 - 2))),
        ("a string, many times", archive(&[&memo[..], &b"h\x00a".repeat(pickle / 8)].concat())),
        ("a long name, many times", thousands(format!("c{}\na\n", "m".repeat(250)).as_bytes())),
        ("a tensor, many times", thousands(&tensor("Float", 0, 0, &[4], &[1]))),
        (
            "a tensor of 8 dimensions, many times",
            thousands(&tensor("Float", 0, 0, &[1; 8], &[1; 8])),
        ),
        ("an empty tensor, many times", thousands(&tensor("Float", 0, 0, &[0], &[1]))),
        ("a call, many times", thousands(b"ca\nb\n)R}b")),
        ("tensors at their limit", archive(&tensor("Float", 0, 0, &[tensors], &[0]))),
        ("bytes in place of numbers", archive(&tensor("Byte", 0, 0, &[4 * tensors], &[0]))),
        ("members at their limit", directory(10_000, 25_000)),
        ("safetensors of many names", header(pickle)),
    ] {
        let bytes_taken = peak(&bytes).saturating_sub(without);
        println!("{what}: {} MiB", bytes_taken >> 20);
        assert!(bytes_taken < limit.memory, "{what}: {} MiB", bytes_taken >> 20);
    }
}

/// Code that Python would run when it loads a file does not run here, and is named in the error.
#[test]
fn nothing_is_executed() {
    let reference = forms().join("refused/call_in_reference.pth");
    assert_eq!(
        Weights::read(&reference).unwrap_err().to_string(),
        format!(
            "{}: expected a state dict of LeNet-5, found a tuple, with a call of `posix.system` (not run)",
            reference.display()
        )
    );
    for (file, holds) in [
        ("call", "a call of `posix.system` (not run)"),
        ("call_in_dict", "a dict without tensors, with a call of `posix.system` (not run)"),
        ("call_in_list", "a dict without tensors, with a call of `posix.system` (not run)"),
        (
            "call_in_state",
            "an object of `__main__.CallsSystemInState`, with a call of `posix.system` (not run)",
        ),
    ] {
        for suffix in ["", "_legacy"] {
            let path = forms().join(format!("refused/{file}{suffix}.pth"));
            let message = Weights::read(&path).unwrap_err().to_string();
            let expected =
                format!("{}: expected a state dict of LeNet-5, found {holds}", path.display());
            assert_eq!(message, expected);
        }
    }
    assert!(!forms().join("refused/did-run").exists());
}

/// Files of users that are no LeNet-5, or hold no plain numbers: the error describes the content.
#[test]
fn other_files_of_pytorch() {
    let ten = "expected the ten parameters of LeNet-5, found";
    let dict = "expected a state dict of LeNet-5, found";
    let container = "expected torch.save's archive or pickles, TorchScript or safetensors, found";
    let floats = "expected a tensor of floats, found";
    let table = [
        ("sparse.pth", format!("c3.weight: {floats} a sparse tensor")),
        ("complex.pth", format!("c3.weight: {floats} a complex tensor")),
        ("meta.pth", format!("c3.weight: {floats} a tensor of the meta device, without numbers")),
        ("float8.pth", format!("c3.weight: {floats} a tensor of torch.float8_e4m3fn")),
        ("nested.pth", format!("c3.weight: {floats} a nested tensor")),
        ("integers.pth", "c3.weight: expected floats, found int16".to_owned()),
        (
            "nan.pth",
            "c3.weight: expected finite numbers, found 2400 that are not (NaN or infinite)"
                .to_owned(),
        ),
        ("quantised_tensor.pth", format!("c3.weight: {floats} a quantised tensor")),
        (
            "quantised.pth",
            format!("fc1._packed_params._packed_params.0: {floats} a quantised tensor"),
        ),
        (
            "quantised_legacy.pth",
            format!("fc1._packed_params._packed_params.0: {floats} a quantised tensor"),
        ),
        (
            "quantised.pt",
            format!("fc1._packed_params._packed_params.0: {floats} a quantised tensor"),
        ),
        ("quantised_static.pth", format!("module.features.0.weight: {floats} a quantised tensor")),
        (
            "quantised_whole.pth",
            format!(
                "{ten} 6 tensors: conv1.weight [6, 1, 5, 5], conv1.bias [6], conv2.weight [16, 6, \
                 5, 5], conv2.bias [16], conv3.weight [120, 16, 5, 5], conv3.bias [120]; its \
                 layers are quantised"
            ),
        ),
        (
            "residual.pth",
            format!(
                "{ten} 60 tensors: layer0.0.conv1.weight [8], layer0.0.bn1.weight [8], \
                 layer0.0.bn1.bias [8], layer0.0.bn1.running_mean [8], layer0.0.bn1.running_var \
                 [8], layer1.0.conv1.weight [8], ..."
            ),
        ),
        ("frozen.pt", format!("{dict} TorchScript without parameters")),
        (
            "export.pt2",
            "expected a PyTorch archive, found a torch.export program: save its state_dict in \
             Python instead"
                .to_owned(),
        ),
        (
            "batch_norm.pth",
            format!(
                "{ten} 15 tensors: 5.num_batches_tracked [], 0.weight [6, 1, 5, 5], 0.bias [6], \
                 1.weight [16, 6, 5, 5], 1.bias [16], 2.weight [120, 16, 5, 5], ..."
            ),
        ),
        ("colour.pth", "c1.weight: expected shape [6, 1, 5, 5], found [6, 3, 5, 5]".to_owned()),
        (
            "small_kernels.pth",
            format!(
                "{ten} 6 tensors: 0.weight [32, 1, 3, 3], 0.bias [32], 1.weight [64, 32, 3, 3], \
                 1.bias [64], 2.weight [128, 9216], 2.bias [128]"
            ),
        ),
        (
            "perceptron.pth",
            format!(
                "{ten} 6 tensors: 0.weight [300, 784], 0.bias [300], 1.weight [100, 300], 1.bias \
                 [100], 2.weight [10, 100], 2.bias [10]"
            ),
        ),
        (
            "many.pth",
            format!(
                "{ten} 300 tensors: layer0.weight [1], layer1.weight [1], layer2.weight [1], \
                 layer3.weight [1], layer4.weight [1], layer5.weight [1], ..."
            ),
        ),
        (
            "two.pth",
            "expected one LeNet-5, found others under first, second: choose by --key, or save one of them"
                .to_owned(),
        ),
        ("optimizer.pth", format!("{dict} a dict without tensors")),
        ("dataset.pth", format!("{ten} 2 tensors: images [8, 28, 28], labels [8]")),
        ("tensor.pth", format!("{ten} 1 tensor:  [3]")),
        ("text.pth", format!("{dict} a string")),
        ("numpy_dict.pth", format!("{dict} a dict without tensors, with NumPy arrays")),
        ("pickle.pth", format!("{container} a pickle that torch.save did not write")),
        ("numpy.npz", "expected a PyTorch archive, found NumPy arrays (.npz): in Python, torch.save({name: \
             torch.tensor(array) for name, array in numpy.load(FILE).items()}, 'weights.pth')"
                .to_owned()),
        ("numpy.npy", format!("{container} a NumPy array")),
    ];
    let mut wrong = String::new();
    for (file, expected) in table {
        let path = forms().join("refused").join(file);
        let found = Weights::read(&path).map_or_else(|e| e.to_string(), |_| "was read".to_owned());
        if found != format!("{}: {expected}", path.display()) {
            wrong += &format!("{file}\n  expected {expected}\n  found    {found}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Creates a safetensors file with this header.
fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

#[test]
fn broken_safetensors() {
    let one = |dtype, shape, end| {
        format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{end}]}}}}"#)
    };
    let length = |length: u64| [&length.to_le_bytes()[..], b"{}      "].concat();
    let stored = |json: &str| {
        let good = random(&ModelConfig::default()).to_safetensors();
        let size = u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
        let mut header: serde_json::Value = serde_json::from_slice(&good[8..][..size]).unwrap();
        let metadata = header["__metadata__"].as_object_mut().unwrap();
        metadata.remove("lenet5.crc32").expect("each file of ours has a checksum");
        metadata.insert("lenet5".to_owned(), json.into());
        with_header(&header.to_string(), &good[8 + size..])
    };
    let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    check_table(vec![
        (
            "a huge header",
            length(u64::MAX),
            "expected a header of at most 4194304 bytes, found 18446744073709551615; --max-memory raises this",
        ),
        (
            "a header over the limit",
            length((1 << 22) + 1),
            "expected a header of at most 4194304 bytes, found 4194305; --max-memory raises this",
        ),
        (
            "a header at the limit",
            length(1 << 22),
            "expected safetensors, found a broken file (its header ends beyond the file)",
        ),
        (
            "a header beyond the end",
            length(9),
            "expected safetensors, found a broken file (its header ends beyond the file)",
        ),
        (
            "a header that ends early",
            length(1),
            "expected safetensors, found a broken file (its header is no JSON object: EOF while parsing an object at line 1 column 1)",
        ),
        ("no tensors", length(8), "expected a state dict of LeNet-5, found a dict without tensors"),
        (
            "a header that is no JSON",
            with_header("{hello}", &[]),
            "expected safetensors, found a broken file (its header is no JSON object: key must be a string at line 1 column 2)",
        ),
        (
            "a header of many levels",
            with_header(&deep, &[]),
            "expected safetensors, found a broken file (its header is no JSON object: recursion limit exceeded at line 1 column 132)",
        ),
        (
            "an unknown type",
            with_header(&one("F128", "[1]", 16), &[0; 16]),
            "a: expected a tensor of floats, found a tensor of F128",
        ),
        (
            "a type of no use",
            with_header(&one("F8_E4M3", "[1]", 1), &[0; 1]),
            "a: expected a tensor of floats, found a tensor of F8_E4M3",
        ),
        (
            "offsets for another shape",
            with_header(&one("F32", "[3]", 8), &[0; 8]),
            "expected safetensors, found a broken file (a: expected the bytes of float32 elements of shape [3], found 8 bytes)",
        ),
        (
            "an absurd shape",
            with_header(&one("F32", "[4294967296,4294967296,4]", 8), &[0; 8]),
            "expected safetensors, found a broken file (a: expected the bytes of float32 elements of shape [4294967296, 4294967296, 4], found 8 bytes)",
        ),
        (
            "a size below 0",
            with_header(&one("F32", "[-1]", 4), &[0; 4]),
            "expected safetensors, found a broken file (a: invalid value: integer `-1`, expected usize)",
        ),
        (
            "less data than the offsets say",
            with_header(&one("F32", "[2]", 8), &[0; 7]),
            "expected safetensors, found a broken file (a: bytes 0 to 8 do not follow the others)",
        ),
        (
            "more data than the offsets say",
            with_header(&one("F32", "[2]", 8), &[0; 9]),
            "expected safetensors, found a broken file (expected 8 bytes of data, found 9)",
        ),
        (
            "one tensor",
            with_header(&one("F32", "[2]", 8), &[0; 8]),
            "expected the ten parameters of LeNet-5, found 1 tensor: a [2]",
        ),
        (
            "settings that are no JSON",
            stored("{"),
            "the stored settings are broken (EOF while parsing an object at line 1 column 1)",
        ),
        (
            "settings that are a list",
            stored("[]"),
            "the stored settings are broken (expected a JSON object)",
        ),
        (
            "pixels beyond all numbers",
            stored(r#"{"std":1e-320}"#),
            "the stored settings are broken (mean and std: expected finite pixels, found mean 0e0 and std 1e-320)",
        ),
        (
            "settings of another kind",
            stored(r#"{"activation":"gelu"}"#),
            "the stored settings are broken (unknown variant `gelu`, expected one of `tanh`, `relu`, `sigmoid`, `scaled-tanh` at line 1 column 20)",
        ),
        (
            "settings that are unknown",
            stored(r#"{"layers":3}"#),
            "the stored settings are broken (unknown field `layers`, expected one of `network`, `activation`, `pooling`, `layer_order`, `hidden_activation`, `c5`, `classes`, `mean`, `std`, `input`, `rbf_scale`, `train_rbf` at line 1 column 9)",
        ),
        (
            "settings out of range",
            stored(r#"{"classes":1}"#),
            "the stored settings are broken (classes: expected 2 to 1000, found 1)",
        ),
        (
            "settings that do not fit",
            stored(r#"{"c5":"linear"}"#),
            "c5.weight: expected shape [120, 400], found [120, 16, 5, 5]",
        ),
    ]);
}

/// Returns a valid file of each format.
fn whole_files() -> Vec<(&'static str, Vec<u8>)> {
    let python = |name: &str| fs::read(forms().join(name)).unwrap();
    let ours = |format| weights::to_bytes(&random(&ModelConfig::default()), format).unwrap();
    vec![
        ("our TorchScript", ours(Format::TorchScript)),
        ("our state dict", ours(Format::StateDict)),
        ("our safetensors", ours(Format::SafeTensors)),
        ("Python's checkpoint", python("checkpoint_model_state_dict.pth")),
        ("Python's older checkpoint", python("legacy_checkpoint.pth")),
        ("Python's older module", python("legacy.pth")),
        ("Python's TorchScript", python("traced.pt")),
        ("Python's safetensors", python("model.safetensors")),
    ]
}

#[test]
fn truncated_files() {
    let reader = Reader::new();
    for (what, bytes) in whole_files() {
        reader.read(&bytes).unwrap();
        let ends = 400.min(bytes.len() / 2);
        // All offsets at both ends, where headers and directories are, and every few bytes in
        // between.
        let middle = (ends..bytes.len() - ends).step_by(4999);
        for length in (0..ends).chain(middle).chain(bytes.len() - ends..bytes.len()) {
            let message = reader.error(&format!("{what}, {length} bytes"), &bytes[..length]);
            assert!(message.starts_with("expected "), "{what}, {length} bytes: {message}");
        }
    }
    // Every offset of a pickle in an otherwise valid archive.
    let good = [b"\x80\x02", &tensor("Float", 0, 0, &[2, 2], &[2, 1])[..], b"."].concat();
    for length in 0..good.len() {
        let bytes = zip(&[("a/data.pkl", &good[..length]), ("a/data/0", &[0; 16])]);
        let message = reader.error("a pickle", &bytes);
        assert!(message.starts_with("expected "), "{length}: {message}");
        assert!(message.contains(" at byte "), "{length}: {message}");
    }
}

/// A change of a few bytes.
#[derive(Clone, Debug)]
enum Change {
    Set(Index, u8),
    Flip(Index, u8),
    Remove(Index, usize),
    Insert(Index, Vec<u8>),
    Copy(Index, Index, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let small = prop_oneof![Just(0u8), Just(1), Just(0x7f), Just(0x80), Just(0xff), any::<u8>()];
    let at = any::<Index>;
    prop_oneof![
        (at(), small).prop_map(|(i, byte)| Change::Set(i, byte)),
        (at(), 0u8..8).prop_map(|(i, bit)| Change::Flip(i, bit)),
        (at(), 1usize..9).prop_map(|(i, n)| Change::Remove(i, n)),
        (at(), proptest::collection::vec(any::<u8>(), 1..9))
            .prop_map(|(i, v)| Change::Insert(i, v)),
        (at(), at(), 1usize..9).prop_map(|(from, to, n)| Change::Copy(from, to, n)),
    ]
}

fn apply(changes: &[Change], bytes: &mut Vec<u8>) {
    for change in changes {
        if bytes.is_empty() {
            return;
        }
        let length = bytes.len();
        let range = |start: usize, n: usize| start..(start + n).min(length);
        match change {
            Change::Set(i, byte) => bytes[i.index(length)] = *byte,
            Change::Flip(i, bit) => bytes[i.index(length)] ^= 1 << bit,
            Change::Remove(i, n) => drop(bytes.drain(range(i.index(length), *n))),
            Change::Insert(i, new) => {
                let i = i.index(length);
                bytes.splice(i..i, new.iter().copied());
            }
            Change::Copy(from, to, n) => {
                let part = bytes[range(from.index(length), *n)].to_vec();
                let to = range(to.index(length), part.len());
                bytes.splice(to, part);
            }
        }
    }
}

/// Runs `test` with random changes, which are the same in each run.
fn with_changes(cases: u32, test: impl Fn(Vec<Change>) -> Result<(), TestCaseError>) {
    let config = Config {
        cases,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..Config::default()
    };
    let changes = proptest::collection::vec(change(), 1..5);
    TestRunner::new(config).run(&changes, test).unwrap();
}

#[test]
#[ignore = "exhaustive: make test-all"]
fn changed_files_never_panic() {
    let reader = Reader::new();
    let files = whole_files();
    with_changes(100, |changes| {
        for (what, bytes) in &files {
            // The first and the last kilobyte hold the structure; the numbers between them are
            // skipped.
            for part in [0..bytes.len(), 0..2048, bytes.len() - 2048..bytes.len()] {
                let mut middle = bytes[part.clone()].to_vec();
                apply(&changes, &mut middle);
                let changed = [&bytes[..part.start], &middle, &bytes[part.end..]].concat();
                if let Err(message) = reader.read(&changed) {
                    prop_assert!(!message.is_empty() && message.len() < 2000, "{what}: {message}");
                }
            }
        }
        Ok(())
    });
}

#[test]
fn changed_pickles_never_panic() {
    // The checksums of the zip are corrected, so that the changes reach the code behind them.
    let bytes = fs::read(forms().join("checkpoint_model_state_dict.pth")).unwrap();
    let mut members = Vec::new();
    let mut archive = zip::ZipArchive::new(Cursor::new(&bytes)).unwrap();
    for i in 0..archive.len() {
        let mut member = archive.by_index(i).unwrap();
        let mut content = Vec::new();
        std::io::copy(&mut member, &mut content).unwrap();
        members.push((member.name().unwrap().into_owned(), content));
    }
    let data = members.iter().position(|(name, _)| name.ends_with("data.pkl")).unwrap();
    let good = members[data].1.clone();
    let reader = Reader::new();
    let (read, refused) = (Cell::new(0), Cell::new(0));
    let members = RefCell::new(members);
    with_changes(1000, |changes| {
        let mut pickle = good.clone();
        apply(&changes, &mut pickle);
        let _ = pickle::parse(&pickle, &Limits::default());
        let mut members = members.borrow_mut();
        members[data].1 = pickle;
        let files: Vec<_> = members.iter().map(|(n, c)| (n.as_str(), c.as_slice())).collect();
        let count = if reader.read(&zip(&files)).is_ok() { &read } else { &refused };
        count.set(count.get() + 1);
        Ok(())
    });
    let (read, refused) = (read.get(), refused.get());
    assert!(read > 10 && refused > 10, "{read} read, {refused} refused: the changes do too much");
}

#[test]
fn weights_are_no_checkpoint() {
    let folder = temp();
    let path = folder.path().join("weights.pth");
    let error = |bytes: Vec<u8>| {
        fs::write(&path, bytes).unwrap();
        Checkpoint::read(&path).unwrap_err().to_string().replace(&path.display().to_string(), "F")
    };
    let weights = random(&ModelConfig::default());
    assert_eq!(
        error(weights.to_state_dict().unwrap()),
        "F: expected a checkpoint of lenet5 with the entry lenet5, found none"
    );
    let other = "F: expected a zip archive, found another form";
    assert_eq!(error(weights.to_safetensors()), other);
    assert_eq!(error(vec![]), "F: expected a zip archive, found an empty file");
    assert_eq!(
        error(b"version https://git-lfs.github.com/spec/v1\n".to_vec()),
        "F: expected a zip archive, found a Git LFS pointer in place of the file: run `git lfs pull`"
    );
}

#[test]
fn paths_in_messages() {
    let folder = temp();
    let error = |path: &Path| Weights::read(path).unwrap_err().to_string();
    let missing = folder.path().join("missing.pt");
    let expected = format!("{}: No such file or directory (os error 2)", missing.display());
    assert_eq!(error(&missing), expected);
    let expected = format!("{}: Is a directory (os error 21)", folder.path().display());
    assert_eq!(error(folder.path()), expected);
}
