#!/usr/bin/env bash
# Builds the program for every Linux with glibc 2.28 or later (Debian 10, RHEL 8), whatever this machine has, and says how large it is
# and which glibc it needs. Only the linking differs: zig knows the symbols of every glibc.
#
#   pip install ziglang && scripts/build_portable.sh [DIR]    DIR keeps the program (default: $CARGO_TARGET_DIR/portable)
#
# PYTHON=FILE       the Python that has ziglang (default: python3)
# CARGO_TARGET_DIR  where to build (default: ~/.cache/llavm-target)
set -euo pipefail
cd "$(dirname "$0")/.."

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$HOME/.cache/llavm-target}"
out="${1:-$CARGO_TARGET_DIR/portable}"
mkdir -p "$out"
# The linker of the program alone: crates and build scripts are those of the usual build.
cargo rustc --release --locked --bin llavm -- -C "linker=$PWD/scripts/zig-linker"
mv "$CARGO_TARGET_DIR/release/llavm" "$out/llavm"

program="$out/llavm"
strip "$program"
needs="$(objdump -T "$program" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)"
printf '%s: %s MiB, needs %s\n' "$program" "$(($(stat -c %s "$program") >> 20))" "$needs"
[ "$(printf '%s\n' "$needs" GLIBC_2.28 | sort -V | tail -n 1)" = GLIBC_2.28 ]
"$program" --version
