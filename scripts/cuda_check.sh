#!/usr/bin/env bash
# Checks and measures CUDA on a GPU machine that has torch 2.11 but no cargo. It checks that the
# GPU, the CPU and PyTorch agree, then measures the time of an epoch, of each kernel launch, and of
# training to 99 % and 99.4 %, for `train` and for PyTorch.
#
#   scripts/cuda_check.sh [FOLDER [RESULTS.json]]
#
# FOLDER has the binaries train and evaluate (default: target/release). Needs data/mnist beside
# scripts/, and python3 (or PYTHON=...) with torch, numpy and safetensors. Prints the figures, then
# "cuda check: PASS" or "cuda check: FAIL". Takes less than eight minutes.
set -euo pipefail

python=${PYTHON:-python3}
binaries=$(cd "${1:-$(dirname "${BASH_SOURCE[0]}")/../target/release}" && pwd)
results=${2:+$(realpath -m "$2")}
cd "$(dirname "${BASH_SOURCE[0]}")"
[ -e ../data/mnist/train-images-idx3-ubyte.gz ] || {
    echo "error: expected the folder data/mnist beside scripts/: copy it from the project" >&2
    exit 1
}
lib=$("$python" -c 'import os, torch; print(os.path.join(os.path.dirname(torch.__file__), "lib"))')
export LD_LIBRARY_PATH="$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
exec "$python" cuda_check.py "$binaries" ${results:+--results "$results"}
