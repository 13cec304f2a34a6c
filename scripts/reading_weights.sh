#!/bin/bash
# Makes the weights that read pictures, weights/lenet5-reading.* and weights/lenet5-reject.*.
#
# Run: make reading-weights SEMEION=semeion.data.gz ZIP=zip.train.gz
# Without SEMEION or ZIP it leaves out these digits. It takes about 40 minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."
semeion=${SEMEION:-}
zip=${ZIP:-}
out=target/reading
mkdir -p "$out"
xargs npm install --prefix "$out" --no-audit --no-fund --ignore-scripts < scripts/reading_packages.txt
.venv/bin/python -m pip install -q -r scripts/requirements-reading.txt
.venv/bin/python scripts/hands.py "$out/hands" --fonts "$out/node_modules" \
  ${semeion:+--semeion "$semeion"} ${zip:+--zip "$zip"}
.venv/bin/python scripts/other_shapes.py "$out/hands" "$out"
cargo build --release --locked --bins --examples
target/release/examples/reading_data "$out/hands" "$out"
target/release/train --data "$out/reading" --preset best --epochs 60 --out "$out/runs/reading"
target/release/train --data "$out/reject" --classes 11 --preset best --epochs 20 --out "$out/runs/reject"
for network in reading reject; do
  for suffix in pt pth safetensors; do
    target/release/convert "$out/runs/$network/model.pt" "weights/lenet5-$network.$suffix"
  done
done
