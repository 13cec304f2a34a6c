//! Tests of the network of 1998: the paper's counts, codes, connection table, losses and commands.

use std::fs;

use lenet5::model::{C3_TABLE, ModelConfig, Network, codes};
use lenet5::recipe::Loss;
use lenet5::weights::{Provenance, Weights, write_tensors};
use lenet5_core::DType;
use tch::{IndexOp, Tensor};

use crate::model::new;
use crate::util::{Ended, picture_size, program, run, small_mnist, temp};

#[test]
fn counts_are_the_papers() {
    let model = new(&ModelConfig::original());
    let count =
        |tensors: &[(String, Tensor)]| tensors.iter().map(|(_, t)| t.numel()).sum::<usize>();
    // The 900 connections that c3 lacks are zeros in its weight.
    assert_eq!(count(&model.parameters()), 60_000 + 900);
    assert_eq!(count(&model.state()), 60_000 + 900 + 840);
    assert_eq!(model.parameters().len(), 12);

    let text = run("summary", ["--model=original"]).success();
    let total = "total                         60,000       340,908         328,096";
    assert_eq!(text.lines().last(), Some(total));
    let json = run("summary", ["--model=original", "--json"]).success();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let column = |key: &str| -> Vec<i64> {
        json["layers"].as_array().unwrap().iter().map(|l| l[key].as_i64().unwrap()).collect()
    };
    assert_eq!(column("parameters"), [156, 12, 1_516, 32, 48_120, 10_164, 0]);
    assert_eq!(column("connections"), [122_304, 5_880, 151_600, 2_000, 48_120, 10_164, 840]);
}

#[test]
fn initial_weights_are_within_their_fan_in() {
    let model = new(&ModelConfig::original());
    for (name, tensor) in model.parameters() {
        let bound = match name.split('.').next().unwrap() {
            "c1" => 2.4 / 25.0,
            "s2" | "s4" => 2.4 / 4.0,
            "c5" => 2.4 / 400.0,
            "f6" => 2.4 / 120.0,
            _ => continue,
        };
        let largest = tensor.abs().max().double_value(&[]);
        assert!((0.5 * bound..=bound * (1.0 + 1e-6)).contains(&largest), "{name}: {largest}");
    }
    let weight = &model.state()[4].1;
    for (map, inputs) in C3_TABLE.iter().enumerate() {
        let bound = 2.4 / (25 * inputs.len()) as f64;
        for input in 0..6 {
            let kernel = weight.i((map as i64, input));
            let largest = kernel.abs().max().double_value(&[]);
            match inputs.contains(&(input as usize)) {
                true => {
                    assert!((0.5 * bound..=bound * (1.0 + 1e-6)).contains(&largest), "{largest}")
                }
                false => assert_eq!(largest, 0.0, "map {map}, input {input}"),
            }
        }
    }
}

#[test]
fn codes_are_pictures_of_characters() {
    let digits = codes(10).unwrap();
    assert_eq!((digits.shape(), digits.dtype()), (&[10, 84][..], DType::F32));
    let digits = digits.to_f32();
    let picture: Vec<String> = digits[84..2 * 84]
        .chunks(7)
        .map(|row| row.iter().map(|&pixel| if pixel == 1.0 { '#' } else { '.' }).collect())
        .collect();
    assert_eq!(&picture[..4], ["...##..", "..###..", ".####..", "...##.."]);
    let all = codes(96).unwrap().to_f32();
    assert_eq!(all[16 * 84..26 * 84], digits);
    assert!(all.iter().all(|pixel| pixel.abs() == 1.0));
    let message = codes(97).unwrap_err().to_string();
    let expected = "classes: expected 2 to 96, as many as the network of 1998 has codes, found 97";
    assert_eq!(message, expected);
}

/// The expected values for two samples of three classes were computed by hand.
#[test]
fn losses() {
    let distances = Tensor::from_slice(&[1.0f32, 2.0, 4.0, 3.0, 0.5, 5.0]).reshape([2, 3]);
    let labels = Tensor::from_slice(&[0i64, 2]);
    let of = |loss: Loss| lenet5::model::loss(loss, &-&distances, &labels).double_value(&[]);
    assert_eq!(of(Loss::Distance), (1.0 + 5.0) / 2.0);
    let sum = |row: [f64; 3]| row.iter().map(|y| (-y).exp()).sum::<f64>();
    let (first, second) = (sum([1.0, 2.0, 4.0]), sum([3.0, 0.5, 5.0]));
    let expected = |other: f64| (1.0 + (other + first).ln() + 5.0 + (other + second).ln()) / 2.0;
    for j in [-1.0, 0.3, 1.0, 3.0] {
        let found = of(Loss::Discriminative { j });
        assert!((found - expected((-j).exp())).abs() < 1e-6, "j {j}: {found}");
    }
    assert!((of(Loss::CrossEntropy) - expected(0.0)).abs() < 1e-6, "without the other class");
    assert!(Loss::Discriminative { j: f64::NAN }.validate().is_err());
}

#[test]
fn trains_stops_and_is_evaluated() {
    let folder = temp();
    let out = folder.path().join("run");
    let train = |arguments: &[&str]| -> Ended {
        let ended = program("train").args(arguments).output().unwrap();
        ended.into()
    };
    let (data, out) = (small_mnist().to_str().unwrap(), out.to_str().unwrap());
    // A small learning rate is used, as at the default one the result of so few steps would depend
    // on the CPU's rounding.
    let settings = [
        "--model=original",
        "--threads=1",
        "--device=cpu",
        "--batch-size=2",
        "--distort",
        "--lr=0.01",
    ];
    let more = ["--epochs=3", "--data", data, "--out", out, "--train-rbf"];
    let text = train(&[&settings[..], &more].concat()).success();
    assert!(text.starts_with("LeNet-5, 60840 parameters; 1000 training"), "{text}");
    let weights = Weights::read(format!("{out}/model.pt").as_ref()).unwrap();
    assert_eq!(
        (weights.config.network, weights.provenance),
        (Network::Original, Provenance::Known)
    );
    assert_ne!(weights.tensors[12].1, codes(10).unwrap(), "the codes were trained");
    let file = format!("{out}/checkpoint.pth");
    let evaluate = |option: &str, file: &str| -> serde_json::Value {
        let ended = run("evaluate", ["--json", "--data", data, option, file, "--threads=1"]);
        serde_json::from_str(&ended.success()).unwrap()
    };
    let found = evaluate("--weights", &file);
    let metrics = fs::read_to_string(format!("{out}/metrics.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    assert_eq!(found["error_percent"], last["test_error_percent"]);
    assert!(found["error_percent"].as_f64().unwrap() < 50.0, "it has learned something: {found}");
    // The weights are in a run's folder, so its curve is drawn too.
    let report = folder.path().join("report");
    let report = report.to_str().unwrap();
    run("evaluate", ["--data", data, "--weights", &file, "--report", report, "--threads=1"])
        .success();
    assert!(picture_size(format!("{report}/curve.png").as_ref()).0 > 400);
    assert_eq!(evaluate("--torchscript", &format!("{out}/model.pt"))["errors"], found["errors"]);

    // A plain state dict is identified by its names; there is nothing to detect.
    let plain = folder.path().join("plain.safetensors");
    write_tensors(&plain, &weights.tensors).unwrap();
    let plain = plain.to_str().unwrap();
    let known = Weights::read(plain.as_ref()).unwrap();
    assert_eq!(known.config.network, Network::Original);
    run("convert", ["--detect", plain, "out.pt"])
        .fails_with("the network of 1998 has nothing to detect: its settings are the paper's");
    run("convert", ["--activation=relu", plain, "out.pt"]).fails_with(
        "the network of 1998 has its own activation, sub-sampling and c5, and takes 32x32 pixels",
    );
}

#[test]
fn options_that_do_not_fit() {
    for (arguments, message) in [
        (&["--rbf-scale=1"][..], "--rbf-scale and --train-rbf go with --model original only"),
        (&["--train-rbf"], "--rbf-scale and --train-rbf go with --model original only"),
        (&["--j=2"], "--j goes with --loss discriminative only"),
        (
            &["--model=original", "--loss=distance", "--j=2"],
            "--j goes with --loss discriminative only",
        ),
        (&["--model=original", "--rbf-scale=0"], "rbf-scale: expected a positive number, found 0"),
        (
            &["--model=original", "--classes=97"],
            "classes: expected 2 to 96, as many as the network of 1998 has codes, found 97",
        ),
        (
            &["--model=original", "--pooling=max"],
            "the network of 1998 has its own activation, sub-sampling and c5, and takes 32x32 pixels",
        ),
    ] {
        run("train", [&["--out", "never"], arguments].concat()).fails_with(message);
    }
}
