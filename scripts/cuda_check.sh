#!/usr/bin/env bash
# Checks CUDA on a GPU machine that has torch 2.11 but no cargo: trains on the CPU and on the GPU
# from one seed, compares them with each other and with PyTorch eager on the same GPU.
#
#   scripts/cuda_check.sh [FOLDER]     folder of the binaries train and evaluate
#                                      (default: target/release)
#
# Needs data/mnist beside scripts/, and python3 with torch, numpy and safetensors; PYTHON=... names another one. Prints the figures
# on stdout and ends with "cuda check: PASS" or "cuda check: FAIL". About two minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

python=${PYTHON:-python3}
binaries=$(cd "${1:-../target/release}" && pwd)
[ -e ../data/mnist/train-images-idx3-ubyte.gz ] || {
    echo "error: expected the folder data/mnist beside scripts/: copy it from the project" >&2
    exit 1
}
lib=$("$python" -c 'import os, torch; print(os.path.join(os.path.dirname(torch.__file__), "lib"))')
export LD_LIBRARY_PATH="$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
exec "$python" cuda_check.py "$binaries"
