#!/usr/bin/env bash
# The CUDA build without a GPU: linked, started, its kernels compiled and assembled for real GPUs, its launches counted.
#
#   scripts/check_cuda.sh [--write]
#
# Builds with `--features cuda` (20 minutes on 2 cores), then
#   1. without a driver, every command that is given `--device cuda` must say what is missing;
#   2. with a stand-in for the driver (tests/cuda/libcuda_standin.c: kernels are not run), training and decoding steps must reach their
#      end for each of ARCHS, with no launch that such a GPU could not do; the PTX of every kernel is assembled by ptxas: no error,
#      nothing spilled;
#   3. launches of a step and of a token must not be more than tests/cuda/launches.txt says (--write writes it).
#
# Not run to its end yet: tests/cuda/launches.txt is not there before the first `--write`, and without it step 3 fails.
#
# Needs python3 and PyPI (NVRTC, ptxas and headers: NVIDIA's wheels, in a folder of their own) and a C compiler; where the LLVM bundle's
# host can't be reached also Debian's llvm-22-dev (see cuda_prefix.sh).
#
# ARCHS             compute capabilities; the launches of the last are counted (default: "80 89 90")
# SIZE              of the random model: tiny, small or 0.6b (default: 0.6b, which the launches are of)
# FEATURES          what is built (default: cuda)
# CARGO_TARGET_DIR  where to build (default: ~/.cache/llavm-target)
set -euo pipefail
cd "$(dirname "$0")/.."

write="${1:-}" features="${FEATURES:-cuda}"
cache="$HOME/.cache/llavm-cuda"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$HOME/.cache/llavm-target}"
mkdir -p "$cache"
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT

if [ ! -x "$cache/venv/bin/python" ]; then
    python3 -m venv "$cache/venv"
    "$cache/venv/bin/pip" install -q nvidia-cuda-{nvrtc,runtime,nvcc,crt,cccl} nvidia-nvvm
fi
export CUDA_PATH="$(echo "$cache"/venv/lib/python3*/site-packages/nvidia/cu1[3-9])"
[ -x "$CUDA_PATH/bin/ptxas" ] || { echo "no ptxas under $CUDA_PATH" >&2; exit 1; }
for library in "$CUDA_PATH"/lib/*.so.*; do ln -sf "$library" "${library%%.so.*}.so"; done

if command -v llvm-config-22 > /dev/null; then
    # Only for the build: the program looks for nothing there.
    prefix="$(scripts/cuda_prefix.sh)"
    (eval "$prefix" && cargo build --release --features "$features")
else
    cargo build --release --features "$features"
fi
llavm="$scratch/llavm"
cp "$CARGO_TARGET_DIR/release/llavm" "$llavm" # the next build of the default features replaces it

if ldconfig -p | grep -q "libcuda\.so"; then
    echo "== this machine has a driver: what happens without one is not looked at"
    commands=()
else
    echo "== without a driver"
    commands=("doctor" "bench train --size small" "bench generate --size small")
fi
for command in "${commands[@]}"; do
    if "$llavm" $command --device cuda > "$scratch/out" 2>&1; then
        echo "llavm $command --device cuda passed without a driver" >&2
        exit 1
    fi
    grep -q "libcuda can't be loaded" "$scratch/out" && ! grep -q "panicked" "$scratch/out" || { cat "$scratch/out" >&2; exit 1; }
done

mkdir "$scratch/driver"
cc -shared -fPIC -O1 -o "$scratch/driver/libcuda.so" tests/cuda/libcuda_standin.c
export LD_LIBRARY_PATH="$scratch/driver:$CUDA_PATH/lib" XDG_CACHE_HOME="$scratch/cache"

# launch LOG COMMAND…: with the stand-in; how many launches it took.
launch() {
    local log="$scratch/$1"
    shift
    STANDIN_LOG="$log" "$llavm" "$@" --size "$size" --dtype bf16 --device cuda --no-doctor > "$scratch/out" 2>&1 || { cat "$scratch/out" >&2; return 1; }
    awk '$2 == "launch" { n += $1 } END { print n + 0 }' "$log"
}

# one_more FLAG COUNT COMMAND…: launches that one more of what FLAG counts takes, when everything is compiled and tuned.
one_more() {
    local flag="$1" count="$2" few many
    shift 2
    few="$(launch few "$@" "$flag" "$count")"
    many="$(launch many "$@" "$flag" "$((count + 1))")"
    echo $((many - few))
}

# assemble FOLDER: every kernel by ptxas; fails if one is refused or spills.
assemble() {
    local ptx target kernels=0 wrong=0
    for ptx in "$1"/*.ptx; do
        target="$(awk '$1 == ".target" { sub(",", "", $2); print $2; exit }' "$ptx")"
        kernels=$((kernels + 1))
        if ! "$CUDA_PATH/bin/ptxas" -v -arch="$target" -o /dev/null "$ptx" > "$scratch/ptxas" 2>&1 || grep -qE "[1-9][0-9]* bytes spill" "$scratch/ptxas"; then
            wrong=$((wrong + 1))
            printf '%s: %s\n' "$(basename "$ptx")" "$(awk '$1 == ".visible" { print $3; exit }' "$ptx")" >&2
            grep -E "error|spill" "$scratch/ptxas" >&2
        fi
    done
    echo "$kernels kernels assembled for $target, $wrong of them wrong"
    [ "$kernels" -gt 0 ] && [ "$wrong" -eq 0 ]
}

status=0
size="${SIZE:-0.6b}" archs="${ARCHS:-80 89 90}"
for arch in $archs; do
    export STANDIN_ARCH="$arch" STANDIN_PTX="$scratch/ptx-$arch"
    mkdir "$STANDIN_PTX"
    for command in "bench train --stage align --batch 2 --steps 1" "bench train --stage lora --batch 2 --steps 1" "bench generate --runs 1 --new 2"; do
        launch all $command > /dev/null
    done
    assemble "$STANDIN_PTX" || status=1
    unset STANDIN_PTX
done

echo "== launches"
align="$(one_more --steps 4 bench train --stage align --batch 2)"
lora="$(one_more --steps 4 bench train --stage lora --batch 2)"
token="$(one_more --new 4 bench generate --runs 1)"
# The answer for warmth is one token longer too.
printf 'align %s\nlora %s\ntoken %s\n' "$align" "$lora" "$((token / 2))" | tee "$scratch/launches"
if [ "$write" = --write ]; then
    cp "$scratch/launches" tests/cuda/launches.txt
fi
while read -r step count; do
    most="$(awk -v step="$step" '$1 == step { print $2 }' tests/cuda/launches.txt)"
    [ "$count" -le "${most:-0}" ] || { echo "$step: $count launches, tests/cuda/launches.txt allows ${most:-none}" >&2; status=1; }
done < "$scratch/launches"
exit "$status"
