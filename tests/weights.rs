//! Tests of files of weights, from Python and for Python.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use lenet5::data::to_input;
use lenet5::libtorch::{Generator, to_array};
use lenet5::model::{
    Activation, C5, HiddenActivation, Input, LayerOrder, LeNet5, ModelConfig, ModelOptions,
    Network, Pooling,
};
use lenet5::weights::{self, Format, Limits, Provenance, Weights, write_tensors};
use lenet5_core::Array;
use tch::nn::Module;
use tch::{Device, Kind, Tensor};

use crate::util::{Bits, fixtures, python, root, shared, temp, tensors};

pub const FORMATS: [(Format, &str); 3] =
    [(Format::TorchScript, "pt"), (Format::StateDict, "pth"), (Format::SafeTensors, "safetensors")];

/// Returns networks that differ in all settings.
fn configs() -> [(&'static str, ModelConfig); 9] {
    [
        ("default", ModelConfig::default()),
        (
            "other",
            ModelConfig {
                activation: Activation::Relu,
                pooling: Pooling::Max,
                c5: C5::Linear,
                classes: 10,
                mean: 0.1307,
                std: 0.3081,
                input: Input::ZeroPadded,
                ..ModelConfig::default()
            },
        ),
        (
            "sigmoid",
            ModelConfig { activation: Activation::Sigmoid, classes: 47, ..ModelConfig::default() },
        ),
        (
            "unpadded",
            ModelConfig {
                activation: Activation::ScaledTanh,
                input: Input::Unpadded,
                ..ModelConfig::default()
            },
        ),
        ("original", ModelConfig::original()),
        (
            "original-96",
            ModelConfig {
                classes: 96,
                train_rbf: true,
                rbf_scale: 0.02,
                ..ModelConfig::original()
            },
        ),
        (
            "unpadded-linear",
            ModelConfig { c5: C5::Linear, input: Input::Unpadded, ..ModelConfig::default() },
        ),
        (
            "pooling-first",
            ModelConfig {
                activation: Activation::Relu,
                pooling: Pooling::Max,
                layer_order: LayerOrder::PoolingFirst,
                ..ModelConfig::default()
            },
        ),
        (
            "no-hidden-activation",
            ModelConfig { hidden_activation: HiddenActivation::None, ..ModelConfig::default() },
        ),
    ]
}

/// Creates a network of random weights, which are the same in each run.
pub fn random(config: &ModelConfig) -> Weights {
    let draw = || LeNet5::random(config, Device::Cpu);
    Generator::seeded(4).unwrap().draw(draw).unwrap().unwrap().weights().unwrap()
}

fn compare(bits: &mut Bits, name: &str, ours: &Weights, theirs: &Weights) {
    assert_eq!(ours.tensors.len(), ours.config.state().len(), "{name}");
    for ((expected, _), (parameter, tensor)) in ours.config.state().iter().zip(&ours.tensors) {
        assert_eq!(parameter, expected, "{name}");
        bits.compare_arrays(
            &format!("{name}: {parameter}"),
            tensor,
            theirs.get(parameter).unwrap(),
        );
    }
}

#[test]
fn round_trips() {
    let folder = temp();
    let mut bits = Bits::default();
    for (_, config) in configs() {
        let mut weights = random(&config);
        // Values that a conversion to text or to another type would change.
        let odd = [f32::MIN_POSITIVE / 4.0, -0.0, f32::MAX, f32::EPSILON, -1e-30, 1.0 / 3.0];
        weights.tensors[1].1 = Array::from_f32(&[6], &odd);
        for (format, _) in FORMATS {
            // The format is detected from the content, not the name.
            let path = folder.path().join("weights");
            weights::write(&weights, &path, format).unwrap();
            let found = Weights::read(&path).unwrap();
            assert_eq!(found.config, config);
            compare(&mut bits, &format.to_string(), &found, &weights);
            let model = LeNet5::from_weights(&found, Device::Cpu).unwrap();
            assert_eq!(model.config(), &config);
            // The same weights lead to the same bytes.
            assert_eq!(
                weights::to_bytes(&weights, format).unwrap(),
                fs::read(&path).unwrap(),
                "{format}"
            );
        }
    }
    bits.check(3 * (7 * 10 + 2 * 13));
}

/// With as many classes as another layer has units, two biases have the same shape.
#[test]
fn foreign_biases_go_with_their_weights() {
    let folder = temp();
    let mut bits = Bits::default();
    for classes in [6, 16, 84, 120] {
        let ours = random(&ModelConfig { classes, ..ModelConfig::default() });
        // If names are sorted, as safetensors from Python sorts them, the output comes first.
        let foreign = ["features.0", "features.3", "features.6", "head.1", "classifier"];
        let mut sorted: Vec<_> = ours
            .tensors
            .iter()
            .enumerate()
            .map(|(i, (name, tensor))| {
                let part = name.split_once('.').unwrap().1;
                (format!("{}.{part}", foreign[i / 2]), tensor.clone())
            })
            .collect();
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        let path = folder.path().join("foreign.safetensors");
        write_tensors(&path, &sorted).unwrap();
        let found = Weights::read(&path).unwrap();
        assert_ne!(found.provenance, Provenance::Known);
        compare(&mut bits, &format!("{classes} classes"), &found, &ours);
    }
    bits.check(4 * 10);
}

/// Tests files that Python wrote: see tests/forms.py.
pub fn forms() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = shared();
        python("forms.py", "forms", &[&folder]);
        folder
    })
}

/// Reads a file of tests/forms.py.
#[derive(serde::Deserialize)]
struct Case {
    file: String,
    config: ModelConfig,
    notes: Vec<String>,
}

/// Returns the logits of a network with these weights on images, as bytes.
fn logits_of(weights: &Weights, images: &Tensor) -> Tensor {
    let model = LeNet5::from_weights(weights, Device::Cpu).unwrap();
    tch::set_num_threads(1);
    model.forward(&to_input(images, &weights.config)).detach()
}

#[test]
fn reads_every_form() {
    let images = &tensors(&forms().join("images.safetensors"))["images"];
    let logits = tensors(&forms().join("logits.safetensors"));
    let cases: Vec<Case> =
        serde_json::from_slice(&fs::read(forms().join("cases.json")).unwrap()).unwrap();
    assert!(cases.len() > 100, "{} cases", cases.len());
    let mut bits = Bits::default();
    for Case { file, config, notes } in &cases {
        let path = forms().join(file);
        let mut weights = Weights::read(&path).unwrap_or_else(|error| panic!("{error}"));
        // Whole modules of this project's own class hold their settings.
        if weights.provenance == Provenance::Known {
            assert_eq!(weights.config, *config, "{file}");
        }
        // Settings that the shapes imply are inferred; the user states the others.
        let ModelConfig { activation, pooling, layer_order, hidden_activation, .. } = *config;
        let ModelConfig { input, mean, std, .. } = *config;
        let some = ModelOptions {
            activation: Some(activation),
            pooling: Some(pooling),
            input: Some(input),
            mean: Some(mean),
            std: Some(std),
            layer_order: Some(layer_order),
            hidden_activation: Some(hidden_activation),
        };
        let found = weights.notes().join("\n");
        assert!(notes.iter().all(|note| found.contains(note.as_str())), "{file}: {found}");
        assert_eq!(found.contains("converted"), !notes.is_empty(), "{file}: {found}");
        weights.set(&some).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(&weights.config, config, "{file}");
        bits.compare(file, &logits_of(&weights, images), &logits[file]);
    }
    bits.check(cases.len());
}

/// The settings that the files state.
#[test]
fn notes() {
    let notes = |file: &str| Weights::read(&forms().join(file)).unwrap().notes();
    let assumed = |config: &str, known: &str| {
        format!(
            "of its settings the file says {known}; taken: {config}; options such as --activation \
             change them, and convert --detect finds them by trial"
        )
    };
    let default = "tanh activation, avg pooling, padded input, mean 0, std 1";
    assert_eq!(notes("state_dict.pth"), [assumed(default, "nothing")]);
    assert_eq!(
        notes("tutorial_whole.pth"),
        [
            "names matched by shape: conv1 -> c1, conv2 -> c3, fc1 -> c5, fc2 -> f6, fc3 -> output"
                .to_owned(),
            assumed(default, "nothing"),
        ]
    );
    let relu = "relu activation, max pooling, padded input, mean 0, std 1";
    assert_eq!(
        notes("resized_whole.pth")[1],
        assumed(relu, "only activation, pooling"),
        "by the classes of its layers"
    );
    let code = assumed(default, "only activation, pooling");
    assert_eq!(notes("traced.pt"), [code.as_str()], "by its code");
    assert_eq!(notes("scripted_features.pt")[1], code);
    assert_eq!(notes("under_two_keys.pth")[0], "weights found under state");
    assert_eq!(notes("legacy_bfloat16.pth")[0], "converted to float32 from bfloat16");
    let traced = notes("scaled_tanh_traced.pt");
    assert!(
        traced[0].contains("the file says only pooling;"),
        "a trace hides the factor: {traced:?}"
    );
    assert!(notes("scaled_tanh_scripted.pt")[0].contains("taken: scaled-tanh activation, avg"));
    let padded = "sigmoid activation, avg pooling, zero-padded input, mean 0, std 1";
    let padded = assumed(padded, "only activation, pooling, input");
    assert_eq!(notes("d2l_whole.pth")[1], padded, "by its padding");
    assert_eq!(notes("averaged.pth")[1], "left out: n_averaged");
    let names = |layers: [&str; 5]| layers.map(|layer| format!("{layer}.bias")).join(", ");
    let zeros = names(["conv1", "conv2", "fc1", "fc2", "fc3"]);
    assert_eq!(notes("no_biases.pth")[1], format!("biases that the file has not are 0: {zeros}"));
    let products = "pruned: multiplied by their masks: conv1.weight, fc2.weight";
    assert_eq!(notes("pruned.pth")[1], products);
    assert_eq!(notes("buffers.pth")[0], "left out: mean, std");
    assert_eq!(notes("trainer.pth")[0], "weights found under model");
    assert_eq!(Weights::shipped(Network::Modern).unwrap().notes(), [""; 0]);
}

#[test]
fn a_model_tuned_in_python_comes_back() {
    let folder = temp();
    let images = &tensors(&forms().join("images.safetensors"))["images"];
    let mut bits = Bits::default();
    for (name, config) in configs() {
        if config.classes != 10 || config.network == Network::Original {
            continue; // forms.py uses MNIST's labels and cross-entropy
        }
        let file = folder.path().join(format!("{name}.pt"));
        weights::write(&random(&config), &file, Format::TorchScript).unwrap();
        let out = folder.path().join(format!("{name}-tuned"));
        python("forms.py", "tune", &[&file, &out]);
        let expected = &tensors(&out.with_extension("safetensors"))["logits"];
        let script = Weights::read(&out.with_extension("pt")).unwrap();
        assert_eq!((&script.config, script.provenance), (&config, Provenance::Known), "{name}");
        bits.compare(name, &logits_of(&script, images), expected);
        let mut state = Weights::read(&out.with_extension("pth")).unwrap();
        state.config = config;
        bits.compare(name, &logits_of(&state, images), expected);
    }
    bits.check(12);
}

#[test]
fn python_reads_what_rust_wrote() {
    let folder = temp();
    let mut models = serde_json::Map::new();
    // `check` in fixtures.py also uses one thread.
    tch::set_num_threads(1);
    for (name, config) in configs() {
        let weights = random(&config);
        for (format, suffix) in FORMATS {
            let path = folder.path().join(format!("{name}.{suffix}"));
            weights::write(&weights, &path, format).unwrap();
        }
        let images = {
            let size = config.input.size() as i64;
            let draw = || Tensor::rand([33, 1, size, size], (Kind::Float, Device::Cpu));
            Generator::seeded(8).unwrap().draw(draw).unwrap()
        };
        let logits = LeNet5::from_weights(&weights, Device::Cpu).unwrap().forward(&images).detach();
        let mut expected = weights.tensors;
        expected.extend(
            [("images", images), ("logits", logits)]
                .map(|(name, tensor)| (name.to_owned(), to_array(&tensor).unwrap())),
        );
        let path = folder.path().join(format!("{name}-expected.safetensors"));
        write_tensors(&path, &expected).unwrap();
        models.insert(name.to_owned(), serde_json::to_value(&config).unwrap());
    }
    fs::write(folder.path().join("models.json"), serde_json::to_vec(&models).unwrap()).unwrap();
    fixtures("check", folder.path());
}

/// Tests that the checksum in a safetensors file covers tensors, names, shapes and settings.
#[test]
fn each_flipped_bit_of_a_safetensors_file_is_found() {
    let bytes = fs::read(root().join("weights/lenet5.safetensors")).unwrap();
    let whole = Weights::from_bytes(&bytes, &Limits::default()).unwrap();
    let header = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let in_data = (header..bytes.len()).step_by((bytes.len() - header) / 200);
    for at in (0..header).chain(in_data) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        match Weights::from_bytes(&damaged, &Limits::default()) {
            Err(_) => {}
            // If the name of the checksum is damaged, there is no checksum, and the rest is valid.
            Ok(found) => {
                assert!(
                    !String::from_utf8_lossy(&damaged).contains("\"lenet5.crc32\""),
                    "byte {at}"
                );
                assert_eq!(found.config, whole.config);
                assert_eq!(found.tensors, whole.tensors);
            }
        }
    }
    let mut damaged = bytes.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let message = Weights::from_bytes(&damaged, &Limits::default()).unwrap_err();
    assert!(message.starts_with("expected the checksum "), "{message}");
    assert!(message.contains("the file is damaged"), "{message}");
}
