//! The Rust tests: `cargo test --release`. Python is the oracle: `make setup` makes its .venv.

mod augment; // distortions of the training images
mod broken; // broken files of weights: a clear error, and nothing is run
mod checkpoint; // stopped, killed and resumed runs end in the same bits; Python takes a turn
mod commands; // what the programs print, write and exit with
mod device; // the programs on a GPU that is host memory: what is on which device, launches, graphs
mod foreign; // other people's files: inspect, conversion, settings, TorchScript as it is
mod forward; // the core's plain forward pass beside libtorch, for all settings
mod gpu; // what trains on a GPU, on the CPU: recorded steps as they come, kernels thread by thread
mod idx; // the reader of data sets: good files, broken files, the embedded MNIST
mod model; // layers, shapes, counts, loading of parameters
mod original; // the network of 1998: counts, codes, losses, commands
mod parity; // the same bits as PyTorch: weights, logits, gradients, optimizers, learning rates
mod sdlm; // second-order training of the network of 1998, by both engines and by PyTorch
mod util; // programs, Python, temporary folders, comparison of bits
mod weights; // files of weights, from Python and to Python
