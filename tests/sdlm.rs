//! Tests of the second-order training of the network of 1998, by both engines and by PyTorch.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lenet5::data::{Dataset, Split};
use lenet5::engine::{OptimizerState, curvature};
use lenet5::libtorch::{to_array, to_tensor};
use lenet5::model::{LeNet5, ModelConfig, loss};
use lenet5::optim;
use lenet5::recipe::{Loss, OptimizerConfig, Order, TrainConfig};
use lenet5::train::EpochMetrics;
use lenet5::weights::Weights;
use lenet5_core::kernels::pattern::{LearningRates, PatternNetwork, PatternParameters, TENSORS};
use tch::nn::Module;
use tch::{Device, Kind, Tensor};

use crate::model::new;
use crate::util::{difference, fixtures, program, run, small_mnist, temp, tensors};

/// Compares float32 values with PyTorch's float64 values.
#[test]
fn second_derivatives_and_steps_as_pytorch() {
    let folder = temp();
    fixtures("sdlm", folder.path());
    let python = tensors(&folder.path().join("sdlm.safetensors"));
    let config = ModelConfig { rbf_scale: 0.02, ..ModelConfig::original() };
    let discriminative = Loss::Discriminative { j: 1.0 };
    let set = |model: &LeNet5| {
        let initial = |name: &str| python[&format!("initial/{name}")].shallow_clone();
        let state: Vec<_> =
            model.state().into_iter().map(|(n, _)| (n.clone(), initial(&n))).collect();
        model.load_state(&state).unwrap();
    };
    let model = new(&config);
    set(&model);
    let data = Dataset::embedded(Split::Train, 10).unwrap().first(500);
    let (images, labels) = data.batch(&Tensor::arange(500, (Kind::Int64, Device::Cpu)), &config);
    let order: Vec<i64> = (0..500).collect();
    for (name, loss) in [("distance", Loss::Distance), ("discriminative", discriminative)] {
        let recipe = TrainConfig { model: config.clone(), loss, ..TrainConfig::paper() };
        let ours = curvature(&recipe, &model.weights().unwrap(), &data, &order).unwrap();
        for ((tensor, _), ours) in TENSORS.iter().zip(ours) {
            let ours = to_tensor(&ours).unwrap();
            let difference = difference(&ours, &python[&format!("{name}/{tensor}")]);
            println!("{name} {tensor}: {difference:.1e}");
            assert!(difference < 1e-5, "{name} {tensor}: {difference:.1e}");
        }
    }
    let curvature = TENSORS.map(|(name, _)| {
        to_array(&python[&format!("discriminative/{name}")].to_kind(Kind::Float)).unwrap()
    });
    let changes = |after: Vec<(String, Tensor)>, who: &str| {
        for (name, after) in after {
            let initial = &python[&format!("initial/{name}")];
            let change = |after: &Tensor| after - initial;
            let theirs = change(&python[&format!("after/{name}")]);
            let difference = difference(&change(&after), &theirs);
            println!("{who} {name}: {difference:.1e} of the change in 200 steps");
            assert!(difference < 1e-3, "{who} {name}: {difference:.1e}");
        }
    };
    // 200 steps by the kernels.
    let rates =
        LearningRates::new(&PatternParameters::from_arrays(&curvature).unwrap(), 5e-4, 0.02);
    let mut network = PatternNetwork::of(&model.weights().unwrap(), discriminative).unwrap();
    let pixels = Vec::<f32>::try_from(images.flatten(0, -1)).unwrap();
    let classes = Vec::<i64>::try_from(&labels).unwrap();
    for (image, label) in pixels.as_chunks::<1024>().0[..200].iter().zip(&classes) {
        network.step(image, *label as usize, &rates);
    }
    let after = network.parameters().to_arrays();
    let names = TENSORS.iter().map(|(name, _)| (*name).to_owned());
    changes(names.zip(after.iter().map(|array| to_tensor(array).unwrap())).collect(), "kernels");
    // 200 steps by libtorch.
    let parameters = model.parameter_tensors();
    let settings = OptimizerConfig::Sdlm { mu: 0.02, samples: 500 };
    let mut optimizer =
        optim::build(&settings, parameters.iter().map(Tensor::shallow_clone).collect());
    assert!(optimizer.step(&parameters, 5e-4).is_err(), "no curvature yet");
    optimizer.load_state(&OptimizerState::Sdlm { curvature: curvature.into() }).unwrap();
    for index in 0..200 {
        let (image, label) = (images.narrow(0, index, 1), labels.narrow(0, index, 1));
        let loss = loss(discriminative, &model.forward(&image), &label);
        let gradients = Tensor::run_backward(&[&loss], &parameters, false, false);
        optimizer.step(&gradients, 5e-4).unwrap();
    }
    changes(model.parameters(), "libtorch");
}

/// Returns the final tensors of a run of two epochs, and its measurements.
fn trained(settings: &[&str], out: &Path) -> (BTreeMap<String, Tensor>, Vec<EpochMetrics>) {
    let mut command = program("train");
    command.args(["--model=original", "--threads=1", "--device=cpu", "--epochs=2", "--limit=500"]);
    let data = small_mnist();
    let output = command.args(settings).arg("--data").arg(data).arg("--out").arg(out).output();
    crate::util::Ended::from(output.unwrap()).success();
    let metrics = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let weights = Weights::read(&out.join("model.pt")).unwrap();
    let tensor = |(name, array)| (name, to_tensor(&array).unwrap());
    let tensors = weights.tensors.into_iter().map(tensor).collect();
    (tensors, metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

#[test]
fn both_engines_train_alike() {
    let folder = temp();
    for settings in [
        &["--optimizer=sdlm"][..],
        &["--optimizer=sdlm", "--batch-size=16", "--distort", "--lr=0.005"],
        &["--optimizer=sdlm", "--loss=distance", "--schedule=one-cycle", "--order=shuffled"],
        &["--optimizer=sgd", "--momentum=0", "--lr=0.02", "--batch-size=3", "--loss=cross-entropy"],
    ] {
        let of = |engine: &str| {
            let out = folder.path().join(
                format!("{engine}{}", settings.len()).replace('=', "-") + settings.last().unwrap(),
            );
            trained(&[settings, &["--engine", engine, "--train-error"]].concat(), &out)
        };
        let ((ours, measured), (theirs, expected)) = (of("fused"), of("libtorch"));
        for (name, theirs) in &theirs {
            let difference = difference(&ours[name], theirs);
            println!("{settings:?} {name}: {difference:.1e}");
            assert!(difference < 1e-3, "{settings:?} {name}: {difference:.1e}");
        }
        for (ours, theirs) in measured.iter().zip(&expected) {
            let close =
                |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-3, "{settings:?}: {a} {b}");
            close(ours.train_loss, theirs.train_loss);
            close(ours.test_loss, theirs.test_loss);
            // One or two of 500 images may be undecided.
            let errors = [ours, theirs].map(|metrics| metrics.train_error_percent.unwrap());
            assert!(errors[1] > 0.0 && (errors[0] - errors[1]).abs() < 0.5, "{errors:?}");
            assert_eq!(ours.parameter_rates.is_some(), settings[0] == "--optimizer=sdlm");
            let rates = |m: &EpochMetrics| {
                m.parameter_rates.map_or(0.0, |(low, high)| f64::from(low / high))
            };
            assert!((rates(ours) - rates(theirs)).abs() < 1e-3 && rates(ours) < 1.0);
        }
        assert!(measured[1].train_loss < measured[0].train_loss);
    }
}

/// Tests a constant and a shuffled order, and held-out images.
#[test]
fn order_and_validation() {
    let folder = temp();
    // With a learning rate near 0 the sum of the losses depends on the images, and its last bits on
    // their order.
    let settings = ["--optimizer=sdlm", "--lr=1e-12", "--schedule=constant"];
    let of = |name: &str, more: &[&str]| {
        trained(&[&settings, more].concat(), &folder.path().join(name)).1
    };
    let all = of("all", &[]);
    let held_out = of("held-out", &["--validation=100"]);
    assert_ne!(all[0].test_loss, held_out[0].test_loss);
    assert_eq!(all[0].train_loss, held_out[0].train_loss, "the first 500 of 900 or of 1000 images");
    run(
        "train",
        ["--validation=1000", "--data", small_mnist().to_str().unwrap(), "--out", "never"],
    )
    .fails_with("validation: expected 999 images or fewer, found 1000");
}

#[test]
fn the_preset_is_the_papers_training() {
    let folder = temp();
    let config = |name: &str, arguments: &[&str]| {
        let out = folder.path().join(name);
        let data = small_mnist().to_str().unwrap();
        let common = ["--epochs=0", "--device=cpu", "--data", data, "--out", out.to_str().unwrap()];
        run("train", [&common[..], arguments].concat()).success();
        let text = fs::read_to_string(out.join("config.json")).unwrap();
        let (text, run) = text.rsplit_once("\"run\"").expect("each run has a name");
        assert_eq!(run.len(), 39, "{run}");
        text.to_owned()
    };
    let preset = config("preset", &["--preset=paper"]);
    assert_eq!(preset, config("options", &["--model=original", "--optimizer=sdlm"]));
    let paper = TrainConfig::paper();
    assert_eq!((paper.epochs, paper.batch_size, paper.order), (20, 1, Order::Constant));
    let rate = |epoch| paper.schedule.learning_rate(paper.learning_rate, (epoch, 20), (0, 60_000));
    let expected = [(2, 5e-4), (3, 2e-4), (3, 1e-4), (4, 5e-5), (8, 1e-5)];
    let expected = expected.iter().flat_map(|&(passes, rate)| vec![rate; passes]);
    for (epoch, expected) in (0..20).zip(expected) {
        assert!((rate(epoch) / expected - 1.0_f64).abs() < 1e-12, "{epoch}: {}", rate(epoch));
    }
    let other = config("other", &["--preset=paper", "--j=2", "--batch-size=16", "--distort"]);
    assert!(other.contains("\"j\": 2.0") && other.contains("\"batch_size\": 16"), "{other}");
    let ended = run("train", ["--preset=best", "--model=original", "--out", "never"]);
    assert_eq!(ended.code, Some(2));
}

#[test]
fn what_the_engine_cannot_do() {
    for (arguments, message) in [
        (&["--optimizer=sdlm"][..], "--optimizer sdlm goes with --model original only"),
        (
            &["--model=original", "--optimizer=sdlm", "--train-rbf"],
            "--optimizer sdlm does not train the codes: it does not go with --train-rbf",
        ),
        (
            &["--model=original", "--engine=fused"],
            "--engine fused goes with --optimizer sdlm, or sgd without momentum and decay",
        ),
        (
            &["--model=original", "--engine=fused", "--momentum=0", "--train-rbf"],
            "--engine fused does not train the codes: it does not go with --train-rbf",
        ),
        (&["--mu=1"], "--mu and --hessian-samples go with --optimizer sdlm only"),
        (
            &["--model=original", "--optimizer=sdlm", "--mu=0"],
            "mu: expected a number above 0, found 0",
        ),
        (
            &["--model=original", "--optimizer=sdlm", "--hessian-samples=0"],
            "hessian-samples: expected 1 or more, found 0",
        ),
        (&["--validation=0"], "validation: expected a number above 0, found 0"),
    ] {
        run("train", [&["--device=cpu", "--out", "never"], arguments].concat()).fails_with(message);
    }
}
