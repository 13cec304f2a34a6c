"""Writes LeNet-5 by PyTorch in every file format in which it is found in public.

Run: .venv/bin/python tests/forms.py forms FOLDER     (cargo test does)
     .venv/bin/python tests/forms.py seeds FOLDER     (for fuzz/)
     .venv/bin/python tests/forms.py tune FILE OUT    (cargo test does)
Writes:
  forms  FOLDER/*: one file per format; cases.json: the expected settings and notes of each;
         images.safetensors: the first 8 test images; logits.safetensors: the expected logits of
         each file for these images; FOLDER/refused/*: files without a readable LeNet-5
  seeds  FOLDER/{pickle,container,idx,data_set}/*: small files of each format
  tune   OUT.pt, OUT.pth: TorchScript that Rust wrote, trained for a few more steps;
         OUT.safetensors: its logits for the first 8 test images
"""

import argparse
import contextlib
import enum
import gzip
import io
import json
import os
import pickle
import shlex
import sys
import warnings
import zipfile
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
import torch.nn.utils.prune
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
import lenet5
from mnist import read_mnist, to_input, write_idx

TRAINED = Path(__file__).parent / "tanh.pth"

DEFAULT = {
    "activation": "tanh",
    "pooling": "avg",
    "c5": "convolution",
    "classes": 10,
    "mean": 0.0,
    "std": 1.0,
    "input": "padded",
    "layer_order": "activation-first",
    "hidden_activation": "same",
}


class LeNet5(lenet5.LeNet5):
    """A network of another project: its files do not hold the settings."""

    _save_to_state_dict = nn.Module._save_to_state_dict
    _load_from_state_dict = nn.Module._load_from_state_dict


class ConvFc(nn.Module):
    """A network with the layer names of many tutorials."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.conv3 = nn.Conv2d(16, 120, 5)
        self.fc1 = nn.Linear(120, 84)
        self.fc2 = nn.Linear(84, 10)

    def forward(self, x):
        x = F.avg_pool2d(torch.tanh(self.conv1(x)), 2)
        x = F.avg_pool2d(torch.tanh(self.conv2(x)), 2)
        x = torch.tanh(self.conv3(x)).flatten(1)
        return self.fc2(torch.tanh(self.fc1(x)))


class Tutorial(nn.Module):
    """The network of PyTorch's own tutorial: ReLU, max pooling, a linear c5."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), (2, 2))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = torch.flatten(x, 1)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


class Features(nn.Module):
    """A network with one nn.Sequential for features and one for the classifier."""

    def __init__(self, activation=nn.Tanh, pooling=nn.AvgPool2d, c5=5):
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(1, 6, 5), activation(), pooling(2)),
            *(nn.Conv2d(6, 16, 5), activation(), pooling(2)),
            *(nn.Conv2d(16, 120, c5), activation()),
        )
        self.classifier = nn.Sequential(nn.Linear(120, 84), activation(), nn.Linear(84, 10))

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


class PoolingFirst(Tutorial):
    """A network with the activation after max pooling, and none after c5 and f6."""

    def forward(self, x):
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        return self.fc3(self.fc2(self.fc1(x.flatten(1))))


class Part(nn.Module):
    """A layer in a module of its own, so that its weight is named `c1.c1.weight`."""

    def __init__(self, name: str, layer: nn.Module):
        super().__init__()
        self.name = name
        self.add_module(name, layer)

    def forward(self, x):
        return torch.tanh(getattr(self, self.name)(x))


class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1 = Part("c1", nn.Conv2d(1, 6, 5))
        self.c2 = Part("c2", nn.Conv2d(6, 16, 5))
        self.c3 = Part("c3", nn.Conv2d(16, 120, 5))
        self.f4 = Part("f4", nn.Linear(120, 84))
        self.f5 = nn.Linear(84, 10)

    def forward(self, x):
        x = F.avg_pool2d(self.c2(F.avg_pool2d(self.c1(x), 2)), 2)
        return self.f5(self.f4(self.c3(x).flatten(1)))


def sequential(activation=nn.Sigmoid, pooling=nn.AvgPool2d, padding=0, c5=400) -> nn.Sequential:
    """One nn.Sequential with a linear c5, as in "Dive into Deep Learning" (padding 2)."""
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=padding), activation(), pooling(2)),
        *(nn.Conv2d(6, 16, 5), activation(), pooling(2), nn.Flatten()),
        *(nn.Linear(c5, 120), activation(), nn.Linear(120, 84), activation()),
        nn.Linear(84, 10),
    )


class Wrapped(nn.Module):
    """Adds a prefix to names as nn.DataParallel does, and can be stored in TorchScript."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)


class Colour(enum.Enum):
    RED = 1


Size = namedtuple("Size", "height width")


@dataclass
class Settings:
    size: Size
    parent: "Settings | None" = None


class Subclass(torch.Tensor):
    """A subclass of Tensor."""


def filled(model: nn.Module, values) -> nn.Module:
    """Fills the model with these values, in the order of its own tensors."""
    state = model.state_dict()
    pairs = zip(state.items(), values, strict=True)
    model.load_state_dict({name: value.reshape(old.shape) for (name, old), value in pairs})
    return model.eval()


def repack(data: bytes, path: Path, root="archive/", skip=(), change=None, **options) -> None:
    """Rewrites torch.save's archive by zipfile, with another root, fewer or changed records."""
    zip64 = options.pop("zip64", False)
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(path, "w", **options) as new:
        for info in old.infolist():
            record = info.filename.split("/", 1)[1]
            if record not in skip:
                content = old.read(info)
                # `open` with a name uses the archive's compression type, and a fixed date.
                with new.open(root + record, "w", force_zip64=zip64) as file:
                    file.write(change(record, content) if change else content)


def seeded(model: nn.Module) -> nn.Module:
    torch.manual_seed(3)
    return filled(model, [torch.randn_like(p) / p[0].numel() ** 0.5 for p in model.parameters()])


class Cases:
    """The files of a folder, with the expected result of each."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.images = read_mnist("t10k")[0][:8].clone()  # without the storage of all 10,000
        self.cases, self.logits = [], {}
        (folder / "refused").mkdir(exist_ok=True)

    def logits_of(self, model: nn.Module, config: dict, explicit_padding=True) -> Tensor:
        form = "unpadded" if not explicit_padding else config["input"]
        batch = to_input(self.images, config["mean"], config["std"], form)
        with torch.no_grad():
            return model(batch)

    def expect(self, name: str, logits: Tensor, notes=(), **config) -> Path:
        """Adds a case; the caller writes its file to the path returned."""
        case = {"file": name, "config": DEFAULT | config, "notes": list(notes)}
        self.cases.append(case)
        self.logits[name] = logits.clone()
        return self.folder / name

    def refuse(self, name: str, value, **options) -> None:
        torch.save(value, self.folder / "refused" / name, **options)

    def write(self) -> None:
        (self.folder / "cases.json").write_text(json.dumps(self.cases, indent=1))
        save_file(self.logits, self.folder / "logits.safetensors")
        save_file({"images": self.images}, self.folder / "images.safetensors")


def forms(folder: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(1)
    cases = Cases(folder)
    base = LeNet5().eval()
    base.load_state_dict(torch.load(TRAINED, weights_only=True))
    logits = cases.logits_of(base, DEFAULT)
    for name, value, options in same_weights(base):
        torch.save(value, cases.expect(name, logits), **options)
    archives(cases, base, logits)
    scripts(cases, base, logits)
    safetensors(cases, base, logits)
    converted(cases, base)
    architectures(cases)
    refused(cases, base)
    cases.write()


def same_weights(model: nn.Module):
    """Yields values that all hold the weights of `model`, with options for torch.save."""
    state = model.state_dict()
    values = list(state.values())
    plain = {name: tensor.clone() for name, tensor in state.items()}
    assert isinstance(state, OrderedDict) and hasattr(state, "_metadata")

    def prefixed(prefix: str) -> dict[str, Tensor]:
        return {prefix + name: tensor for name, tensor in state.items()}

    def named(*layers: str) -> dict[str, Tensor]:
        names = [f"{layer}.{part}" for layer in layers for part in ("weight", "bias")]
        return dict(zip(names, values, strict=True))

    def foreign(other: nn.Module) -> dict[str, Tensor]:
        return filled(other, values).state_dict()

    momentum = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    model(torch.rand(2, 1, 32, 32)).sum().backward()
    momentum.step()
    model.zero_grad()
    whole = torch.cat([tensor.flatten() for tensor in values])
    views = zip(whole.split([v.numel() for v in values]), state.items(), strict=True)
    shared = {name: part.reshape(tensor.shape) for part, (name, tensor) in views}
    strided = {
        name: tensor.mT.contiguous().mT
        if tensor.dim() > 1
        else tensor.repeat(2, 1).T.contiguous()[:, 0]
        for name, tensor in state.items()
    }
    assert not strided["c3.weight"].is_contiguous() and not strided["c1.bias"].is_contiguous()
    larger = {name: torch.cat([t[:1], t, t[:1]])[1:-1] for name, t in state.items()}
    marked = {name: nn.Parameter(tensor.clone()) for name, tensor in state.items()}
    for parameter in marked.values():
        parameter.mark = "frozen"
    old = {"_use_new_zipfile_serialization": False}
    checkpoint = {
        "epoch": 3,
        "model_state_dict": state,
        "optimizer_state_dict": momentum.state_dict(),
        "loss": torch.tensor(0.25),
        "rng_state": torch.get_rng_state(),
        "args": argparse.Namespace(lr=0.1, big=1 << 80, folders=[Path("a"), None]),
    }
    odd = filled(LeNet5(), values)
    odd.extra = [Path("a"), Colour.RED, np.float32(1), {1, 2}, frozenset(), b"\x80", 1 << 70, ...]
    odd.settings = Settings(Size(32, 32), Settings(Size(28, 28)))
    fc = filled(ConvFc(), values)

    yield "state_dict.pth", state, {}
    yield "plain_dict.pth", plain, {}
    for protocol in 1, 3, 4, 5:
        yield f"protocol_{protocol}.pth", state, {"pickle_protocol": protocol}
        yield f"legacy_protocol_{protocol}.pth", state, old | {"pickle_protocol": protocol}
    yield "weights.bin", state, {}
    yield "weights.txt", state, {}
    yield "a file without suffix", state, old
    yield "legacy.pth", model, old
    yield "legacy_state_dict.pth", state, old
    yield "legacy_checkpoint.pth", checkpoint, old
    yield "legacy_strided.pth", strided, old
    yield "legacy_shared.pth", shared, old

    prefixes = "module.", "_orig_mod.", "module._orig_mod.", "model.", "net.x.", "lenet."
    for i, prefix in enumerate(prefixes):
        yield f"prefix_{i}.pth", prefixed(prefix), {}
    yield "checkpoint_model_state_dict.pth", checkpoint, {}
    # With a name of 21 letters, a reader easily finds the zip's directory at a wrong position.
    yield "checkpoint_state_dict.pth", {"best": 0.9, "state_dict": prefixed("module.")}, {}
    for key in "net", "network", "weights", "params", "model_state", "net_state_dict":
        yield f"under_{key}.pth", {key: state, "epoch": 1}, {}
    for key in "model", "student":  # the optimizer's tensors of the same shapes come first
        value = {"optimizer": momentum.state_dict(), key: state, "epoch": 1}
        yield f"under_{key}.pth", value, {}
    yield "under_two_keys.pth", {"state": {"model": state, "optim": momentum.state_dict()}}, {}
    other = {name: tensor + 1 for name, tensor in state.items()}
    yield "under_ema_too.pth", {"ema_model": other, "model": state}, {}
    lightning = {
        "pytorch-lightning_version": "2.5.0",
        "state_dict": prefixed("model."),
        "optimizer_states": [momentum.state_dict()],
        "hyper_parameters": {"lr": 0.1},
        "callbacks": {},
    }
    yield "lightning.ckpt", lightning, {}

    averaged = torch.optim.swa_utils.AveragedModel(fc)
    yield "averaged.pth", averaged.state_dict(), {}
    yield "averaged_whole.pth", {"model_ema": averaged}, {}
    weighted = {"criterion.weight": torch.ones(10)} | prefixed("model.")
    yield "criterion_too.ckpt", {"state_dict": weighted}, {}
    yield "buffers.pth", {"mean": torch.zeros(1), "std": torch.ones(1)} | state, {}
    again = {f"features.{name}": t for name, t in state.items() if name.startswith("c")}
    yield "second_names.pth", state | again, {}
    yield "counter.pth", state | {"epoch": torch.tensor(7)}, {}
    yield "trainer.pth", SimpleNamespace(model=fc, optimizer=momentum, step=3), {}
    random = {"model": state, "numpy": np.random.RandomState(1).get_state(), "raw": bytearray(3)}
    yield "protocol_5_arrays.pth", random | {"name": "a\udc80"}, {"pickle_protocol": 5}
    yield "history.pth", {"model": state, "losses": [i / 7 for i in range(120_000)]}, {}

    yield "whole_model.pth", model, {}
    yield "whole_conv_fc.pth", fc, {}
    yield "whole_features.pth", filled(Features(), values), {}
    yield "whole_data_parallel.pth", nn.DataParallel(fc), {}
    yield "whole_with_attributes.pth", odd, {}
    yield "whole_under_model.pth", {"model": fc, "optimizer": momentum}, {}
    yield "compiled.pth", torch.compile(fc).state_dict(), {}
    yield "whole_compiled.pth", torch.compile(fc), {}
    yield "list.pth", [tensor.clone() for tensor in values], {}
    yield "parameter_list.pth", list(model.parameters()), {}

    yield "parameters.pth", dict(model.named_parameters()), {}
    yield "with_attributes.pth", marked, {}
    yield "subclass.pth", {name: t.as_subclass(Subclass) for name, t in plain.items()}, {}
    yield "strided.pth", strided, {}
    yield "larger_storage.pth", larger, {}
    yield "shared.pth", shared, {}
    yield "another_order.pth", dict(reversed(state.items())), {}
    for name, other in {"conv_fc": ConvFc(), "features": Features(), "nested": Nested()}.items():
        yield f"{name}.pth", foreign(other), {}
    yield "layers.pth", named("layer1.0", "layer2.0", "layer3.0", "fc1", "fc2"), {}
    yield "convnet.pth", named("convnet.c1", "convnet.c3", "convnet.c5", "fc.f6", "fc.f7"), {}


def archives(cases: Cases, model: nn.Module, logits: Tensor) -> None:
    """Writes zip archives as other programs, other versions and other machines do."""
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)

    def rewrite(name, **options):
        repack(buffer.getvalue(), cases.expect(name, logits), **options)

    def swap(record: str, data: bytes) -> bytes:
        if record == "byteorder":
            return b"big"
        return np.frombuffer(data, ">f4").astype("<f4").tobytes() if "data/" in record else data

    rewrite("root.pth", root="my model/")
    rewrite("no_byteorder.pth", skip=("byteorder",))
    records = ("byteorder", ".format_version", ".storage_alignment", ".data/serialization_id")
    rewrite("few_records.pth", skip=records)
    rewrite("deflated.pth", compression=zipfile.ZIP_DEFLATED)
    rewrite("zip64.pth", zip64=True)
    rewrite("big_endian.pth", change=swap)
    for case in cases.cases[-6:]:
        torch.load(cases.folder / case["file"], weights_only=True)

    for location in "cuda:0", "mps":
        with mock.patch("torch.serialization.location_tag", lambda storage, tag=location: tag):
            torch.save(model.state_dict(), cases.expect(f"{location.rstrip(':0')}.pth", logits))


def scripts(cases: Cases, model: nn.Module, logits: Tensor) -> None:
    """Writes TorchScript files."""
    values = list(model.state_dict().values())
    example = torch.rand(1, 1, 32, 32)
    fc, features = filled(ConvFc(), values), filled(Features(), values)
    flat = nn.Sequential(*features.features, nn.Flatten(), *features.classifier)
    layers = [name for name, _ in fc.named_children()]
    for name, script in {
        "traced.pt": torch.jit.trace(model, example),
        "traced_conv_fc.pt": torch.jit.trace(fc, example),
        "traced_wrapped.pt": torch.jit.trace(Wrapped(fc), example),
        "scripted_conv_fc.pt": torch.jit.script(fc),
        "scripted_wrapped.pt": torch.jit.script(Wrapped(fc)),
        "scripted_features.pt": torch.jit.script(features),
        "scripted_sequential.pt": torch.jit.script(flat),
        # If no layers are preserved, the state dict is empty: see `refused`.
        "frozen_with_layers.pt": torch.jit.freeze(torch.jit.script(fc), preserved_attrs=layers),
    }.items():
        script.save(cases.expect(name, logits))
    torch.jit.trace(filled(Features(), values).double(), example.double()).save(
        cases.expect("traced_double.pt", logits, ["float64"])
    )


def safetensors(cases: Cases, model: nn.Module, logits: Tensor) -> None:
    state = model.state_dict()
    fc = filled(ConvFc(), state.values()).state_dict()
    save_file(state, cases.expect("model.safetensors", logits))
    save_file(fc, cases.expect("conv_fc.safetensors", logits), {"author": "someone"})
    prefixed = {f"module.{name}": tensor for name, tensor in state.items()}
    save_file(prefixed, cases.expect("prefix.safetensors", logits), {"format": "pt"})


def converted(cases: Cases, model: nn.Module) -> None:
    """Writes weights in other types; the expected logits are those of the rounded weights."""
    state = model.state_dict()
    for dtype in torch.float64, torch.float16, torch.bfloat16:
        kind = str(dtype).removeprefix("torch.")
        other = {name: tensor.to(dtype) for name, tensor in state.items()}
        rounded = filled(LeNet5(), [tensor.float() for tensor in other.values()])
        logits = cases.logits_of(rounded, DEFAULT)
        torch.save(other, cases.expect(f"{kind}.pth", logits, [kind]))
        torch.save(
            other,
            cases.expect(f"legacy_{kind}.pth", logits, [kind]),
            _use_new_zipfile_serialization=False,
        )
        save_file(other, cases.expect(f"{kind}.safetensors", logits, [kind]))
    mixed = {n: t.half() if n.endswith("weight") else t.double() for n, t in state.items()}
    rounded = filled(LeNet5(), [tensor.float() for tensor in mixed.values()])
    logits = cases.logits_of(rounded, DEFAULT)
    torch.save(mixed, cases.expect("mixed.pth", logits, ["float16", "float64"]))
    expanded = state | {"c5.bias": torch.tensor(0.25).expand(120)}
    logits = cases.logits_of(filled(LeNet5(), expanded.values()), DEFAULT)
    torch.save(expanded, cases.expect("expanded.pth", logits))


def architectures(cases: Cases) -> None:
    """Writes untrained LeNet-5s of different architectures."""
    scaled = seeded(LeNet5("scaled-tanh"))
    for name, script in {
        "scaled_tanh_traced.pt": torch.jit.trace(scaled, torch.rand(1, 1, 32, 32)),
        "scaled_tanh_scripted.pt": torch.jit.script(scaled),
    }.items():
        config = {"activation": "scaled-tanh"}
        script.save(cases.expect(name, cases.logits_of(scaled, DEFAULT | config), **config))
    mnist, half = {"mean": 0.1307, "std": 0.3081}, {"mean": 0.5, "std": 0.5}
    relu = {"activation": "relu", "pooling": "max"}
    sigmoid = {"activation": "sigmoid", "c5": "linear"}
    unpadded = {"input": "unpadded", "c5": "linear"}
    for name, model, config in [
        ("tutorial", Tutorial(), relu | {"c5": "linear"}),
        ("tutorial_normalised", Tutorial(), relu | {"c5": "linear"} | mnist),
        ("d2l", sequential(padding=2), sigmoid | {"input": "zero-padded"}),
        ("d2l_normalised", sequential(padding=2), sigmoid | mnist | {"input": "zero-padded"}),
        ("resized", Features(nn.ReLU, nn.MaxPool2d), relu | half | {"input": "resized"}),
        ("unpadded", sequential(nn.Tanh, c5=256), unpadded),
        ("unpadded_relu", sequential(nn.ReLU, nn.MaxPool2d, c5=256), relu | unpadded | mnist),
        ("unpadded_convolution", Features(c5=4), {"input": "unpadded"}),
        ("scaled_tanh", LeNet5("scaled-tanh"), {"activation": "scaled-tanh"}),
        (
            "pooling_first",
            PoolingFirst(),
            relu | {"c5": "linear", "layer_order": "pooling-first", "hidden_activation": "none"},
        ),
        ("classes_47", LeNet5(classes=47), {"classes": 47}),
        ("classes_84", LeNet5(classes=84), {"classes": 84}),
        ("classes_120", LeNet5(classes=120), {"classes": 120}),
    ]:
        model = seeded(model)
        # A convolution with padding takes the unpadded image; its bits are those with F.pad.
        explicit = "d2l" not in name
        logits = cases.logits_of(model, DEFAULT | config, explicit)
        torch.save(model.state_dict(), cases.expect(f"{name}.pth", logits, **config))
        torch.save(model, cases.expect(f"{name}_whole.pth", logits, **config))
    without_biases(cases)
    pruned(cases)


def without_biases(cases: Cases) -> None:
    """Writes networks with bias=False in all layers, or in the convolutions only."""
    relu = {"activation": "relu", "pooling": "max", "c5": "linear"}
    for name, layers in {
        "no_biases": ["conv1", "conv2", "fc1", "fc2", "fc3"],
        "no_convolution_biases": ["conv1", "conv2"],
    }.items():
        model = seeded(Tutorial())
        for layer in layers:
            getattr(model, layer).bias = None
        logits = cases.logits_of(model, DEFAULT | relu)
        torch.save(model.state_dict(), cases.expect(f"{name}.pth", logits, **relu))


def pruned(cases: Cases) -> None:
    """Writes a network pruned by torch.nn.utils.prune, with weight_orig and weight_mask."""
    relu = {"activation": "relu", "pooling": "max", "c5": "linear"}
    model = seeded(Tutorial())
    for layer in model.conv1, model.fc2:
        torch.nn.utils.prune.l1_unstructured(layer, "weight", amount=0.4)
    logits = cases.logits_of(model, DEFAULT | relu)
    torch.save(model.state_dict(), cases.expect("pruned.pth", logits, **relu))
    torch.save(model, cases.expect("pruned_whole.pth", logits, **relu))


class CallsSystem:
    """An object whose pickle runs a command when pickle.load reads it."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


class CallsSystemInState(nn.Module):
    """A module with the command in the argument of the opcode BUILD."""

    def __init__(self, command: str):
        super().__init__()
        self.hook = CallsSystem(command)


def quantised_statically(model: nn.Module) -> nn.Module:
    quantization = torch.ao.quantization
    model = quantization.QuantWrapper(model).eval()
    model.qconfig = quantization.default_qconfig
    quantization.prepare(model, inplace=True)
    model(torch.rand(4, 1, 32, 32))
    return quantization.convert(model)


def refused(cases: Cases, model: nn.Module) -> None:
    state = model.state_dict()

    def changed(change) -> dict[str, Tensor]:
        return state | {"c3.weight": change(state["c3.weight"])}

    cases.refuse("sparse.pth", changed(Tensor.to_sparse))
    cases.refuse("complex.pth", changed(lambda t: t.to(torch.complex64)))
    cases.refuse("meta.pth", changed(lambda t: t.to("meta")))
    cases.refuse("float8.pth", changed(lambda t: t.to(torch.float8_e4m3fn)))
    cases.refuse("nested.pth", changed(lambda t: torch.nested.nested_tensor([t[0], t[1]])))
    cases.refuse("integers.pth", changed(lambda t: (t * 100).to(torch.int16)))
    cases.refuse("nan.pth", changed(lambda t: t / 0))
    quantised = torch.quantize_per_tensor(state["c3.weight"], 0.1, 0, torch.qint8)
    cases.refuse("quantised_tensor.pth", state | {"c3.weight": quantised})
    dynamic = torch.ao.quantization.quantize_dynamic(filled(ConvFc(), state.values()), {nn.Linear})
    cases.refuse("quantised.pth", dynamic.state_dict())
    cases.refuse("quantised_legacy.pth", dynamic.state_dict(), _use_new_zipfile_serialization=False)
    cases.refuse("quantised_whole.pth", dynamic)
    cases.refuse("quantised_static.pth", quantised_statically(Features(nn.ReLU)).state_dict())
    torch.jit.script(dynamic).save(cases.folder / "refused/quantised.pt")
    example = torch.rand(1, 1, 32, 32)
    torch.jit.freeze(torch.jit.script(model)).save(cases.folder / "refused/frozen.pt")
    torch.export.save(torch.export.export(model, (example,)), cases.folder / "refused/export.pt2")

    cases.refuse("batch_norm.pth", nn.Sequential(*model.children(), nn.BatchNorm2d(6)).state_dict())
    cases.refuse("colour.pth", changed(lambda t: t) | {"c1.weight": torch.zeros(6, 3, 5, 5)})
    kernels = nn.Sequential(nn.Conv2d(1, 32, 3), nn.Conv2d(32, 64, 3), nn.Linear(9216, 128))
    cases.refuse("small_kernels.pth", kernels.state_dict())
    perceptron = nn.Sequential(nn.Linear(784, 300), nn.Linear(300, 100), nn.Linear(100, 10))
    cases.refuse("perceptron.pth", perceptron.state_dict())
    cases.refuse("many.pth", {f"layer{i}.weight": torch.zeros(1) for i in range(300)})
    parts = "conv1.weight", "bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var"
    residual = {f"layer{i}.0.{part}": torch.zeros(8) for i in range(12) for part in parts}
    cases.refuse("residual.pth", residual)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    cases.refuse("two.pth", {"first": state, "second": zeros})
    cases.refuse("optimizer.pth", torch.optim.Adam(model.parameters()).state_dict())
    cases.refuse("dataset.pth", {"images": cases.images, "labels": torch.arange(8)})
    cases.refuse("tensor.pth", torch.rand(3))
    cases.refuse("text.pth", "hello")
    cases.refuse("numpy_dict.pth", {name: tensor.numpy() for name, tensor in state.items()})
    folder = cases.folder / "refused"
    (folder / "pickle.pth").write_bytes(pickle.dumps({"c1.weight": 1}))
    np.savez(folder / "numpy.npz", **{name: tensor.numpy() for name, tensor in state.items()})
    np.save(folder / "numpy.npy", state["c1.weight"].numpy())

    ran = folder / "did-run"
    call = CallsSystem(f"touch {shlex.quote(str(ran))}")
    for name, value in {
        "call.pth": call,
        "call_in_dict.pth": {"c1.weight": call},
        "call_in_list.pth": {"state_dict": {"layers": [{"weight": call}]}},
        "call_in_state.pth": CallsSystemInState(call.command),
    }.items():
        for suffix, zipped in ("", True), ("_legacy", False):
            file = name.replace(".pth", f"{suffix}.pth")
            cases.refuse(file, value, _use_new_zipfile_serialization=zipped)
            torch.load(folder / file, weights_only=False)
            ran.unlink()  # fails if the command did not run
    # A storage's reference, BINPERSID, with the call instead of the storage's type.
    reference = pickle.dumps(("storage", call, "0", "cpu", 1), protocol=2)[:-1] + b"Q."
    path = folder / "call_in_reference.pth"
    with zipfile.ZipFile(path, "w") as archive:
        for record, data in ("data.pkl", reference), ("version", b"3\n"), ("data/0", bytes(4)):
            archive.writestr(zipfile.ZipInfo(f"archive/{record}"), data)
    with contextlib.suppress(AttributeError):  # the call's result is not a type
        torch.load(path, weights_only=False)
    ran.unlink()


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))

    def forward(self, x):
        return x * self.weight


def seeds(folder: Path) -> None:
    names = ("pickle", "container", "idx", "data_set")
    pickles, containers, arrays, tables = (folder / name for name in names)
    for path in pickles, containers, arrays, tables:
        path.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    tiny = {"a": torch.zeros(2), "b": torch.ones(1, 2, dtype=torch.float16)}
    model = LeNet5()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.rand(1, 1, 32, 32)).sum().backward()
    optimizer.step()
    checkpoint = {"epoch": 1, "model": model.state_dict(), "optimizer": optimizer.state_dict()}

    def saved(value, **options) -> bytes:
        buffer = io.BytesIO()
        save = torch.jit.save if isinstance(value, torch.jit.ScriptModule) else torch.save
        save(value, buffer, **options)
        return buffer.getvalue()

    script = torch.jit.script(Tiny())
    values = {"tiny": tiny, "state": model.state_dict(), "checkpoint": checkpoint, "whole": model}
    archives = {name: saved(value) for name, value in (values | {"script": script}).items()}
    archives |= {f"tiny-{p}": saved(tiny, pickle_protocol=p) for p in range(1, 6)}
    for name, data in archives.items():
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.namelist():
                if member.endswith(".pkl"):
                    path = pickles / f"{name}-{Path(member).name}"
                    path.write_bytes(archive.read(member))
    for protocol in range(1, 6):
        data = pickle.dumps({"a": [1, 2.5, None, True, (b"x", "y")], "b": {3}}, protocol)
        (pickles / f"protocol-{protocol}").write_bytes(data)

    for name, value in {"dict": tiny, "whole": Tiny(), "checkpoint": {"net": tiny}}.items():
        (containers / f"{name}.pth").write_bytes(saved(value))
        legacy = saved(value, _use_new_zipfile_serialization=False)
        (containers / f"{name}-legacy.pth").write_bytes(legacy)
    (containers / "script.pt").write_bytes(saved(script))
    save_file(tiny, containers / "tiny.safetensors", {"format": "pt"})
    repack(saved(tiny), containers / "deflated.pth", compression=zipfile.ZIP_DEFLATED)
    repack(saved(tiny), containers / "zip64.pth", zip64=True)

    for shape in (5,), (2, 3), (2, 28, 28):
        path = arrays / f"dimensions-{len(shape)}"
        write_idx(path, torch.arange(int(np.prod(shape))).remainder(251).byte().reshape(shape))
        plain = path.read_bytes()
        # The fuzz target takes the number of dimensions from the first byte.
        path.write_bytes(bytes([len(shape)]) + plain)
        path.with_suffix(".gz").write_bytes(bytes([len(shape)]) + gzip.compress(plain, mtime=0))

    pixels = np.arange(32, dtype=np.uint8).reshape(2, 4, 4)
    np.savez(tables / "all.npz", x=pixels, y=np.array([3, 4]))
    np.savez_compressed(tables / "compressed.npz", x_train=pixels, y_train=np.array([3, 4]))
    (tables / "plain.csv").write_text("3," + ",".join(map(str, range(16))))
    (tables / "named.csv").write_text("label,a,b,c,d\n3,1,2,3,255\n")
    (tables / "zip_codes").write_text("6.0000" + " -1.000" * 255 + " 0.988")


def tune(file: Path, out: Path) -> None:
    """Trains a TorchScript file that Rust wrote, without changing its code."""
    torch.set_num_threads(1)
    script = torch.jit.load(file)
    config = json.loads(script.lenet5)
    settings = {key: config[key] for key in ("mean", "std", "input")}
    images, labels = read_mnist("train")
    optimizer = torch.optim.SGD(script.parameters(), lr=0.01)
    before = [parameter.clone() for parameter in script.parameters()]
    for batch in range(3):
        part = slice(batch * 32, (batch + 1) * 32)
        optimizer.zero_grad()
        F.cross_entropy(script(to_input(images[part], **settings)), labels[part]).backward()
        optimizer.step()
    changed = zip(before, script.parameters(), strict=True)
    assert all(not torch.equal(old, new) for old, new in changed)
    script.save(out.with_suffix(".pt"))
    torch.save(script.state_dict(), out.with_suffix(".pth"))
    with torch.no_grad():
        logits = script(to_input(read_mnist("t10k")[0][:8], **settings))
    save_file({"logits": logits}, out.with_suffix(".safetensors"))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, arguments in {
        "forms": ["folder"],
        "seeds": ["folder"],
        "tune": ["file", "out"],
    }.items():
        command = commands.add_parser(name)
        for argument in arguments:
            command.add_argument(argument, type=Path)
    arguments = vars(parser.parse_args())
    {"forms": forms, "seeds": seeds, "tune": tune}[arguments.pop("command")](**arguments)
