//! The Rust tests: `cargo test --release`. They compare with Python; `make setup` creates its
//! environment, .venv.

mod augment; // distortions of the training images
mod broken; // damaged files of weights: a clear error, and no code is run
mod checkpoint; // stopped, killed and resumed runs give the same bits
mod commands; // the programs: output, files, exit codes
mod device; // the programs on a GPU, which may be simulated: devices, launches, graphs
mod ended; // runs of programs, and their results
mod foreign; // files from other sources: inspect, conversion, settings, TorchScript
mod forward; // the core's plain forward pass compared with libtorch, for all settings
mod fused; // the fused engine compared with libtorch: gradients, optimizers, whole runs
mod gpu; // the GPU engines on the CPU: steps without recording, kernels thread by thread
mod idx; // the reader of data sets: good files, broken files, the embedded MNIST
mod model; // layers, shapes, counts, loading of parameters
mod original; // the network of 1998: counts, codes, losses, commands
mod parity; // the same bits as PyTorch: weights, logits, gradients, optimizers, learning rates
mod ranks; // several processes that train one network: the same result, clear errors
mod sdlm; // second-order training of the network of 1998, by both engines and by PyTorch
mod util; // programs, Python, temporary folders, comparison of bits
mod weights; // files of weights, from Python and to Python
