#!/usr/bin/env bash
# Prepares this checkout: .venv with the pinned scripts/requirements.txt, and .libtorch, a link to
# that torch's folder, which .cargo/config.toml gives to cargo as LIBTORCH.
#
#   scripts/setup.sh         for the Rust build and the Python tests (make setup, make test)
#   scripts/setup.sh rust    for the Rust build alone (make train)
#
# Your own LIBTORCH or LIBTORCH_USE_PYTORCH takes precedence: its version is checked, .libtorch is
# not created, and `rust` does not need Python. Other environment variables:
#   PYTHON=python3.12        the Python that creates .venv (default: python3)
#   TORCH_INDEX_URL=...      pip's index for torch, such as PyTorch's index for CPU or older CUDA
#
# Creates .venv/ and .libtorch; prints to stderr. If both are up to date it returns at once. It
# replaces what an interrupted run left behind.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

requirements=scripts/requirements.txt
cuda_requirements=scripts/requirements-cuda-build.txt
torch_version=$(sed -n 's/^torch==//p' "$requirements")
version_header=include/torch/headeronly/version.h
python=${PYTHON:-python3}
# Three lines: checksum of the requirements, TORCH_INDEX_URL, torch's folder. Written last; until
# then its first line is "unfinished".
stamp=.venv/setup-stamp

say() { printf 'setup: %s\n' "$*" >&2; }

# Problems are collected, then reported together.
problems=()
problem() { problems+=("$*"); }
stop_on_problems() {
    if [ ${#problems[@]} -gt 0 ]; then
        printf 'error: %s\n' "${problems[@]}" >&2
        exit 1
    fi
}
fail() { problem "$*"; stop_on_problems; }

have() { command -v "$1" >/dev/null 2>&1; }

# Prints the command that installs a package, on Debian or Ubuntu ($1), Fedora ($2), macOS ($3).
install_hint() {
    local sudo=''
    [ "$EUID" -eq 0 ] || sudo='sudo '
    if have apt-get; then echo "${sudo}apt install $1"
    elif have dnf; then echo "${sudo}dnf install $2"
    elif have brew || have xcode-select; then echo "$3"
    else echo "apt install $1 (Debian, Ubuntu), dnf install $2 (Fedora), $3 (macOS)"
    fi
}

check_build_tools() {
    local cxx=${CXX:-c++} other
    have cargo || problem "no cargo: install Rust from https://rustup.rs, then open a new terminal"
    if ! have "${cxx%% *}"; then
        for other in g++ clang++; do
            if [ -z "${CXX:-}" ] && have "$other"; then
                problem "no C++ compiler named c++, but there is $other: export CXX=$other"
                return
            fi
        done
        problem "no C++ compiler (${CXX:+CXX=}$cxx): $(install_hint build-essential gcc-c++ 'xcode-select --install')"
    fi
}

# check_cargo_version and check_python start programs, so they run only before an installation.
check_cargo_version() {
    local oldest found
    have cargo || return 0
    oldest=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    if ! found=$(cargo --version 2>&1); then
        problem "cargo does not run: $found"
    elif [[ $found =~ ^cargo\ 1\.([0-9]+) ]] && [ "${BASH_REMATCH[1]}" -lt "${oldest#1.}" ]; then
        problem "Rust $oldest or newer is needed, found $found: run rustup update, or install Rust from https://rustup.rs"
    fi
}

check_python() {
    local found other='; or name another Python: make PYTHON=python3.12'
    if ! have "$python"; then
        problem "no $python: $(install_hint 'python3 python3-venv' python3 'brew install python@3.13')"
    elif ! found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>&1); then
        problem "$python does not run: $found"
    elif [ "${found%%.*}" -lt 3 ] || [ "${found#*.}" -lt 10 ]; then
        problem "PyTorch $torch_version needs Python 3.10 or newer, found $found: install a newer one$other"
    elif ! "$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then
        problem "$python cannot make a virtual environment (no venv or ensurepip module): $(install_hint "python$found-venv" python3 'brew install python@3.13')$other"
    fi
}

# Checks the disk space for .venv, for unpacking the wheels, and for cargo's target/.
check_disk() {
    local needed=8 free advice=", or take PyTorch without CUDA (3 GB): make TORCH_INDEX_URL=<PyTorch's CPU index>"
    case "$(uname -s) $index" in Darwin* | */cpu | */cpu/) needed=3 advice='' ;; esac
    free=$(df -Pk . | awk 'NR == 2 { for (i = 2; i <= NF; i++) if ($i ~ /^[0-9]+%$/) { print $(i - 1); exit } }')
    if [ "${free:-0}" -lt $((needed * 1000 * 1000)) ]; then
        problem "too little disk space: PyTorch and the build need about $needed GB in $PWD, free: $((${free:-0} / 1000)) MB;
       free some, or clone to a larger disk$advice"
    fi
}

# Checks the libtorch that the caller's own LIBTORCH or LIBTORCH_USE_PYTORCH names.
check_own_libtorch() {
    local root name header found py=python3
    [ -z "${LIBTORCH_BYPASS_VERSION_CHECK+set}" ] || return 0
    if [ -n "${LIBTORCH_USE_PYTORCH+set}" ]; then
        [ -z "${VIRTUAL_ENV:-}" ] || py=python # as torch-sys does
        name="LIBTORCH_USE_PYTORCH, $py"
        root=$("$py" -c 'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0])' 2>/dev/null) ||
            { problem "LIBTORCH_USE_PYTORCH is set, but $py has no torch: $py -m pip install torch==$torch_version, or unset it"; return; }
    else
        root=${LIBTORCH_INCLUDE:-$LIBTORCH}
        name="LIBTORCH"
        case $root in
            /*) ;;
            *) problem "LIBTORCH must be an absolute path, found '$root': change it, or unset it"; return ;;
        esac
    fi
    # Older versions have the second path.
    for header in "$root/$version_header" "$root/include/torch/csrc/api/include/torch/version.h"; do
        found=$(sed -nE "s/^#define TORCH_VERSION_(MAJOR|MINOR|PATCH) +//p" "$header" 2>/dev/null | paste -sd. - || true)
        [ -z "$found" ] || break
    done
    if [ -z "$found" ]; then
        problem "expected libtorch $torch_version at $root ($name), found none: correct $name, or unset it"
    elif [ "$found" != "$torch_version" ]; then
        problem "expected libtorch $torch_version, found $found at $root ($name): install $torch_version there, or unset it"
    fi
}

# Returns whether .venv is complete and up to date. Sets have_index and torch from the stamp.
venv_is_ready() {
    have_sum='' have_index='' torch=''
    [ -f "$stamp" ] || return 1
    { read -r have_sum && read -r have_index && read -r torch; } <"$stamp" || return 1
    # Without TORCH_INDEX_URL a torch from any index is accepted.
    [ "$have_sum" = "$sum" ] && [ "${TORCH_INDEX_URL:-$have_index}" = "$have_index" ] &&
        [ -x .venv/bin/python ] && [ -f "$torch/$version_header" ]
}

pip_install() {
    # TMPDIR: pip unpacks gigabytes, and /tmp may be small. -I: ignore PYTHONPATH.
    # --only-binary: compile nothing here.
    TMPDIR="$PWD/.venv/tmp" .venv/bin/python -I -m pip --log .venv/pip.log install \
        --no-user --only-binary :all: --disable-pip-version-check "$@" >&2 || pip_failed
}

pip_failed() {
    local why
    if grep -q 'No space left on device' .venv/pip.log; then
        why="the disk is full: free some space"
    elif grep -qE 'ConnectionError|ProxyError|SSLError|[Tt]imed? ?out|ConnectionResetError|IncompleteRead' .venv/pip.log; then
        why="no connection to the package index: check the network, or set HTTPS_PROXY or PIP_INDEX_URL${index:+; TORCH_INDEX_URL is $index}"
    else
        why="where torch has 'no matching distribution': the index has none for this Python; $torch_version is made for Python 3.10 to 3.14 on Linux
       (64 bit, glibc) and macOS (Apple silicon), this is $("$python" --version 2>&1) on $(uname -sm); make PYTHON=... names another Python"
    fi
    fail "pip could not install $requirements; its messages are above, more in .venv/pip.log
       $why
       then run the same command again"
}

make_venv() {
    # Keep a .venv that is finished, or created by hand. Replace one that is unfinished, damaged or
    # from another index, because pip does not distinguish two builds of one version.
    if [ "$have_sum" = unfinished ] || [ "$index" != "$have_index" ] ||
        { [ -f "$stamp" ] && [ ! -f "$torch/$version_header" ]; } ||
        ! .venv/bin/python -I -m pip --version >/dev/null 2>&1; then
        rm -rf .venv
    fi
    check_cargo_version
    check_python
    compgen -G ".venv/lib/python3*/site-packages/torch/$version_header" >/dev/null || check_disk
    stop_on_problems

    mkdir -p .venv
    echo unfinished >"$stamp"
    say "installing PyTorch $torch_version and the test tools into .venv (with CUDA about 5 GB, some minutes)"
    if ! [ -x .venv/bin/python ]; then
        "$python" -m venv .venv >&2 || fail "$python -m venv .venv failed; its messages are above"
    fi
    mkdir -p .venv/tmp
    if [ -n "$index" ]; then
        # --no-deps: only torch comes from this index, which may lack torch's dependencies or hold
        # old ones. The next call adds them from the default index, and keeps this torch:
        # 2.11.0+cpu satisfies torch==2.11.0.
        pip_install --no-deps --index-url "$index" "torch==$torch_version"
    fi
    pip_install -r "$requirements"
    torch=$(compgen -G ".venv/lib/python3*/site-packages/torch" | head -n 1) || true
    [ -f "$torch/$version_header" ] || fail "the torch in .venv is incomplete: run make clean, then this again"
    installed=$(.venv/bin/python -I -c 'import torch; print(torch.__version__)') ||
        fail "the torch in .venv does not load; Python's message is above"
    # If PyTorch has CUDA, build.rs needs all of CUDA's headers.
    [ ! -f "$torch/lib/libtorch_cuda.so" ] || pip_install -r "$cuda_requirements"
    rm -rf .venv/tmp
    printf '%s\n' "$sum" "$index" "$torch" >"$stamp.new"
    mv "$stamp.new" "$stamp"
    say "installed torch $installed into .venv"
}

link_libtorch() {
    [ "$(readlink .libtorch || true)" != "$torch" ] || return 0
    if [ -e .libtorch ] && [ ! -L .libtorch ]; then
        fail ".libtorch is not a link: move it elsewhere, and set LIBTORCH to use it"
    fi
    ln -sfn "$torch" .libtorch
    say "linked .libtorch to $torch"
}

case ${1:-} in
    '' | rust) ;;
    *) echo "usage: scripts/setup.sh [rust]" >&2; exit 2 ;;
esac
# The exit code is 128 plus the signal's number; an ignored signal stays ignored.
interrupted() { echo >&2; say "interrupted; the next run starts over"; exit "$1"; }
trap 'interrupted 129' HUP
trap 'interrupted 130' INT
trap 'interrupted 143' TERM

own_libtorch=${LIBTORCH+yes}${LIBTORCH_USE_PYTORCH+yes}
check_build_tools
[ -z "$own_libtorch" ] || check_own_libtorch
sum=$(cat "$requirements" "$cuda_requirements" | cksum)
if [ "${1:-}" = rust ] && [ -n "$own_libtorch" ]; then
    stop_on_problems
    exit
fi
if ! venv_is_ready; then
    # Only one setup runs at a time: this file is the lock, released when the process ends.
    exec 9<scripts/setup.sh
    if have flock && ! flock -n 9; then
        say "waiting for another setup of this checkout"
        flock 9
    fi
    if ! venv_is_ready; then
        index=${TORCH_INDEX_URL:-$have_index}
        make_venv
    fi
fi
stop_on_problems
[ -n "$own_libtorch" ] || link_libtorch
