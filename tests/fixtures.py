"""Writes and checks files for the Rust tests, by PyTorch and scripts/lenet5.py.

Run: .venv/bin/python tests/fixtures.py COMMAND FOLDER (cargo test does)
Writes, by COMMAND:
  parity   FOLDER/threads-{1,2}.safetensors: initial weights, logits, loss, gradients, and weights
           after 1 and 20 steps of each optimizer; FOLDER/schedules.safetensors: learning rates
  sdlm     FOLDER/sdlm.safetensors: initial weights, second derivatives, and weights after 200 steps
  check    nothing: loads the files that Rust wrote to FOLDER (see `check`), and fails if one does
           not load or differs in a bit
  turn     FOLDER/*/checkpoint.pth, written by Rust: continues training to the end of the second
           epoch, and overwrites the file
"""

import argparse
import json
import sys
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, OneCycleLR, StepLR

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
import lenet5_1998
from lenet5 import LeNet5
from mnist import read_mnist, to_input

MODELS = {
    "default": {},
    "linear": {"c5": "linear"},
    "relu-max": {"activation": "relu", "pooling": "max"},
    "sigmoid-47": {"activation": "sigmoid", "classes": 47},
    "unpadded": {"activation": "scaled-tanh", "input": "unpadded"},
}

OPTIMIZERS = {
    "sgd": lambda p: SGD(p, lr=0.05),
    "momentum": lambda p: SGD(p, lr=0.05, momentum=0.9),
    "dampening": lambda p: SGD(p, lr=0.05, momentum=0.9, dampening=0.1, weight_decay=5e-4),
    "nesterov": lambda p: SGD(p, lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True),
    "decay": lambda p: SGD(p, lr=0.05, weight_decay=5e-4),
    "adam": lambda p: Adam(p, lr=1e-3),
    "adam-decay": lambda p: Adam(p, lr=1e-3, weight_decay=1e-2),
    "adamw": lambda p: AdamW(p, lr=1e-3),
    "adamw-other": lambda p: AdamW(p, lr=3e-3, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1),
}


def parameters(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def parity(folder: Path) -> None:
    images, labels = read_mnist("train")
    for threads in 1, 2:
        torch.set_num_threads(threads)
        tensors = {}

        def note(prefix: str, named: dict[str, Tensor], tensors=tensors) -> None:
            tensors.update({f"{prefix}/{name}": tensor for name, tensor in named.items()})

        for name, settings in MODELS.items():
            torch.manual_seed(7)
            model = LeNet5(**settings)
            note(f"{name}/initial", parameters(model))
            note(name, {"after": torch.rand(4)})  # tests the generator's state
            batch = model.prepare(images[:100])
            logits = model(batch)
            loss = F.cross_entropy(logits, labels[:100])
            loss.backward()
            note(name, {"images": batch, "logits": logits.detach(), "loss": loss.detach()})
            note(f"{name}/gradient", {n: p.grad for n, p in model.named_parameters()})
        for name, make in OPTIMIZERS.items():
            if threads == 2 and name not in ("momentum", "adamw"):
                continue  # an update is element-wise, whatever the number of threads
            torch.manual_seed(1)
            model = LeNet5()
            optimizer = make(model.parameters())
            batches = torch.randperm(len(labels)).split(64)
            for step, batch in enumerate(batches[:20], 1):
                optimizer.zero_grad()
                F.cross_entropy(model(to_input(images[batch])), labels[batch]).backward()
                optimizer.step()
                if step in (1, 20):
                    note(f"{name}/{step}", parameters(model))
        original(images, labels, note)
        save_file(tensors, folder / f"threads-{threads}.safetensors")
    schedules(folder)


def original(images: Tensor, labels: Tensor, note) -> None:
    """Computes the 1998 network's losses and gradients, and an epoch of SGD on 2,000 images."""
    torch.manual_seed(7)
    model = lenet5_1998.LeNet5()
    note("original/initial", parameters(model))
    note("original", {"after": torch.rand(4)})
    batch = lenet5_1998.to_input(images[:100])
    logits = model(batch)
    note("original", {"images": batch, "logits": logits.detach()})
    losses = {"distance": lenet5_1998.distance, "discriminative": lenet5_1998.discriminative}
    for name, loss_of in losses.items():
        loss = loss_of(logits, labels[:100])
        gradients = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
        names = [parameter for parameter, _ in model.named_parameters()]
        note(f"original/{name}", {"loss": loss.detach()})
        note(f"original/{name}/gradient", dict(zip(names, gradients, strict=True)))
    optimizer = SGD(model.parameters(), lr=0.01, momentum=0.9)
    for batch in torch.randperm(2000).split(64):
        optimizer.zero_grad()
        logits = model(lenet5_1998.to_input(images[batch]))
        lenet5_1998.discriminative(logits, labels[batch]).backward()
        optimizer.step()
    note("original/epoch", parameters(model))


def sdlm(folder: Path) -> None:
    """Computes in float64 both losses' second derivatives, and 200 steps of one image each."""
    images, labels = (part[:500] for part in read_mnist("train"))
    torch.manual_seed(7)
    model = lenet5_1998.LeNet5(rbf_scale=0.02)
    tensors = {f"initial/{name}": tensor for name, tensor in parameters(model).items()}
    model = model.double()
    images = lenet5_1998.to_input(images).double()
    names = [name for name, _ in model.named_parameters()]
    for loss in lenet5_1998.distance, lenet5_1998.discriminative:
        h = lenet5_1998.curvature(model, images, labels, loss)
        for name, tensor in zip(names, h, strict=True):
            tensors[f"{loss.__name__}/{name}"] = tensor
    for image, label in zip(images[:200].split(1), labels[:200].split(1), strict=True):
        model.zero_grad()
        lenet5_1998.discriminative(model(image), label).backward()
        lenet5_1998.sdlm_step(model, h, 5e-4, 0.02)
    tensors.update({f"after/{name}": tensor for name, tensor in parameters(model).items()})
    save_file(tensors, folder / "sdlm.safetensors")


def schedules(folder: Path) -> None:
    rates = {}
    for rate in 0.05, 1e-3, 1 / 3:
        for epochs in 1, 2, 7, 30:
            make = {
                "constant": lambda o: LambdaLR(o, lambda epoch: 1.0),
                "step-1-0.7": lambda o: StepLR(o, 1, 0.7),
                "step-3-0.1": lambda o: StepLR(o, 3, 0.1),
                "cosine": lambda o, n=epochs: CosineAnnealingLR(o, n),
            }
            for name, scheduler in make.items():
                rates[f"{name}/{rate}/{epochs}/1"] = run_schedule(rate, scheduler, epochs)
            for steps in 1, 11, 938:
                total = epochs * steps
                rates[f"one-cycle/{rate}/{epochs}/{steps}"] = run_schedule(
                    rate,
                    lambda o, n=total, r=rate: OneCycleLR(o, r, n, cycle_momentum=False),
                    total,
                )
    save_file(rates, folder / "schedules.safetensors")


def run_schedule(rate: float, make, count: int) -> Tensor:
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=rate)
    scheduler = make(optimizer)
    rates = []
    for step in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step + 1 < count:
            scheduler.step()
    return torch.tensor(rates, dtype=torch.float64)


def check(folder: Path) -> None:
    """FOLDER/models.json maps names to settings; NAME.pt, .pth and .safetensors are the weights.
    NAME-expected.safetensors also holds them, with a batch and the logits that Rust computed."""
    torch.set_num_threads(1)
    models = json.loads((folder / "models.json").read_text())
    assert models
    for name, config in models.items():
        expected = load_file(folder / f"{name}-expected.safetensors")
        images, logits = expected.pop("images"), expected.pop("logits")

        names = list(reference(config).state_dict())

        def same(
            found: dict[str, Tensor], order: bool = True, expected=expected, names=names
        ) -> None:
            assert set(found) == set(expected)
            # Other readers may rely on the order; safetensors keeps none.
            assert not order or list(found) == names
            for key, tensor in found.items():
                assert tensor.dtype == torch.float32 and tensor.is_contiguous()
                assert same_bits(tensor, expected[key]), key

        def model(state: dict[str, Tensor], config=config) -> nn.Module:
            result = reference(config)
            result.load_state_dict(state, strict=True)
            return result

        script = torch.jit.load(folder / f"{name}.pt")
        assert json.loads(script.lenet5) == config
        fixed = dict(script.named_buffers())
        codes_are_fixed = "network" in config and not config.get("train_rbf")
        assert list(fixed) == (["output.weight"] if codes_are_fixed else [])
        same(dict(script.named_parameters()) | fixed)
        same(script.state_dict())
        assert all(parameter.requires_grad for parameter in script.parameters())
        # The first calls are profiled, the later ones optimised.
        for _ in range(4):
            assert same_bits(script(images), logits), "logits of TorchScript"
        frozen = torch.jit.freeze(script.eval())(images)
        # Freezing folds the slope of scaled tanh into the convolution's weights.
        exact = config["activation"] != "scaled-tanh"
        assert same_bits(frozen, logits) if exact else torch.allclose(frozen, logits, atol=1e-6)
        assert same_bits(model(script.state_dict())(images), logits)

        for mmap in False, True:
            state = torch.load(folder / f"{name}.pth", weights_only=True, mmap=mmap)
            assert isinstance(state, OrderedDict)
            assert json.loads(state._metadata[""]["lenet5"]) == config
            same(state)
            assert same_bits(model(state)(images), logits)
        same(torch.load(folder / f"{name}.pth", weights_only=False))

        path = folder / f"{name}.safetensors"
        same(load_file(path), order=False)
        assert same_bits(model(load_file(path))(images), logits)
        with safe_open(path, "pt") as file:
            assert json.loads(file.metadata()["lenet5"]) == config
            assert file.metadata()["format"] == "pt"


def reference(config: dict) -> nn.Module:
    """Creates the network in plain PyTorch."""
    if config.get("network") == "original":
        return lenet5_1998.LeNet5(**config)
    return LeNet5(**config)


def same_bits(a: Tensor, b: Tensor) -> bool:
    a, b = a.detach().contiguous(), b.detach().contiguous()
    return a.shape == b.shape and torch.equal(a.view(torch.int32), b.view(torch.int32))


def turn(folder: Path) -> None:
    torch.set_num_threads(1)
    runs = list(folder.iterdir())
    assert runs
    for run in runs:
        train_on(run)


def train_on(folder: Path) -> None:
    path = folder / "checkpoint.pth"
    config = json.loads((folder / "config.json").read_text())
    checkpoint = torch.load(path, weights_only=True)
    model = LeNet5()
    model.load_state_dict(checkpoint["model"], strict=True)
    optimizer = {"sgd": SGD, "adam": Adam, "adamw": AdamW}[config["optimizer"]["name"]](
        model.parameters()
    )
    optimizer.load_state_dict(checkpoint["optimizer"])
    torch.set_rng_state(checkpoint["rng_state"])
    images, labels = read_mnist("train", Path(config["data"]))
    assert checkpoint["epoch"] < 2
    for _ in range(checkpoint["epoch"], 2):
        batches = torch.randperm(len(labels)).split(config["batch_size"])
        for batch in batches[checkpoint["step"] :]:
            optimizer.zero_grad()
            F.cross_entropy(model(to_input(images[batch])), labels[batch]).backward()
            optimizer.step()
        checkpoint["step"] = 0
    checkpoint |= {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "rng_state": torch.get_rng_state(),
        "epoch": 2,
        "step": 0,
        "loss_sum": 0.0,
        "seconds": 0.0,
    }
    torch.save(checkpoint, path)


if __name__ == "__main__":
    commands = {"parity": parity, "sdlm": sdlm, "check": check, "turn": turn}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=commands)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    commands[arguments.command](arguments.folder)
