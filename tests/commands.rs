//! Tests of the programs: output, files, exit codes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use lenet5::data::{Dataset, Split};
use lenet5::evaluate::{Evaluation, Misclassified, Rejection, logits};
use lenet5::weights::Weights;
use serde_json::Value;
use tch::nn::Module;
use tch::{Device, Kind};

use crate::util::{Bits, Ended, program, run, small_mnist, temp, tensors, trained};

const PROGRAMS: [&str; 4] = ["train", "evaluate", "convert", "summary"];

fn json(text: &str) -> Value {
    assert_eq!(text.lines().count(), 1, "one object on one line: {text}");
    serde_json::from_str(text).unwrap()
}

/// Runs `evaluate` on the small MNIST, with the trained weights unless others are given.
fn evaluate(arguments: &[&str]) -> Ended {
    let mut command = program("evaluate");
    command.args(["--threads=1", "--device=cpu"]).args(arguments);
    if !arguments.iter().any(|argument| argument.starts_with("--data")) {
        command.arg("--data").arg(small_mnist());
    }
    if !arguments.iter().any(|argument| argument.starts_with("--weights")) {
        command.arg("--weights").arg(trained());
    }
    command.output().unwrap().into()
}

fn option(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

#[test]
fn help_and_version() {
    for name in PROGRAMS {
        let help = run(name, ["--help"]);
        assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
        assert!(help.stdout.contains(&format!("Usage: {name}")), "{}", help.stdout);
        assert_eq!(run(name, ["-h"]).success(), help.stdout);
        for line in help.stdout.lines() {
            assert!(line.chars().count() <= 100, "{name}: {line}");
        }
        let manual = run(name, ["--man"]).success();
        assert!(manual.contains(&format!(".SH NAME\n{name} ")), "{manual}");
        assert!(manual.len() > help.stdout.len());
        for shell in ["bash", "zsh", "fish"] {
            let completions = run(name, ["--completions", shell]).success();
            assert!(completions.contains(&format!("{name} ")), "{name} {shell}: {completions}");
        }
        let version = run(name, ["--version"]).success();
        assert_eq!(version, format!("lenet5 {}\n", env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    let table: &[(&str, &[&str], &str)] = &[
        ("train", &["--frobnicate"], "unexpected argument '--frobnicate'"),
        ("train", &["--epochs", "many"], "invalid value 'many'"),
        ("train", &["--optimizer", "sgdd"], "[possible values: sgd, adam, adamw, sdlm]"),
        ("train", &["--device", "gpu"], "expected auto, cpu, cuda, cuda:N or mps, found gpu"),
        ("train", &["--device", "cuda:x"], "expected auto, cpu, cuda, cuda:N or mps, found cuda:x"),
        ("train", &["--resume", "run", "--lr", "0.1"], "cannot be used with"),
        ("train", &["--resume", "run", "--seed", "2"], "cannot be used with"),
        ("train", &["--resume", "run", "--out", "other"], "cannot be used with"),
        ("train", &["--resume", "run", "--activation", "relu"], "cannot be used with"),
        ("train", &["--init", "a.pt", "--classes", "12"], "cannot be used with"),
        ("evaluate", &["--split", "both"], "[possible values: train, test]"),
        ("evaluate", &["--weights", "a.pt", "--torchscript", "a.pt"], "cannot be used with"),
        ("evaluate", &["--max-memory", "0"], "0 is not in 1..=1048576"),
        ("convert", &[], "<IN>"),
        ("convert", &["in.pt", "--detect"], "<OUT>"),
        ("convert", &["in.pt", "out.pt", "--data", "folder"], "--detect"),
        ("summary", &["extra"], "unexpected argument 'extra'"),
    ];
    for &(name, arguments, message) in table {
        let ended = run(name, arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{name} {arguments:?}");
        assert!(ended.stderr.contains(message), "{name} {arguments:?}: {}", ended.stderr);
    }
}

#[test]
fn settings_out_of_range() {
    let table: [(&[&str], &str); 16] = [
        (&["--batch-size=0"], "batch-size: expected a number above 0, found 0"),
        (&["--batch-size=-3"], "batch-size: expected a number above 0, found -3"),
        (&["--limit=0"], "limit: expected a number above 0, found 0"),
        (&["--lr=0"], "lr: expected a number above 0, found 0"),
        (&["--lr=NaN"], "lr: expected a number above 0, found NaN"),
        (&["--lr=inf"], "lr: expected a number above 0, found inf"),
        (&["--classes=1"], "classes: expected 2 to 1000, found 1"),
        (&["--std=0"], "std: expected a positive number, found 0"),
        (&["--momentum=-1"], "momentum: expected 0 or more, found -1"),
        (&["--schedule=step", "--step-size=0"], "step-size: expected 1 or more epochs, found 0"),
        (&["--step-size=2"], "--step-size and --gamma go with --schedule step only"),
        (
            &["--optimizer=adam", "--momentum=0.9"],
            "--momentum, --dampening and --nesterov go with --optimizer sgd only",
        ),
        (&["--threads=0"], "threads: expected 1 to 1024, found 0"),
        // These values would be 0 or infinite in float32.
        (
            &["--optimizer=sdlm", "--model=original", "--mu=1e-300"],
            "mu: expected a number above 0, found 1e-300",
        ),
        (
            &["--model=original", "--rbf-scale=1e-300"],
            "rbf-scale: expected a positive number, found 1e-300",
        ),
        (&["--model=original", "--j=1e300"], "j: expected a finite number, found 1e300"),
    ];
    let folder = temp();
    let out = folder.path().join("run");
    for (arguments, message) in table {
        let ended = program("train")
            .args(arguments)
            .arg(option("out", &out))
            .arg("--device=cpu")
            .output()
            .map(Ended::from)
            .unwrap();
        ended.fails_with(message);
        assert!(!out.exists(), "a run that never began leaves no folder");
    }
}

#[test]
fn missing_and_unreadable_files_are_named() {
    let folder = temp();
    let missing = folder.path().join("missing");
    let missing_error = format!("{}: No such file or directory (os error 2)", missing.display());
    let a_folder = format!("{}: Is a directory (os error 21)", folder.path().display());
    let out = folder.path().join("out.pt");

    let weights_error = |path| evaluate(&[&option("weights", path)]);
    weights_error(folder.path()).fails_with(&a_folder);
    let ended = weights_error(&missing);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains(&missing.display().to_string()), "{}", ended.stderr);
    evaluate(&[&option("data", &missing)]).fails_with(&missing_error);
    run("convert", [&missing, &out]).fails_with(&missing_error);
    run("convert", [folder.path(), &out]).fails_with(&a_folder);
    assert!(!out.exists());
    run("train", [option("init", &missing), option("out", &out)]).fails_with(&missing_error);
    run("train", [option("data", &missing), option("out", &out)]).fails_with(&missing_error);
    assert!(!out.exists());
    run("train", [option("resume", &missing)]).fails_with(&format!(
        "{}: No such file or directory (os error 2)",
        missing.join("config.json").display()
    ));
}

const NOTHING_THERE: &str = "No such file or directory (os error 2)";

#[test]
fn results_that_cannot_be_written_are_named() {
    let folder = temp();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let within = file.join("run");
    let place = "name another place for the results";
    let a_file = format!("{}: expected a folder or nothing, found a file; {place}", file.display());
    let a_part = format!(
        "{}: the folder cannot be made: Not a directory (os error 20); {place}",
        within.display()
    );
    let train = |out: &Path| {
        let arguments = ["--device=cpu", "--limit=8", "--epochs=1"].map(str::to_owned);
        let files = [option("data", small_mnist()), option("out", out)];
        run("train", arguments.into_iter().chain(files))
    };
    for (path, message) in [(&file, &a_file), (&within, &a_part)] {
        train(path).fails_with(message);
        evaluate(&[&option("report", path)]).fails_with(message);
    }
    let nowhere = folder.path().join("missing/file.png");
    let message = format!("{}: cannot be written: {NOTHING_THERE}", nowhere.display());
    evaluate(&[&option("logits", &nowhere)]).fails_with(&message);
    run("summary", [option("distortions", &nowhere)]).fails_with(&message);
    run("summary", ["--activations=3".to_owned(), option("out", &nowhere)]).fails_with(&message);
    if cfg!(target_os = "linux") {
        // Even root cannot write there.
        train("/proc/x".as_ref())
            .fails_with(&format!("/proc/x: the folder cannot be made: {NOTHING_THERE}; {place}"));
        train("/proc/self".as_ref())
            .fails_with(&format!("/proc/self: cannot be written: {NOTHING_THERE}"));
    }
    let ended = run("train", ["--out="]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("a value is required for '--out <DIR>'"), "{ended:?}");
}

/// Creates a named pipe.
fn pipe(path: &Path) {
    let status = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(status.success());
}

#[test]
fn what_is_no_file_does_not_block() {
    let folder = temp();
    let path = |name: &str| folder.path().join(name);
    let silent = path("pipe");
    pipe(&silent);
    let nobody = "expected data, found a pipe that nobody writes to";
    let device = "expected a file, found a device (of characters)";
    let zero = format!("/dev/zero: {device}");
    run("convert", ["/dev/zero", "out.pt"]).fails_with(&zero);
    run("evaluate", ["--weights=/dev/zero"]).fails_with(&zero);
    run("evaluate", ["--torchscript=/dev/zero"]).fails_with(&zero);
    run("evaluate", [format!("--torchscript={}", silent.display())]).fails_with(&format!(
        "{}: expected a file, found a pipe: write its data to a file",
        silent.display()
    ));
    run("train", ["--init=/dev/zero", "--out=never"]).fails_with(&zero);
    run("summary", ["--activations=/dev/zero", "--out=never.png"]).fails_with(&zero);
    let config = path("config.json");
    pipe(&config);
    run("train", [option("resume", folder.path())])
        .fails_with(&format!("{}: {nobody}", config.display()));
}

#[test]
fn devices() {
    // No test machine has eight GPUs: the index is invalid, there is no GPU, or libtorch has no
    // CUDA.
    let ended = run("evaluate", [option("weights", trained()), "--device=cuda:7".to_owned()]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
    assert!(ended.stderr.starts_with("error: --device cuda"), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    if !cfg!(target_os = "macos") {
        run("evaluate", [option("weights", trained()), "--device=mps".to_owned()]).fails_with(
            "--device mps: this libtorch or this machine has no Metal support; use --device cpu",
        );
    }
}

#[test]
fn summary() {
    let text = run("summary", [""; 0]).success();
    let total = "total                         61,706       429,342         418,096";
    assert_eq!(text.lines().last(), Some(total));
    assert_eq!(text.lines().count(), 9);

    let json = json(&run("summary", ["--json"]).success());
    let layers = json["layers"].as_array().unwrap();
    let names: Vec<_> = layers.iter().map(|layer| layer["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["c1", "s2", "c3", "s4", "c5", "f6", "output"]);
    assert_eq!(layers[2]["output_shape"], serde_json::json!([16, 10, 10]));
    for key in ["parameters", "connections", "macs"] {
        let sum: i64 = layers.iter().map(|layer| layer[key].as_i64().unwrap()).sum();
        assert_eq!(json["total"][key], sum, "{key}");
    }
    assert_eq!(json["total"]["parameters"], 61_706);
}

#[test]
fn evaluate_prints_and_writes() {
    let folder = temp();
    let file = folder.path().join("logits.safetensors");
    let report = folder.path().join("new/report");
    let ended = evaluate(&["--json", &option("logits", &file), &option("report", &report)]);
    let json = json(&ended.success());
    for name in ["confusion.png", "rejection.png", "misclassified.png"] {
        assert!(crate::util::picture_size(&report.join(name)).0 > 400, "{name}");
    }

    // The library gives the same results.
    tch::set_num_threads(1);
    let data = Dataset::read(small_mnist(), Split::Test, 10).unwrap();
    let model = lenet5::model::LeNet5::load(trained(), Device::Cpu).unwrap();
    let expected = logits(&|images| Ok(model.forward(images)), &data, model.config()).unwrap();
    let tensors = tensors(&file);
    assert_eq!(tensors.len(), 2);
    assert_eq!((tensors["labels"].kind(), tensors["labels"].size()), (Kind::Int64, vec![500]));
    let mut bits = Bits::default();
    bits.compare("logits", &tensors["logits"], &expected);
    bits.compare("labels", &tensors["labels"], data.labels());
    bits.check(2);

    let evaluation = Evaluation::new(&expected, data.labels()).unwrap();
    assert_eq!(json["samples"], 500);
    assert_eq!(json["errors"], evaluation.errors);
    assert_eq!(json["error_percent"], evaluation.error_percent);
    assert_eq!(json["loss"], evaluation.loss);
    assert_eq!(json["confusion"].as_array().unwrap().len(), 10);
    // The network has learned something but makes errors, so both kinds of counts are tested.
    assert!((1..250).contains(&evaluation.errors), "{}", evaluation.errors);
    let wrong = tensors["logits"].argmax(1, false).not_equal_tensor(&tensors["labels"]);
    assert_eq!(wrong.sum(Kind::Int64).int64_value(&[]), evaluation.errors);
    assert_eq!(evaluation.error_percent, evaluation.errors as f64 / 5.0);

    let text = evaluate(&[]).success();
    assert!(
        text.ends_with(&format!(
            "\n{} of 500 wrong: error {:.2} %, loss {:.4}; {:.2} % rejected for 0.5 % error\n",
            evaluation.errors,
            evaluation.error_percent,
            evaluation.loss,
            evaluation.rejected_percent_for_half_percent_error
        )),
        "{text}"
    );
    let training = evaluate(&["--json", "--split=train"]).success();
    assert_eq!(self::json(&training)["samples"], 1000);
}

#[test]
fn evaluate_counts_by_hand() {
    let row = |best: usize| {
        let mut row = [0.0f32; 3];
        row[best] = 2.0;
        row
    };
    let logits: Vec<f32> = [row(0), row(1), row(1), row(2)].concat();
    let logits = tch::Tensor::from_slice(&logits).reshape([4, 3]);
    let evaluation = Evaluation::new(&logits, &tch::Tensor::from_slice(&[0i64, 1, 2, 2])).unwrap();
    assert_eq!((evaluation.samples, evaluation.errors), (4, 1));
    assert_eq!(evaluation.error_percent, 25.0);
    assert_eq!(evaluation.confusion, [[1, 0, 0], [0, 1, 0], [0, 1, 1]]);
    // The loss is log(e^2 + 2) - 2 for each of the three correct images, and log(e^2 + 2) for the
    // other.
    let expected = (2f64.exp() + 2.0).ln() - 1.5;
    // Both are float64; the last bits differ, as the sums are in another order.
    assert!((evaluation.loss - expected).abs() < 1e-12, "{}", evaluation.loss);
}

#[test]
fn rejection_and_misclassified_by_hand() {
    // The gaps between the two largest logits are 4, 3, 2 and 1. The images with gaps of 3 and 1
    // are misclassified.
    let logits =
        tch::Tensor::from_slice(&[0.0f32, 3.0, 0.0, 5.0, 1.0, 1.0, 2.0, 0.0, -9.0, 1.0, 0.0, 0.0]);
    let (logits, labels) = (logits.reshape([4, 3]), tch::Tensor::from_slice(&[2i64, 0, 0, 1]));
    let rejection = Rejection::new(&logits, &labels).unwrap();
    let third = 100.0 / 3.0;
    let expected = [(0.0, 50.0), (25.0, third), (50.0, 50.0), (75.0, 0.0)];
    assert_eq!(rejection.curve().collect::<Vec<_>>(), expected);
    for (error, rejected) in [(60.0, 0.0), (50.0, 0.0), (34.0, 25.0), (10.0, 75.0)] {
        assert_eq!(rejection.rejected_for(error), rejected, "{error}");
    }
    let misclassified = |index, label, prediction| Misclassified { index, label, prediction };
    let all = Misclassified::all(&logits, &labels).unwrap();
    assert_eq!(all, [misclassified(0, 2, 1), misclassified(3, 1, 0)]);
    // If all images are misclassified, all must be rejected.
    let wrong = Rejection::new(&logits, &tch::Tensor::from_slice(&[0i64, 1, 2, 2])).unwrap();
    assert_eq!(wrong.rejected_for(0.5), 100.0);

    let paper = Misclassified::in_paper();
    assert_eq!(paper.len(), 82);
    let test = Dataset::embedded(Split::Test, 10).unwrap();
    for Misclassified { index, label, prediction } in paper {
        assert_eq!(test.labels().int64_value(&[index]), label);
        assert_ne!(label, prediction);
    }
}

#[test]
fn activations_of_both_networks() {
    let folder = temp();
    let draw = |arguments: &[&str]| -> (Ended, PathBuf) {
        let file = folder.path().join("activations.png");
        let out = option("out", &file);
        (run("summary", [arguments, &[&out]].concat()), file)
    };
    let read = |arguments: &[&str]| -> Vec<u8> {
        let (ended, file) = draw(arguments);
        ended.success();
        image::open(file).unwrap().into_bytes()
    };
    let modern = read(&["--activations=3"]);
    assert_ne!(modern, read(&["--activations=4"]));
    let original = read(&["--model=original", "--activations=3"]);
    assert_ne!(modern, original);
    // The same digit as pictures: grey on black with a wrong extension, on white, or padded and in
    // colour.
    let test = Dataset::embedded(Split::Test, 10).unwrap();
    let pixels = Vec::<u8>::try_from(test.images().get(3).flatten(0, -1)).unwrap();
    let picture = image::GrayImage::from_raw(28, 28, pixels).unwrap();
    let path = |name: &str| folder.path().join(name);
    picture.save_with_format(path("black.jpg"), image::ImageFormat::Png).unwrap();
    let mut white = picture.clone();
    image::imageops::invert(&mut white);
    white.save(path("white.png")).unwrap();
    let mut padded = image::GrayImage::new(32, 32);
    image::imageops::replace(&mut padded, &picture, 2, 2);
    image::DynamicImage::from(padded).to_rgb8().save(path("padded.png")).unwrap();
    for name in ["black.jpg", "white.png", "padded.png"] {
        assert_eq!(read(&[&option("activations", &path(name))]), modern, "{name}");
    }
    image::GrayImage::new(28, 20).save(path("other.png")).unwrap();
    fs::write(path("text.png"), "digits").unwrap();
    let empty =
        "expected digits, found an empty picture: nothing in it stands out from its background";
    let text = "expected a picture (PNG, JPEG, WebP, TIFF, ...), found plain text";
    for (name, message) in [("other.png", empty), ("text.png", text)] {
        let (ended, _) = draw(&[&option("activations", &path(name))]);
        ended.fails_with(&format!("{}: {message}", path(name).display()));
    }
    draw(&["--activations=10000"]).0.fails_with(
        "--activations: expected a picture, or the number of a test image from 0 to 9999, found 10000",
    );
}

#[test]
fn convert_to_each_format_and_back() {
    let folder = temp();
    let path = |name: &str| folder.path().join(name);
    let original = Weights::read(trained()).unwrap();
    let mut bits = Bits::default();
    let table: [(&str, &[&str], &str); 6] = [
        ("a.pt", &[], "TorchScript"),
        ("a.pth", &[], "state dict"),
        ("a.safetensors", &[], "safetensors"),
        ("b.pt", &["--format=safetensors"], "safetensors"),
        ("b.bin", &["--format=state-dict"], "state dict"),
        ("b", &["--format=torchscript"], "TorchScript"),
    ];
    let mut input = trained().to_owned();
    for (name, arguments, format) in table {
        // Each file is converted from the previous one, so a loss in any of them is detected.
        let output = path(name);
        let ended: Ended =
            program("convert").args([&input, &output]).args(arguments).output().unwrap().into();
        assert_eq!(ended.stderr, format!("wrote {} ({format})\n", output.display()));
        assert_eq!(ended.success(), "");
        let found = Weights::read(&output).unwrap();
        assert_eq!(found.config, original.config);
        for ((name, ours), (_, theirs)) in found.tensors.iter().zip(&original.tensors) {
            bits.compare_arrays(name, ours, theirs);
        }
        input = output;
    }
    bits.check(6 * 10);
    assert_eq!(fs::read(path("a.pt")).unwrap(), fs::read(path("b")).unwrap());
}

#[test]
fn convert_refuses() {
    let folder = temp();
    let convert = |output: &Path| run("convert", [trained(), output]);
    for name in ["weights.onnx", "weights"] {
        let path = folder.path().join(name);
        convert(&path).fails_with(&format!(
            "{}: expected the suffix .pt, .pth or .safetensors, or --format",
            path.display()
        ));
    }
    let nowhere = folder.path().join("missing/weights.pt");
    convert(&nowhere)
        .fails_with(&format!("{}: cannot be written: {NOTHING_THERE}", nowhere.display()));
    let beside = folder.path().join("file/weights.pt");
    fs::write(folder.path().join("file"), "").unwrap();
    convert(&beside).fails_with(&format!(
        "{}: cannot be written: Not a directory (os error 20)",
        beside.display()
    ));
    fs::remove_file(folder.path().join("file")).unwrap();
    let a_folder = folder.path().join("folder.pt");
    fs::create_dir(&a_folder).unwrap();
    convert(&a_folder).fails_with(&format!(
        "{}: cannot be written: Is a directory (os error 21)",
        a_folder.display()
    ));
    // A damaged input leaves the output file unchanged.
    let (broken, kept) = (folder.path().join("broken.pt"), folder.path().join("kept.pth"));
    fs::write(&broken, b"PK\x03\x04").unwrap();
    fs::write(&kept, b"kept").unwrap();
    assert_eq!(run("convert", [&broken, &kept]).code, Some(1));
    assert_eq!(fs::read(&kept).unwrap(), b"kept");
    // No temporary file is left.
    let mut names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["broken.pt", "folder.pt", "kept.pth"]);
}

#[test]
fn a_full_disk_is_an_error() {
    let full = Path::new("/dev/full");
    if !full.exists() {
        println!("no /dev/full here");
        return;
    }
    let no_space = "No space left on device (os error 28)";
    program("convert")
        .arg(trained())
        .args(["/dev/full", "--format=state-dict"])
        .output()
        .map(Ended::from)
        .unwrap()
        .fails_with(&format!("/dev/full: cannot be written: {no_space}"));
    evaluate(&["--logits=/dev/full"])
        .fails_with(&format!("/dev/full: cannot be written: {no_space}"));
    for name in ["summary", "evaluate"] {
        let mut command = program(name);
        if name == "evaluate" {
            command.arg(option("weights", trained())).arg(option("data", small_mnist()));
        }
        let output = File::options().write(true).open(full).unwrap();
        let ended: Ended = command.stdout(output).output().unwrap().into();
        ended.fails_with(&format!("stdout: {no_space}"));
    }
}

/// Runs a program whose stdout, and with `both` also stderr, is a closed pipe.
fn closed_pipe(name: &str, arguments: &[String], both: bool) -> Ended {
    let mut command = program(name);
    command.args(arguments).stdout(closed());
    if both {
        command.stderr(closed());
    }
    command.output().unwrap().into()
}

fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn a_closed_pipe_is_no_error() {
    let folder = temp();
    let weights = || [option("weights", trained()), option("data", small_mnist())];
    let train = |name: &str| {
        let out = option("out", &folder.path().join(name));
        vec![option("data", small_mnist()), out, "--epochs=1".to_owned(), "--threads=1".to_owned()]
    };
    let convert = || {
        let out = folder.path().join("out.pth").display().to_string();
        vec![trained().display().to_string(), out]
    };
    for both in [false, true] {
        let runs = [
            ("summary", vec![]),
            ("summary", vec!["--json".to_owned()]),
            ("summary", vec!["--help".to_owned()]),
            ("evaluate", weights().to_vec()),
            ("convert", convert()),
            ("train", train(if both { "both" } else { "stdout" })),
        ];
        for (name, arguments) in runs {
            let ended = closed_pipe(name, &arguments, both);
            assert_eq!(ended.code, Some(0), "{name} {arguments:?} {both}: {}", ended.stderr);
            assert!(!ended.stderr.contains("panicked"), "{name}: {}", ended.stderr);
        }
    }
    // Training still continues to the end.
    for name in ["stdout", "both"] {
        assert!(folder.path().join(name).join("curve.png").exists());
    }
    // An error is still an error if nobody reads it.
    let arguments = [option("weights", &folder.path().join("missing.pt"))];
    assert_eq!(closed_pipe("evaluate", &arguments, true).code, Some(1));
}

/// Tests that divergence is detected, by the loss or by the parameters, for every CPU engine with
/// each of its optimizers.
#[test]
fn training_that_diverges_says_so() {
    let table: [(&[&str], &str); 9] = [
        (&["--engine=libtorch", "--optimizer=sgd"], "1e9"),
        (&["--engine=libtorch", "--optimizer=adam"], "1e9"),
        (&["--engine=libtorch", "--optimizer=adamw"], "1e9"),
        (&["--engine=fused", "--optimizer=sgd", "--activation=relu"], "1e38"),
        (&["--engine=fused", "--optimizer=adam"], "1e9"),
        (&["--engine=fused", "--optimizer=adamw"], "1e9"),
        (&["--engine=fused", "--preset=paper"], "1e9"),
        (&["--engine=fused", "--model=original", "--momentum=0"], "1e9"),
        (&["--engine=libtorch", "--model=original", "--optimizer=adam"], "1e9"),
    ];
    let folder = temp();
    for (number, (settings, rate)) in table.into_iter().enumerate() {
        let out = folder.path().join(number.to_string());
        let ended: Ended = program("train")
            .args(["--epochs=2", "--limit=200", "--threads=1", "--device=cpu", "--lr", rate])
            .args(settings)
            .args([option("data", small_mnist()), option("out", &out)])
            .output()
            .unwrap()
            .into();
        assert_eq!(ended.code, Some(1), "{settings:?} {ended:?}");
        let message = ended.stderr.lines().last().unwrap();
        let start =
            format!("error: training diverged in epoch 1 at --lr {rate}: the training loss is ");
        let end = format!(
            "; {} still holds the state before it; start again with a smaller --lr",
            out.join("checkpoint.pth").display()
        );
        assert!(message.starts_with(&start) && message.ends_with(&end), "{settings:?} {message}");
        // The files written before are complete: the start of the run.
        let checkpoint = lenet5::weights::Checkpoint::read(&out.join("checkpoint.pth")).unwrap();
        assert_eq!((checkpoint.epoch, checkpoint.step), (0, 0));
    }
}

/// Tests cases that are no divergence: a learning rate that is too large to learn, training from
/// weights whose loss is already small, and losses that are large because of their scale.
#[test]
fn training_that_is_bad_goes_on() {
    let folder = temp();
    let init = option("init", trained());
    let table: [&[&str]; 4] = [
        &["--lr=0.5", "--batch-size=16"],
        &[&init, "--lr=0.5"],
        &["--model=original", "--optimizer=sdlm", "--rbf-scale=100", "--lr=1e-9"],
        &["--model=original", "--optimizer=adam", "--loss=discriminative", "--j=-1000"],
    ];
    for (number, settings) in table.into_iter().enumerate() {
        let out = folder.path().join(number.to_string());
        let ended: Ended = program("train")
            .args(["--epochs=1", "--limit=200", "--threads=1", "--device=cpu"])
            .args(settings)
            .args([option("data", small_mnist()), option("out", &out)])
            .output()
            .unwrap()
            .into();
        ended.success();
    }
}

/// A negative number is parsed as a number for every option that takes one, so that the error is
/// about its range.
#[test]
fn negative_numbers_are_read() {
    let threads = "error: threads: expected 1 to 1024, found -1";
    let table: [(&str, &str, &str); 6] = [
        (
            "train --model=original",
            "threads j rbf-scale limit validation batch-size lr momentum dampening weight-decay seed mean std",
            threads,
        ),
        ("train --optimizer=sdlm", "mu seed", "error: mu: expected a number above 0, found -1"),
        (
            "train --schedule=step",
            "gamma seed",
            "error: gamma: expected a number above 0, found -1",
        ),
        (
            "train --model=original",
            "rbf-scale j",
            "error: rbf-scale: expected a positive number, found -1",
        ),
        ("evaluate", "threads mean std", threads),
        ("summary", "mean std", "error: std: expected a positive number, found -1"),
    ];
    let ended = |command: &str, options: &[&str], value: &str| {
        let mut words = command.split(' ');
        let mut program = program(words.next().unwrap());
        program.args(words);
        for option in options {
            program.arg(format!("--{option}")).arg(value);
        }
        Ended::from(program.output().unwrap())
    };
    for (command, options, message) in table {
        let options: Vec<_> = options.split(' ').collect();
        let ended = ended(command, &options, "-1");
        assert_eq!((ended.code, ended.stderr.trim_end()), (Some(1), message), "{command}");
    }
    // The parser checks these ranges: wrong usage, whose message names the option and the value.
    for (command, options) in
        [("train", "epochs step-size classes hessian-samples"), ("evaluate", "max-memory")]
    {
        for option in options.split(' ') {
            let ended = ended(command, &[option], "-1");
            let message = format!("error: invalid value '-1' for '--{option} <");
            assert!(ended.code == Some(2) && ended.stderr.starts_with(&message), "{ended:?}");
        }
    }
    ended("train", &["lr"], "1e400").fails_with("lr: expected a number above 0, found inf");
    let huge = ended("train", &["seed"], "99999999999999999999");
    assert!(huge.code == Some(2) && huge.stderr.contains("number too large to fit"), "{huge:?}");
    let seeded = ended("train --data=missing", &["seed"], "-1");
    assert!(seeded.stderr.ends_with(&format!("missing: {NOTHING_THERE}\n")), "{seeded:?}");
}

#[test]
fn a_run_folder() {
    let folder = temp();
    let out = folder.path().join("deep/run");
    let ended: Ended = program("train")
        .args(["--epochs=2", "--batch-size=32", "--limit=300", "--seed=5", "--optimizer=adamw"])
        .args(["--threads=1", "--device=cpu", "--mean=0.1307", "--std=0.3081", "--schedule=step"])
        .args([option("data", small_mnist()), option("out", &out)])
        .output()
        .unwrap()
        .into();
    let text = ended.success();
    assert_eq!(text.lines().count(), 5, "{text}");
    assert!(text.contains("61706 parameters; 300 training and 500 test images; device cpu"));

    let mut names: Vec<_> = fs::read_dir(&out)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let expected = ["checkpoint.pth", "config.json", "curve.png", "metrics.jsonl", "model.pt"];
    assert_eq!(names, expected);
    let config: Value =
        serde_json::from_slice(&fs::read(out.join("config.json")).unwrap()).unwrap();
    for (key, expected) in [
        ("epochs", 2.into()),
        ("batch_size", 32.into()),
        ("limit", 300.into()),
        ("seed", 5.into()),
        ("learning_rate", 0.001.into()),
    ] {
        let expected: Value = expected;
        assert_eq!(config[key], expected, "{key}");
    }
    assert_eq!(config["optimizer"]["name"], "adamw");
    assert_eq!(config["model"]["std"], 0.3081);
    assert!(fs::read(out.join("curve.png")).unwrap().starts_with(b"\x89PNG"));

    let metrics = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let lines: Vec<Value> =
        metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    for (i, line) in lines.iter().enumerate() {
        assert_eq!(line["epoch"], i + 1);
        assert_eq!(line["learning_rate"], [0.001, 0.001 * 0.7][i]);
        for key in ["train_loss", "test_loss", "seconds", "images_per_second"] {
            assert!(line[key].as_f64().unwrap() > 0.0, "{key}");
        }
    }
    // The converted file holds the detected settings, including those of the input.
    let model = option("weights", &out.join("model.pt"));
    let evaluated = evaluate(&["--json", "--engine=fused", &model]).success();
    let evaluated = json(&evaluated);
    assert_eq!(evaluated["loss"], lines[1]["test_loss"]);
    assert_eq!(evaluated["error_percent"], lines[1]["test_error_percent"]);
}

#[test]
fn training_from_given_weights() {
    let folder = temp();
    let out = folder.path().join("run");
    let relu = folder.path().join("relu.pth");
    let mut weights = Weights::read(trained()).unwrap();
    weights.config.activation = lenet5::model::Activation::Relu;
    lenet5::weights::write(&weights, &relu, lenet5::weights::Format::StateDict).unwrap();
    // The learning rate is so small that float32 weights do not change.
    run(
        "train",
        [
            option("init", &relu),
            option("data", small_mnist()),
            option("out", &out),
            "--epochs=1".to_owned(),
            "--lr=1e-30".to_owned(),
            "--momentum=0".to_owned(),
        ],
    )
    .success();
    let found = Weights::read(&out.join("model.pt")).unwrap();
    assert_eq!(found.config, weights.config);
    let mut bits = Bits::default();
    for ((name, ours), (_, theirs)) in found.tensors.iter().zip(&weights.tensors) {
        bits.compare_arrays(name, ours, theirs);
    }
    bits.check(10);
}
