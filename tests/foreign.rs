//! Files from other sources in the programs: inspect, conversion, settings given and detected,
//! TorchScript without conversion.

use std::fs;
use std::path::Path;

use lenet5::Array;
use lenet5::data::{Dataset, Split};
use lenet5::detect::Detection;
use lenet5::model::{Activation, Input, ModelConfig, ModelOptions, Pooling};
use lenet5::weights::contents::Hints;
use lenet5::weights::{self, Format, Provenance, Weights, write_tensors};

use crate::util::{Ended, program, root, run, small_mnist, temp, tensors, trained};
use crate::weights::{forms, random};

/// Returns the output of `evaluate --json` on the small test set, with one CPU thread.
fn errors(arguments: &[&str]) -> (i64, String) {
    let ended: Ended = program("evaluate")
        .args(["--json", "--device=cpu", "--threads=1", "--data"])
        .arg(small_mnist())
        .args(arguments)
        .output()
        .unwrap()
        .into();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let json: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    (json["errors"].as_i64().unwrap(), ended.stderr)
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[test]
fn inspect_describes_a_checkpoint() {
    let path = forms().join("legacy_checkpoint.pth");
    let report = run("inspect", [&path]).success();
    let bytes = fs::metadata(&path).unwrap().len();
    let expected = [
        &format!("file       {}, {bytes} bytes", path.display()),
        "container  torch.save before PyTorch 1.6 (pickles)",
        "producer   PyTorch 0.1 to 1.5, or torch.save's option for its format",
        "saved on   cpu",
        "entries: 4",
        "  epoch: 3",
        "  model_state_dict: a dict of 10",
        "tensors: 12",
        "  model_state_dict.c1.weight       [6, 1, 5, 5]       float32",
        "  loss                             []                 float32",
        "  rng_state                        [5056]             uint8",
        "LeNet-5, found at: model_state_dict",
        "  c1.weight      <- c1.weight",
        "shapes     c5 convolution, 10 classes, input 32x32",
        "settings   tanh activation, avg pooling, padded input, mean 0, std 1",
    ];
    let lines: Vec<_> = report.lines().collect();
    for line in expected {
        assert!(lines.contains(&line), "{line}\nin\n{report}");
    }
    // convert without OUT prints the same.
    assert_eq!(run("convert", [&path]).success(), report);
}

#[test]
fn inspect_as_json() {
    let json = |file: &str| -> serde_json::Value {
        let ended = run("inspect", ["--json", &text(&forms().join(file))]);
        serde_json::from_str(&ended.success()).unwrap()
    };
    let module = json("tutorial_whole.pth");
    assert_eq!(module["lenet5"]["mapping"][4], serde_json::json!(["c5.weight", "fc1.weight"]));
    assert_eq!(module["lenet5"]["config"]["c5"], "linear");
    assert_eq!(module["lenet5"]["assumed"].as_array().unwrap().len(), 7);
    assert_eq!((&module["runnable"], &module["forward"]), (&false.into(), &().into()));

    let script = json("scripted_features.pt");
    assert_eq!(script["container"], "TorchScript (zip archive)");
    assert_eq!(script["forward"], "forward(x: Tensor) -> Tensor");
    assert_eq!(script["runnable"], true);
    assert_eq!(
        script["lenet5"]["assumed"],
        serde_json::json!(["input", "layer_order", "hidden_activation", "mean", "std"])
    );

    // The file is described even if it is no LeNet-5.
    let other = json("refused/quantised_tensor.pth");
    assert_eq!(other["lenet5"], serde_json::Value::Null);
    assert_eq!(other["tensors"][2]["dtype"], "a quantised tensor");
    assert_eq!(other["tensors"][2]["shape"], serde_json::Value::Null);
    let error = "c3.weight: expected a tensor of floats, found a quantised tensor";
    assert_eq!(other["error"], error);
    assert_eq!(json("cuda.pth")["locations"], serde_json::json!(["cuda:0"]));
    assert_eq!(json("mps.pth")["locations"], serde_json::json!(["mps"]));
}

#[test]
fn inspect_of_no_weights_fails() {
    let path = forms().join("refused/numpy.npy");
    run("inspect", [&path]).fails_with(&format!(
        "{}: expected torch.save's archive or pickles, TorchScript or safetensors, found a NumPy array",
        path.display()
    ));
}

#[test]
fn a_smaller_limit_is_kept() {
    let path = text(&forms().join("state_dict.pth"));
    run("inspect", ["--max-memory=1", &path]).fails_with(&format!(
        "{path}: expected tensors of at most 65536 bytes in all, found more with one of size [120, 16, 5, 5]; --max-memory raises this"
    ));
    run("convert", ["--max-memory=1", &path, "out.pt"]).fails_with(&format!(
        "{path}: expected tensors of at most 65536 bytes in all, found more with one of size [120, 16, 5, 5]; --max-memory raises this"
    ));
    run("inspect", ["--max-memory=20", &path]).success();
}

#[test]
fn settings_given_are_stored() {
    let folder = temp();
    let out = text(&folder.path().join("out.pth"));
    let input = text(&forms().join("d2l_normalised.pth"));
    let ended = run(
        "convert",
        [
            "--activation=sigmoid",
            "--input=zero-padded",
            "--mean=0.1307",
            "--std=0.3081",
            &input,
            &out,
        ],
    );
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let mapping = "0 -> c1, 3 -> c3, 7 -> c5, 9 -> f6, 11 -> output";
    assert_eq!(
        ended.stderr,
        format!("note: {input}: names matched by shape: {mapping}\nwrote {out} (state dict)\n")
    );
    let weights = Weights::read(out.as_ref()).unwrap();
    assert_eq!(
        (weights.provenance, weights.config.activation),
        (Provenance::Known, Activation::Sigmoid)
    );
    assert_eq!((weights.config.input, weights.config.mean), (Input::ZeroPadded, 0.1307));
    assert_eq!(errors(&["--weights", &out]).1, "", "no notes any more");

    run("convert", ["--input=unpadded", &input, &out])
        .fails_with("input unpadded: these weights are of a network that takes 32x32 pixels");
    run("convert", ["--std=0", &input, &out])
        .fails_with("std: expected a positive number, found 0");
}

#[test]
fn evaluate_takes_settings() {
    let folder = temp();
    let file = text(&folder.path().join("plain.safetensors"));
    write_tensors(file.as_ref(), &Weights::read(trained()).unwrap().tensors).unwrap();
    let (right, notes) = errors(&["--weights", &file]);
    assert_eq!(errors(&["--weights", &text(trained())]).0, right);
    assert!(notes.contains("of its settings the file says nothing"), "{notes}");
    let (wrong, notes) = errors(&["--weights", &file, "--activation=relu", "--pooling=max"]);
    assert!(wrong > 2 * right, "{wrong} and {right}");
    let start = "note: most images are misclassified; these settings were given or assumed: relu ";
    assert!(notes.starts_with(start), "{notes}");
}

#[test]
fn train_starts_from_foreign_weights() {
    let folder = temp();
    let out = folder.path().join("run");
    let ended: Ended = program("train")
        .args(["--epochs=0", "--threads=1", "--device=cpu", "--activation=relu", "--mean=0.5"])
        .arg("--init")
        .arg(forms().join("tutorial.pth"))
        .args(["--out".as_ref(), out.as_os_str()])
        .args(["--data".as_ref(), small_mnist().as_os_str()])
        .output()
        .unwrap()
        .into();
    let notes = ended.stderr.clone();
    ended.success();
    assert!(notes.contains("fc3 -> output"), "{notes}");
    let config = Weights::read(&out.join("model.pt")).unwrap().config;
    assert_eq!((config.activation, config.mean), (Activation::Relu, 0.5));
}

/// Runs `convert --detect` on the small training set.
fn detect(input: &str, output: &str) -> Ended {
    let mut command = program("convert");
    command.args(["--detect", input, output, "--data"]).arg(small_mnist());
    // One thread is used, as several are slower while other tests run.
    command.env("OMP_NUM_THREADS", "1").output().unwrap().into()
}

#[test]
fn detect_finds_the_settings() {
    let folder = temp();
    let run_folder = folder.path().join("run");
    let trained: Ended = program("train")
        .args(["--epochs=3", "--batch-size=16", "--threads=1", "--device=cpu", "--activation=relu"])
        .args(["--pooling=max", "--mean=0.5", "--std=0.5", "--input=resized", "--c5=linear"])
        .args(["--out".as_ref(), run_folder.as_os_str()])
        .args(["--data".as_ref(), small_mnist().as_os_str()])
        .output()
        .unwrap()
        .into();
    trained.success();
    let model = Weights::read(&run_folder.join("model.pt")).unwrap();
    let plain = text(&folder.path().join("plain.safetensors"));
    write_tensors(plain.as_ref(), &model.tensors).unwrap();
    let out = text(&folder.path().join("out.pt"));
    let ended = detect(&plain, &out);
    let notes = ended.stderr.clone();
    let table = ended.success();
    assert!(table.starts_with("240 settings tried on training images\n"), "{table}");
    let best = "relu activation, max pooling, resized input, mean 0.5, std 0.5";
    assert!(table.lines().nth(2).unwrap().ends_with(best), "{table}");
    assert_eq!(notes, format!("detected: {best}\nwrote {out} (TorchScript)\n"));
    let found = Weights::read(out.as_ref()).unwrap();
    assert_eq!((&found.config, found.provenance), (&model.config, Provenance::Known));
}

#[test]
#[ignore = "exhaustive: make test-all"]
fn detect_refuses_where_nothing_stands_out() {
    let folder = temp();
    let path = |name: &str| text(&folder.path().join(name));
    let (plain, out) = (path("plain.safetensors"), path("out.pt"));
    write_tensors(plain.as_ref(), &random(&ModelConfig::default()).tensors).unwrap();
    let ended = detect(&plain, &out);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.starts_with("error: no settings stand out: the best, "), "{ended:?}");
    assert!(ended.stdout.lines().count() > 10, "the table is printed: {}", ended.stdout);
    assert!(!Path::new(&out).exists());

    // A network that always predicts 3, on images of 3 only: all settings are equally good.
    let dark = folder.path().join("dark");
    fs::create_dir(&dark).unwrap();
    for (split, count) in [("train", 20), ("t10k", 1)] {
        let file = |kind: &str| dark.join(format!("{split}-{kind}-ubyte"));
        crate::util::write_idx(&file("images-idx3"), &[count, 28, 28], &vec![0; count * 784]);
        crate::util::write_idx(&file("labels-idx1"), &[count], &vec![3; count]);
    }
    let mut constant = random(&ModelConfig::default());
    constant.provenance = Provenance::Assumed(Hints::default());
    constant.tensors.iter_mut().for_each(|(_, tensor)| *tensor = Array::zeros(tensor.shape()));
    let mut bias = [0.0; 10];
    bias[3] = 9.0;
    constant.tensors[9].1 = Array::from_f32(&[10], &bias);
    let data = Dataset::read(&dark, Split::Train, 10).unwrap();
    let detection = Detection::run(&constant, &ModelOptions::default(), &data).unwrap();
    assert_eq!(detection.finalists[0].accuracy, 100.0);
    let message = detection.best().unwrap_err().to_string();
    assert!(message.starts_with("no settings stand out: "), "{message}");
    assert!(message.contains("has an accuracy of 100.0 %"), "{message}");
}

#[test]
fn torchscript_runs_as_it_is() {
    let folder = temp();
    // A file of this project, which holds settings, gives the same bits with and without
    // conversion.
    let ours = text(&folder.path().join("ours.pt"));
    let config = ModelConfig {
        activation: Activation::Relu,
        pooling: Pooling::Max,
        mean: 0.3,
        input: Input::ZeroPadded,
        ..ModelConfig::default()
    };
    weights::write(&random(&config), ours.as_ref(), Format::TorchScript).unwrap();
    let logits = |option: &str| {
        let out = text(&folder.path().join("logits"));
        errors(&[option, &ours, "--logits", &out]);
        tensors(out.as_ref())["logits"].copy()
    };
    assert_eq!(logits("--torchscript"), logits("--weights"));

    // A network with tanh, with constants instead of parameters, quantised, and in float64.
    let tanh = text(&root().join("tests/tanh.pth"));
    let (expected_errors, _) = errors(&["--weights", &tanh]);
    for file in ["refused/frozen.pt", "traced_double.pt", "traced_wrapped.pt"] {
        let path = text(&forms().join(file));
        let (found, notes) = errors(&["--torchscript", &path]);
        assert_eq!(found, expected_errors, "{file}");
        let expected = "running its code on padded input, mean 0, std 1\n";
        assert_eq!(notes, format!("note: {path}: {expected}"));
    }
    // The input size of a network that takes only 28x28 pixels is detected.
    let unpadded = folder.path().join("unpadded.pt");
    let model = random(&ModelConfig { input: Input::Unpadded, ..ModelConfig::default() });
    weights::write(&model, &unpadded, Format::TorchScript).unwrap();
    assert!(errors(&["--torchscript", &text(&unpadded)]).1.contains("on unpadded input"));
}

#[test]
fn what_is_no_torchscript_does_not_run() {
    let evaluate = |file: &str| {
        let path = text(&forms().join(file));
        (run("evaluate", ["--torchscript", &path]), path)
    };
    let (ended, path) = evaluate("state_dict.pth");
    ended.fails_with(&format!(
        "{path}: expected TorchScript, found torch.save (zip archive): --weights reads it"
    ));
    let (ended, path) = evaluate("missing.pt");
    ended.fails_with(&format!("{path}: No such file or directory (os error 2)"));
    let (ended, path) = evaluate("images.safetensors");
    ended.fails_with(&format!(
        "{path}: expected TorchScript, found safetensors: --weights reads it"
    ));
    let help = run("evaluate", ["--help"]).success();
    let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("EXECUTES THE CODE IN THE FILE"), "{help}");
}
