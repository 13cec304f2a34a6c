"""Trains LeNet-5 in plain PyTorch and torch.optim, with the same bits as `train`.

Run: .venv/bin/python scripts/train_reference.py --epochs 2 --out reference.pth
Writes: with --out FILE, the state dict after the last epoch (torch.save).
"""

import argparse
import time
from collections.abc import Iterator

import torch
from lenet5 import LeNet5
from mnist import read_mnist, to_input
from torch import Tensor, nn
from torch.nn import functional as F

EVALUATION_BATCH = 1000


def make_optimizer(name: str, model: nn.Module, **settings) -> torch.optim.Optimizer:
    """Creates an optimizer of torch.optim, by its name in `train --optimizer`."""
    classes = {
        "sgd": torch.optim.SGD,
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
    }
    return classes[name](model.parameters(), **settings)


def steps(model, optimizer, images: Tensor, labels: Tensor, batch_size: int) -> Iterator[Tensor]:
    """Trains one epoch in random order; yields the loss of each batch, after its update."""
    order = torch.randperm(len(labels)).to(labels.device)
    for batch in order.split(batch_size):
        loss = F.cross_entropy(model(to_input(images[batch])), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.detach()


@torch.no_grad()
def evaluate(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Returns the mean loss, and the error in percent."""
    logits = torch.cat([model(to_input(batch)) for batch in images.split(EVALUATION_BATCH)])
    errors = (logits.argmax(1) != labels).sum().item()
    return F.cross_entropy(logits, labels).item(), 100 * errors / len(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--optimizer", choices=["sgd", "adam", "adamw"], default="sgd")
    parser.add_argument("--lr", type=float, help="default: 0.05 for sgd, else 0.001")
    parser.add_argument("--momentum", type=float, default=0.9, help="for sgd only")
    parser.add_argument("--schedule", choices=["constant", "cosine"], default="cosine")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--limit", type=int, help="use only the first LIMIT training images")
    parser.add_argument("--out", help="write the state dict to OUT")
    arguments = parser.parse_args()

    # No TensorFloat-32 on NVIDIA GPUs, as in the Rust program.
    torch.backends.cudnn.allow_tf32 = False
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    model = LeNet5().to(arguments.device)
    settings = {"momentum": arguments.momentum} if arguments.optimizer == "sgd" else {}
    rate = arguments.lr or (0.05 if arguments.optimizer == "sgd" else 1e-3)
    optimizer = make_optimizer(arguments.optimizer, model, lr=rate, **settings)
    scheduler = None
    if arguments.schedule == "cosine":
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, arguments.epochs)
    images, labels = (part[: arguments.limit].to(arguments.device) for part in read_mnist("train"))
    test = [part.to(arguments.device) for part in read_mnist("t10k")]
    print("epoch  train loss  test loss  test error %  seconds")
    for epoch in range(1, arguments.epochs + 1):
        start = time.perf_counter()
        losses = torch.stack(list(steps(model, optimizer, images, labels, arguments.batch_size)))
        # The last batch may be smaller than the others.
        sizes = torch.tensor([len(batch) for batch in labels.split(arguments.batch_size)])
        train_loss = (losses.cpu().double() * sizes).sum().item() / len(labels)
        seconds = time.perf_counter() - start
        if scheduler:
            scheduler.step()
        test_loss, error = evaluate(model, *test)
        print(f"{epoch:>5} {train_loss:>11.5f} {test_loss:>10.5f} {error:>13.2f} {seconds:>8.2f}")
    if arguments.out:
        torch.save(model.cpu().state_dict(), arguments.out)


if __name__ == "__main__":
    main()
