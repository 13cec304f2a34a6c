"""Trains LeNet-5 with PyTorch on a GPU, in the ways that cuda_check.py compares with `train`.

Use: from cuda_peers import PEERS, Recipe

In PyTorch's favour, the training images are converted to padded float32 on the GPU beforehand, and
the last batch of an epoch, which is smaller, is left out.
"""

import time
from dataclasses import dataclass

import torch
from lenet5 import LeNet5
from mnist import to_input
from torch import Tensor
from torch.nn import functional as F


@dataclass
class Recipe:
    """Settings of a training run with ReLU, max pooling and a one-cycle learning rate."""

    batch_size: int
    optimizer: str
    rate: float
    epochs: int
    distort: str = ""

    def arguments(self) -> list[str]:
        """Returns the arguments for `train`."""
        distort = [f"--distort={self.distort}"] if self.distort else []
        return [
            "--activation=relu", "--pooling=max", "--schedule=one-cycle",
            f"--batch-size={self.batch_size}", f"--optimizer={self.optimizer}",
            f"--lr={self.rate}", f"--epochs={self.epochs}", *distort,
        ]  # fmt: skip


class Eager:
    """PyTorch's eager mode, with its fused optimizers."""

    def __init__(self, recipe: Recipe, images: Tensor, labels: Tensor, seed: int):
        torch.manual_seed(seed)
        self.recipe, self.labels = recipe, labels
        self.images = to_input(images)
        self.model = LeNet5("relu", "max").to(images.device)
        # A tensor, so that a recorded step reads the current rate.
        self.rate = torch.tensor(recipe.rate, device=images.device)
        classes = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
        settings = {"momentum": 0.9} if recipe.optimizer == "sgd" else {"capturable": self.graph}
        self.optimizer = classes[recipe.optimizer](
            self.model.parameters(), lr=self.rate, fused=True, **settings
        )
        self.steps = len(labels) // recipe.batch_size
        self.rates = one_cycle(recipe.rate, recipe.epochs * self.steps).to(images.device)
        self.done = 0

    graph = False

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)

    def step(self, indices: Tensor) -> None:
        loss = F.cross_entropy(self.forward(self.images[indices]), self.labels[indices])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def epoch(self) -> float:
        """Trains one epoch; returns its seconds, measured after the order is drawn."""
        order = torch.randperm(len(self.labels))
        synchronize(self.labels)
        start = time.perf_counter()
        order = order.to(self.labels.device)
        for indices in order.split(self.recipe.batch_size)[: self.steps]:
            self.rate.copy_(self.rates[self.done])
            self.step(indices)
            self.done += 1
        synchronize(self.labels)
        return time.perf_counter() - start


class Compiled(Eager):
    """torch.compile(mode="reduce-overhead"), which records CUDA graphs of its own."""

    # The last batch size compiled. Without a reset, another one would get dynamic shapes.
    batch_size = None

    def __init__(self, recipe: Recipe, *arguments, **settings):
        if recipe.batch_size != Compiled.batch_size:
            torch.compiler.reset()
            Compiled.batch_size = recipe.batch_size
        super().__init__(recipe, *arguments, **settings)
        self.compiled = None

    def forward(self, images: Tensor) -> Tensor:
        if self.compiled is None:
            self.compiled = torch.compile(self.model, mode="reduce-overhead")
        return self.compiled(images)


class Graphed(Eager):
    """A step recorded by hand as a CUDA graph, as PyTorch's documentation shows."""

    graph = True
    recorded = None

    def step(self, indices: Tensor) -> None:
        if self.recorded is None:
            self.record(indices)
        self.indices.copy_(indices)
        self.recorded.replay()

    def record(self, indices: Tensor) -> None:
        self.indices = indices.clone()
        state = [p.detach().clone() for p in self.model.parameters()]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                super().step(self.indices)
        torch.cuda.current_stream().wait_stream(stream)
        self.recorded = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad()
        with torch.cuda.graph(self.recorded):
            super().step(self.indices)
        # Undo the warm-up steps.
        with torch.no_grad():
            for parameter, before in zip(self.model.parameters(), state, strict=True):
                parameter.copy_(before)
            for entries in self.optimizer.state.values():
                for value in entries.values():
                    value.zero_()


PEERS = {
    "PyTorch, eager": Eager,
    "PyTorch, compile": Compiled,
    "PyTorch, CUDA graph": Graphed,
}


def one_cycle(rate: float, total: int) -> Tensor:
    """Returns the learning rate of each step by torch.optim.lr_scheduler.OneCycleLR."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=total, cycle_momentum=False
    )
    rates = []
    for _ in range(total):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        if len(rates) < total:
            schedule.step()
    return torch.tensor(rates)


def synchronize(tensor: Tensor) -> None:
    """Returns when all work on the tensor's device is done."""
    if tensor.is_cuda:
        torch.cuda.synchronize()
