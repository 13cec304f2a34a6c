//! The fused engine against libtorch in float64: logits, loss, gradients; and in `train`.

use std::fs;
use std::path::Path;

use lenet5::engine::fused::{Engine, Parameters};
use lenet5::engine::simd::Isa;
use lenet5::model::{Activation, LeNet5, ModelConfig, Pooling};
use lenet5::train::Metrics;
use lenet5::weights::Weights;
use tch::nn::{Module, VarStore};
use tch::{Device, Kind, Reduction, Tensor};

use crate::util::{Ended, difference, generator, program, run, small_mnist, temp};

/// Whole groups of lanes, one more, one less; more than what is gathered of the linear layers.
const SIZES: [i64; 8] = [1, 7, 8, 15, 16, 17, 33, 145];

fn settings() -> impl Iterator<Item = ModelConfig> {
    [Activation::Tanh, Activation::Relu].into_iter().flat_map(|activation| {
        [(Pooling::Avg, 10), (Pooling::Max, 26)].map(|(pooling, classes)| ModelConfig {
            activation,
            pooling,
            classes,
            ..ModelConfig::default()
        })
    })
}

#[test]
fn logits_loss_and_gradients_as_libtorch_in_float64() {
    let _lock = generator();
    for config in settings() {
        tch::manual_seed(3);
        let mut store = VarStore::new(Device::Cpu);
        let model = LeNet5::new(&store.root(), &config).unwrap();
        let parameters: Vec<_> = model.parameters().into_iter().map(|(_, p)| p).collect();
        let mut values = Parameters::zeros(config.classes as usize);
        values.read(&parameters);
        store.double();
        let doubles: Vec<_> = model.parameters().into_iter().map(|(_, p)| p).collect();
        for size in SIZES {
            let images = Tensor::rand([size, 1, 32, 32], (Kind::Float, Device::Cpu));
            let labels = Tensor::randint(config.classes, [size], (Kind::Int64, Device::Cpu));
            let logits = model.forward(&images.to_kind(Kind::Double));
            let loss =
                logits.cross_entropy_loss(&labels, None::<Tensor>, Reduction::Mean, -100, 0.0);
            let expected = Tensor::run_backward(&[&loss], &doubles, false, false);
            let pixels = Vec::<f32>::try_from(images.flatten(0, -1)).unwrap();
            let images = pixels.as_chunks::<1024>().0;
            let labels = Vec::<u8>::try_from(labels.to_kind(Kind::Uint8)).unwrap();
            for isa in Isa::available() {
                let mut engine = Engine::of(&config).with_isa(isa);
                let what = format!("{:?} {size} {}", config.activation, isa.name());
                let found = engine.logits(&values, &mut &images[..], size as usize);
                let found = Tensor::from_slice(&found).reshape(logits.size());
                let error = difference(&found, &logits);
                assert!(error < 1e-5, "{what}: logits {error:.1e}");
                let mut gradient = values.clone(); // what it held must not matter
                // Twice: what the batch before left must not matter either.
                for _ in 0..2 {
                    let found = engine.gradient(&values, &mut &images[..], &labels, &mut gradient);
                    let error = (found / loss.double_value(&[]) - 1.0).abs();
                    assert!(error < 1e-6, "{what}: loss {error:.1e}");
                }
                let found = gradient.to_tensors(&parameters);
                let mut worst = 0.0_f64;
                for ((name, _), (ours, theirs)) in
                    model.parameters().iter().zip(found.iter().zip(&expected))
                {
                    let error = difference(ours, theirs);
                    worst = worst.max(error);
                    assert!(error < 1e-5, "{what}: gradient of {name} {error:.1e}");
                }
                println!("{what}: gradients within {worst:.1e}");
            }
        }
    }
}

fn trained(arguments: &[&str], out: &Path) -> (Weights, Vec<Metrics>) {
    let mut command = program("train");
    command.args(["--threads=1", "--device=cpu", "--epochs=2", "--data"]).arg(small_mnist());
    Ended::from(command.args(arguments).arg("--out").arg(out).output().unwrap()).success();
    let metrics = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let metrics = metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (Weights::read(&out.join("model.pt")).unwrap(), metrics)
}

#[test]
fn trains_as_libtorch_does() {
    let folder = temp();
    for (index, arguments) in [
        &["--batch-size=64"][..], // the last batch has 40 images
        &["--optimizer=adam", "--activation=relu", "--batch-size=10", "--mean=0.13", "--std=0.3"],
        &["--preset=best", "--batch-size=100"],
    ]
    .into_iter()
    .enumerate()
    {
        let of = |engine: &str| {
            let out = folder.path().join(format!("{engine}-{index}"));
            trained(&[arguments, &["--engine", engine]].concat(), &out)
        };
        let ((ours, measured), (theirs, expected)) = (of("auto"), of("libtorch"));
        for ((name, ours), (_, theirs)) in ours.tensors.iter().zip(&theirs.tensors) {
            let error = difference(ours, theirs);
            println!("{arguments:?} {name}: {error:.1e}");
            assert!(error > 0.0, "auto is the fused engine");
            assert!(error < 2e-3, "{arguments:?} {name}: {error:.1e}");
        }
        for (ours, theirs) in measured.iter().zip(&expected) {
            assert!((ours.train_loss / theirs.train_loss - 1.0).abs() < 1e-4);
            assert_eq!(ours.learning_rate, theirs.learning_rate);
        }
        assert!(measured[1].train_loss < measured[0].train_loss);
    }
}

#[test]
fn what_it_cannot_do() {
    for (arguments, message) in [
        (&["--activation=sigmoid"][..], "--engine fused goes with --activation tanh or relu only"),
        (&["--input=unpadded"], "--engine fused takes images of 32x32 pixels only"),
        (&["--loss=distance"], "--engine fused goes with --loss cross-entropy only"),
        (&["--classes=129"], "--engine fused has room for 128 classes"),
    ] {
        let common = ["--engine=fused", "--device=cpu", "--out", "never"];
        run("train", [&common[..], arguments].concat()).fails_with(message);
    }
}
