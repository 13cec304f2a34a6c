"""Measures LeNet-5 in another framework, for scripts/bench.py, and prints the figures as JSON.

Run: .venv/bin/python scripts/bench_peers.py torch train --batch-size 128 --threads 1

The network (61,706 parameters), SGD with momentum and the batches are those of `train`. In favour
of these frameworks, the time excludes the conversion of images to padded float32 and, except in
`accuracy`, the first steps, in which they compile. For seconds per epoch, a fifth of one is
measured.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

LEARNING_RATE, MOMENTUM = 0.05, 0.9
WARM_UP = 30  # steps
PART = 5
INFERENCE_SECONDS = 1.5
# Shapes of the layers' weights, as in PyTorch.
SHAPES = {
    "c1": (6, 1, 5, 5),
    "c3": (16, 6, 5, 5),
    "c5": (120, 16, 5, 5),
    "f6": (84, 120),
    "output": (10, 84),
}


def images_and_labels(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads inputs (N, 32, 32), float32 from 0 to 1, and labels (N), int32."""
    import gzip

    folder = Path(__file__).parent.parent / "data" / "mnist"
    pixels = gzip.decompress((folder / f"{split}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{split}-labels-idx1-ubyte.gz").read_bytes())
    images = np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 28, 28)
    images = np.pad(images, ((0, 0), (2, 2), (2, 2))).astype(np.float32) / 255
    return images, np.frombuffer(labels, np.uint8, offset=8).astype(np.int32)


def initial_weights(seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Draws weights and biases uniformly within ±1 / sqrt(fan-in), as PyTorch does."""
    generator = np.random.default_rng(seed)
    weights = {}
    for name, shape in SHAPES.items():
        bound = np.prod(shape[1:]) ** -0.5
        draw = [generator.uniform(-bound, bound, size) for size in (shape, shape[:1])]
        weights[name] = tuple(values.astype(np.float32) for values in draw)
    return weights


class Peer:
    """A network in one framework. Inputs are NumPy arrays, as `images_and_labels` returns them."""

    def __init__(self, threads: int, relu: bool, variant: str) -> None:
        raise NotImplementedError

    def prepare(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Stores the training set; called once."""
        raise NotImplementedError

    def step(self, indices: np.ndarray, learning_rate: float) -> None:
        """Trains one step on the images with these indices."""
        raise NotImplementedError

    def wait(self) -> None:
        """Returns when the last step is done."""

    def predictor(self, images: np.ndarray) -> Callable[[], np.ndarray]:
        """Returns a function that computes the logits (N, 10) of these images."""
        raise NotImplementedError


class Torch(Peer):
    """PyTorch; variants: eager, channels_last, compile."""

    def __init__(self, threads: int, relu: bool, variant: str) -> None:
        import torch
        from torch import nn

        torch.set_num_threads(threads)
        self.torch = torch
        act, pool = (nn.ReLU, nn.MaxPool2d) if relu else (nn.Tanh, nn.AvgPool2d)
        self.model = nn.Sequential(
            nn.Conv2d(1, 6, 5), act(), pool(2),
            nn.Conv2d(6, 16, 5), act(), pool(2),
            nn.Conv2d(16, 120, 5), act(), nn.Flatten(),
            nn.Linear(120, 84), act(), nn.Linear(84, 10),
        )  # fmt: skip
        self.format = torch.channels_last if variant != "eager" else torch.contiguous_format
        self.model = self.model.to(memory_format=self.format)
        self.optimizer = torch.optim.SGD(self.model.parameters(), LEARNING_RATE, MOMENTUM)
        self.forward = torch.compile(self.model) if variant == "compile" else self.model

    def prepare(self, images, labels):
        self.images = self.input(images)
        self.labels = self.torch.from_numpy(labels).long()

    def input(self, images):
        return self.torch.from_numpy(images)[:, None].contiguous(memory_format=self.format)

    def step(self, indices, learning_rate):
        indices = self.torch.from_numpy(indices)
        self.optimizer.param_groups[0]["lr"] = learning_rate
        logits = self.forward(self.images[indices])
        loss = self.torch.nn.functional.cross_entropy(logits, self.labels[indices])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def predictor(self, images):
        images = self.input(images)

        def predict():
            with self.torch.inference_mode():
                return self.forward(images).numpy()

        return predict


class Jax(Peer):
    """JAX with a jitted step, in the layout that XLA prefers on a CPU."""

    def __init__(self, threads: int, relu: bool, variant: str) -> None:
        limit_cores(threads)
        import jax
        from jax import lax
        from jax import numpy as jnp

        self.jax = jax
        act = jax.nn.relu if relu else jnp.tanh

        def pool(x):
            window = ((1, 2, 2, 1), (1, 2, 2, 1), "VALID")
            if relu:
                return lax.reduce_window(x, -jnp.inf, lax.max, *window)
            return lax.reduce_window(x, 0.0, lax.add, *window) / 4

        def conv(x, layer):
            weight, bias = layer
            layout = ("NHWC", "HWIO", "NHWC")
            x = lax.conv_general_dilated(x, weight, (1, 1), "VALID", dimension_numbers=layout)
            return x + bias

        def forward(weights, x):
            x = pool(act(conv(x[..., None], weights["c1"])))
            x = pool(act(conv(x, weights["c3"])))
            x = act(x.reshape(len(x), -1) @ weights["c5"][0] + weights["c5"][1])
            x = act(x @ weights["f6"][0] + weights["f6"][1])
            return x @ weights["output"][0] + weights["output"][1]

        def loss(weights, x, labels):
            logits = forward(weights, x)
            right = jnp.take_along_axis(logits, labels[:, None], 1)[:, 0]
            return (jax.nn.logsumexp(logits, 1) - right).mean()

        def step(weights, momenta, images, labels, indices, rate):
            gradient = jax.grad(loss)(weights, images[indices], labels[indices])
            momenta = jax.tree.map(lambda m, g: MOMENTUM * m + g, momenta, gradient)
            return jax.tree.map(lambda w, m: w - rate * m, weights, momenta), momenta

        weights = initial_weights(1)
        for name, (weight, bias) in weights.items():
            last = weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T
            weights[name] = (last.reshape(400, 120) if name == "c5" else last, bias)
        self.weights = jax.tree.map(jnp.asarray, weights)
        self.momenta = jax.tree.map(jnp.zeros_like, self.weights)
        self.forward, self.update = jax.jit(forward), jax.jit(step, donate_argnums=(0, 1))

    def prepare(self, images, labels):
        self.data = self.jax.device_put((images, labels))

    def step(self, indices, learning_rate):
        state = self.weights, self.momenta
        self.weights, self.momenta = self.update(*state, *self.data, indices, learning_rate)

    def wait(self):
        self.jax.block_until_ready(self.weights)

    def predictor(self, images):
        images = self.jax.device_put(images)
        return lambda: np.asarray(self.forward(self.weights, images))


class TensorFlow(Peer):
    """TensorFlow with Keras layers and the step as a tf.function; variants: graph, xla."""

    def __init__(self, threads: int, relu: bool, variant: str) -> None:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        self.tf = tf
        act = "relu" if relu else "tanh"
        layers = tf.keras.layers
        pool = layers.MaxPool2D if relu else layers.AveragePooling2D
        self.model = tf.keras.Sequential([
            layers.Input((32, 32, 1)),
            layers.Conv2D(6, 5, activation=act), pool(2),
            layers.Conv2D(16, 5, activation=act), pool(2), layers.Flatten(),
            layers.Dense(120, act), layers.Dense(84, act), layers.Dense(10),
        ])  # fmt: skip
        cross_entropy = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.rate = tf.Variable(LEARNING_RATE)
        variables = self.model.trainable_variables
        momenta = [tf.Variable(tf.zeros_like(variable)) for variable in variables]

        @tf.function(jit_compile=variant == "xla")
        def update(images, labels):
            with tf.GradientTape() as tape:
                loss = cross_entropy(labels, self.model(images, training=True))
            gradients = tape.gradient(loss, variables)
            for variable, momentum, gradient in zip(variables, momenta, gradients, strict=True):
                momentum.assign(MOMENTUM * momentum + gradient)
                variable.assign_sub(self.rate * momentum)

        self.update = update
        self.forward = tf.function(self.model, jit_compile=variant == "xla")

    def prepare(self, images, labels):
        self.images, self.labels = images[..., None], labels

    def step(self, indices, learning_rate):
        self.rate.assign(learning_rate)
        tensors = self.images[indices], self.labels[indices]
        self.update(*map(self.tf.convert_to_tensor, tensors))

    def predictor(self, images):
        images = self.tf.constant(images[..., None])
        return lambda: self.forward(images).numpy()


class OnnxRuntime(Peer):
    """onnxruntime on our exported weights; inference only."""

    def __init__(self, threads: int, relu: bool, variant: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(variant, options, ["CPUExecutionProvider"])

    def predictor(self, images):
        inputs = {self.session.get_inputs()[0].name: images[:, None]}
        return lambda: self.session.run(None, inputs)[0]


PEERS = {"torch": Torch, "jax": Jax, "tensorflow": TensorFlow, "onnxruntime": OnnxRuntime}


def limit_cores(threads: int) -> None:
    """Limits the process to `threads` cores, for a framework without a setting for threads."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:threads])


def batches(size: int, count: int, seed: int) -> Iterator[np.ndarray]:
    """Returns the indices of an epoch's images in random order, batch by batch."""
    order = np.random.default_rng(seed).permutation(count)
    return (order[first : first + size] for first in range(0, count, size))


def train(peer: Peer, batch_size: int) -> dict:
    images, labels = images_and_labels("train")
    peer.prepare(images, labels)
    # The last batch is smaller, and some frameworks compile each shape separately.
    epoch = list(batches(batch_size, len(labels), 1))
    for indices in [*epoch[:WARM_UP], epoch[-1]]:
        peer.step(indices, LEARNING_RATE)
    peer.wait()
    part = epoch[: len(epoch) // PART]
    start = time.perf_counter()
    for indices in part:
        peer.step(indices, LEARNING_RATE)
    peer.wait()
    return {"seconds": (time.perf_counter() - start) * len(labels) / (len(part) * batch_size)}


def infer(peer: Peer, batch_size: int) -> dict:
    images, _ = images_and_labels("t10k")
    predict = peer.predictor(images[:batch_size].copy())
    for _ in range(WARM_UP):
        predict()
    count, start = 0, time.perf_counter()
    while (seconds := time.perf_counter() - start) < INFERENCE_SECONDS:
        predict()
        count += batch_size
    return {"images_per_second": count / seconds}


def one_cycle(largest: float, step: int, steps: int) -> float:
    """PyTorch's OneCycleLR: the rate rises during 30 % of the steps, then falls to almost 0."""
    peak = 0.3 * steps - 1
    start, end, part = largest / 25, largest, step / peak
    if step > peak:
        start, end, part = largest, largest / 25e4, (step - peak) / (steps - 1 - peak)
    return end + (start - end) / 2 * (1 + np.cos(np.pi * part))


def accuracy(peer: Peer, batch_size: int, epochs: int, learning_rate: float) -> dict:
    images, labels = images_and_labels("train")
    test_images, test_labels = images_and_labels("t10k")
    peer.prepare(images, labels)
    steps = epochs * -(-len(labels) // batch_size)
    start, done = time.perf_counter(), 0
    for epoch in range(epochs):
        for indices in batches(batch_size, len(labels), epoch):
            peer.step(indices, one_cycle(learning_rate, done, steps))
            done += 1
    peer.wait()
    seconds = time.perf_counter() - start
    predict = (peer.predictor(chunk)() for chunk in np.split(test_images, 10))
    errors = (np.concatenate(list(predict)).argmax(1) != test_labels).sum()
    return {"seconds": seconds, "test_error_percent": 100 * int(errors) / len(test_labels)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("what", choices=["train", "infer", "accuracy"])
    parser.add_argument("--variant", default="")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=4, help="epochs of `accuracy`")
    parser.add_argument("--learning-rate", type=float, default=0.05, help="for `accuracy`")
    arguments = parser.parse_args()

    relu = arguments.what == "accuracy"
    peer = PEERS[arguments.peer](arguments.threads, relu, arguments.variant)
    match arguments.what:
        case "train":
            result = train(peer, arguments.batch_size)
        case "infer":
            result = infer(peer, arguments.batch_size)
        case "accuracy":
            result = accuracy(peer, arguments.batch_size, arguments.epochs, arguments.learning_rate)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
