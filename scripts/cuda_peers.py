"""PyTorch's ways to train LeNet-5 on a GPU, which cuda_check.py sets beside `train`.

Use: from cuda_peers import PEERS, Recipe

All have the training images on the GPU, converted to padded float32 beforehand, and leave out the
last batch of an epoch, which is smaller: both in their favour.
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
    """Settings of a training, with ReLU, max pooling and a one-cycle learning rate."""

    batch_size: int
    optimizer: str
    rate: float
    epochs: int
    distort: str = ""

    def arguments(self) -> list[str]:
        """For the program `train`."""
        distort = [f"--distort={self.distort}"] if self.distort else []
        return [
            "--activation=relu", "--pooling=max", "--schedule=one-cycle",
            f"--batch-size={self.batch_size}", f"--optimizer={self.optimizer}",
            f"--lr={self.rate}", f"--epochs={self.epochs}", *distort,
        ]  # fmt: skip


class Eager:
    """Step by step, with the fused optimizers."""

    def __init__(self, recipe: Recipe, images: Tensor, labels: Tensor, seed: int):
        torch.manual_seed(seed)
        self.recipe, self.labels = recipe, labels
        self.images = to_input(images)
        self.model = LeNet5("relu", "max").to(images.device)
        # In a tensor, so that recorded steps follow it.
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

    def step(self, places: Tensor) -> None:
        loss = F.cross_entropy(self.forward(self.images[places]), self.labels[places])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def epoch(self) -> float:
        """Its seconds, from the drawing of the order on."""
        order = torch.randperm(len(self.labels))
        synchronize(self.labels)
        start = time.perf_counter()
        order = order.to(self.labels.device)
        for places in order.split(self.recipe.batch_size)[: self.steps]:
            self.rate.copy_(self.rates[self.done])
            self.step(places)
            self.done += 1
        synchronize(self.labels)
        return time.perf_counter() - start


class Compiled(Eager):
    """torch.compile(mode="reduce-overhead"), which records CUDA graphs of its own."""

    # Of what was compiled last: for another one it would become dynamic.
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

    def step(self, places: Tensor) -> None:
        if self.recorded is None:
            self.record(places)
        self.places.copy_(places)
        self.recorded.replay()

    def record(self, places: Tensor) -> None:
        self.places = places.clone()
        state = [p.detach().clone() for p in self.model.parameters()]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                super().step(self.places)
        torch.cuda.current_stream().wait_stream(stream)
        self.recorded = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad()
        with torch.cuda.graph(self.recorded):
            super().step(self.places)
        # As before the steps that warmed up.
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
    """The rate of each step, as torch.optim.lr_scheduler.OneCycleLR has it."""
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
