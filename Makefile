# `make` lists the targets. Each target first sets up what it needs: see scripts/setup.sh.
.PHONY: help setup train test test-all lint cross-check check-versions export reproduce adapt bench bench-browser pictures no-digits time-pictures load-test docs web package audit fuzz miri neon clean
.DEFAULT_GOAL := help

# With MAKEFLAGS cargo would look for make's job server, and warn that it cannot reach it.
unexport MAKEFLAGS

PY := .venv/bin/python
# Two files of tests at a time: most tests wait for one thread.
PYTEST := $(PY) -m pytest --numprocesses=2 --dist=loadfile

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

setup: ## install PyTorch into .venv, linked as .libtorch; TORCH_INDEX_URL=... for another build
	@scripts/setup.sh

train: ## train on MNIST; ARGS="--epochs 20" passes options, ARGS=--help lists them
	@scripts/setup.sh rust
	cargo run --release --bin train -- $(ARGS)

# The tests run the programs. Both suites run, even if the first one fails.
test: setup lint build ## lint, then the Rust and Python tests, except the exhaustive ones
	@status=0; \
	echo cargo test --release --locked; cargo test --release --locked || status=1; \
	echo $(PYTEST) scripts tests; $(PYTEST) scripts tests || status=1; \
	exit $$status

test-all: ## `make test`, then the exhaustive tests
	@status=0; \
	$(MAKE) test || status=1; \
	echo cargo test --release --locked -- --ignored; \
	cargo test --release --locked -- --ignored || status=1; \
	echo $(PYTEST) -m exhaustive scripts tests; \
	$(PYTEST) -m exhaustive scripts tests || status=1; \
	exit $$status

.PHONY: build
build: setup
	cargo build --release --locked --bins --examples

# --release, so that torch-sys's C++ is compiled once for clippy, the tests and the programs.
# The core's documentation has to build without the features that other packages enable.
lint: setup ## check formatting, clippy, ruff and the documentation; warnings are errors
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings
	cargo clippy --release --locked -p lenet5-core -- -D warnings
	.venv/bin/ruff check scripts tests
	.venv/bin/ruff format --check scripts tests
	RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --workspace --no-deps
	RUSTDOCFLAGS="-D warnings" cargo doc --release --locked -p lenet5-core --no-deps

cross-check: setup ## compare the Rust programs with PyTorch, bit by bit
	cargo build --release
	$(PY) scripts/cross_check.py

check-versions: setup ## exchange weights with other versions of PyTorch; ARGS="2.6.0 newest"
	cargo build --release
	$(PY) scripts/check_versions.py $(ARGS)

export: setup ## export weights as a torch.export program and as ONNX; ARGS="IN OUT"
	cargo build --release
	$(PY) -m pip install -q -r scripts/requirements-export.txt
	$(PY) scripts/export.py $(or $(ARGS),weights/lenet5.safetensors target/lenet5)

reproduce: setup ## repeat the paper's experiments, and print both results; ARGS="--seeds 1"
	cargo build --release
	$(PY) scripts/reproduce.py $(ARGS)

adapt: setup ## measure how well a network learns a writer's hand; ARGS="--seeds 1"
	cargo build --release
	$(PY) scripts/adapt.py $(ARGS)

bench: setup ## compare the speed with other frameworks, in browsers too; ARGS=--quick
	cargo build --release --bins --examples
	$(PY) -m pip install -q -r scripts/requirements-bench.txt
	$(PY) scripts/bench.py $(ARGS)
	$(PY) scripts/bench_browser.py $(ARGS)

bench-browser: setup ## of `make bench`, the module for browsers and the page alone; ARGS=--quick
	cargo build --release --bins --examples
	$(PY) -m pip install -q -r scripts/requirements-export.txt
	$(PY) scripts/bench_browser.py $(ARGS)

pictures: setup ## measure how well `predict` reads pictures of many kinds; ARGS="--count 1000"
	cargo build --release
	$(PY) scripts/pictures.py $(ARGS)

no-digits: setup ## measure how often `predict` reads digits where there are none; ARGS="--count 100"
	cargo build --release
	$(PY) scripts/no_digits.py $(ARGS)

time-pictures: setup ## measure how long a photo and a sheet of digits take; ARGS="--runs 5"
	cargo build --release
	$(PY) scripts/time_pictures.py $(ARGS)

reading-weights: setup ## make the weights that read pictures; SEMEION=semeion.data.gz ZIP=zip.train.gz; needs npm
	SEMEION="$(SEMEION)" ZIP="$(ZIP)" scripts/reading_weights.sh

load-test: setup ## measure the HTTP service's requests per second; ARGS="--soak 60"; needs oha
	cargo build --release --bins --example inference
	$(PY) scripts/load_test.py $(ARGS)

fuzz: setup ## fuzz the file readers; ARGS="pickle 1000000"; needs cargo-fuzz
	fuzz/run.sh $(ARGS)

docs: ## the book as web pages, in target/book; installs mdBook if it is missing
	@command -v mdbook >/dev/null || [ -x target/tools/bin/mdbook ] || cargo install mdbook --locked --version 0.5.4 --root target/tools
	@PATH="$$PWD/target/tools/bin:$$PATH" mdbook build docs
	@echo target/book/index.html

web: setup ## build the WebAssembly module of the page anew, into web/page/lenet5
	$(PY) scripts/build_web.py

package: ## the packages as they would be published, each built from its archive
	cargo package --locked --workspace --exclude lenet5-programs $(ARGS)

audit: ## licences and advisories of all dependencies, and whether the public interface changed; needs cargo-deny, cargo-semver-checks
	cargo deny check
	@since=$${SINCE:-$$(git describe --tags --abbrev=0 2>/dev/null)}; \
	if [ -n "$$since" ]; then cargo semver-checks -p lenet5-core --baseline-rev "$$since"; \
	else echo "no release yet: the public interface is compared with nothing"; fi

miri: ## test the core's portable kernels in Miri, for undefined behaviour; needs nightly Rust
	cargo +nightly miri test -p lenet5-core --test core portable

# Every 64-bit CPU of Arm has NEON; the tests run in an emulator of such a CPU.
neon: export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER := aarch64-linux-gnu-gcc
neon: export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER := qemu-aarch64 -L /usr/aarch64-linux-gnu
neon: ## test the core's kernels for Arm in an emulator, in ten minutes; needs rustup, and Debian's qemu-user, gcc-aarch64-linux-gnu and libc6-dev-arm64-cross
	rustup target add aarch64-unknown-linux-gnu
	LENET5_EMULATED=1 cargo test --release --locked -p lenet5-core --target aarch64-unknown-linux-gnu $(ARGS)

clean: ## remove target, .venv and .libtorch; runs/ stays
	cargo clean
	rm -rf .venv .pytest_cache .ruff_cache
	[ ! -L .libtorch ] || rm .libtorch
