#!/usr/bin/env bash
# Fuzzes the readers of files, outside CI: fuzz/run.sh [TARGET] [RUNS]
#
#   TARGET   pickle, container, idx, data_set, or all (default)
#   RUNS     executions of each (default: 10000000)
#
# Needs `make setup` and cargo-fuzz (cargo install cargo-fuzz); any stable Rust, as coverage needs no
# sanitizer. Seeds are real files that tests/forms.py makes. Writes corpus/, artifacts/ (inputs that
# crash, hang for 10 s or take more than 1 GiB) and target/ here; ends with 0 where there are none.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

targets=${1:-all} runs=${2:-10000000}
[ "$targets" != all ] || targets='pickle container idx data_set'
../.venv/bin/python ../tests/forms.py seeds corpus
for target in $targets; do
    cargo fuzz run --fuzz-dir . --sanitizer none "$target" -- \
        -runs="$runs" -max_len=4096 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1
done
