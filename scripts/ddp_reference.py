"""Trains LeNet-5 with PyTorch's DistributedDataParallel, on the parts of each batch that `train`
gives to each rank.

Run: torchrun --nproc-per-node=2 scripts/ddp_reference.py --out ddp.pth
Writes: the state dict after one epoch (torch.save).
"""

import argparse

import torch
from lenet5 import LeNet5
from mnist import read_mnist, to_input
from torch import distributed
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from train_reference import make_optimizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=64, help="of all ranks together")
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=int, default=60_000)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    rank, size = distributed.get_rank(), distributed.get_world_size()
    torch.manual_seed(arguments.seed)
    model = LeNet5()
    optimizer = make_optimizer("sgd", model, lr=arguments.lr, momentum=arguments.momentum)
    parallel = DistributedDataParallel(model)
    images, labels = read_mnist("train")
    images, labels = images[: arguments.limit], labels[: arguments.limit]
    for batch in torch.randperm(len(labels)).split(arguments.batch_size):
        own = batch[len(batch) * rank // size : len(batch) * (rank + 1) // size]
        loss = F.cross_entropy(parallel(to_input(images[own])), labels[own])
        optimizer.zero_grad()
        # DDP takes the mean of the gradients, as if all parts had the same size.
        (loss * (len(own) * size / len(batch))).backward()
        optimizer.step()
    if rank == 0:
        torch.save(model.state_dict(), arguments.out)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
