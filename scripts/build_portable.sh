#!/usr/bin/env bash
# Builds the program for every Linux with glibc 2.28 or later (Debian 10, RHEL 8), whatever this machine has, and says how large it is
# and which glibc it needs. Only the linking differs: zig knows the symbols of every glibc.
#
#   pip install ziglang && scripts/build_portable.sh
#
# PYTHON=FILE       the Python that has ziglang (default: python3)
# CARGO_TARGET_DIR  where to build (default: ~/.cache/llavm-portable)
set -euo pipefail
cd "$(dirname "$0")/.."

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$HOME/.cache/llavm-portable}"
machine="$(uname -m)"
export "CARGO_TARGET_${machine^^}_UNKNOWN_LINUX_GNU_LINKER=$PWD/scripts/zig-linker"
cargo build --release --locked --bin llavm

program="$CARGO_TARGET_DIR/release/llavm"
strip "$program"
needs="$(objdump -T "$program" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)"
printf '%s: %s MiB, needs %s\n' "$program" "$(($(stat -c %s "$program") >> 20))" "$needs"
[ "$(printf '%s\n' "$needs" GLIBC_2.28 | sort -V | tail -n 1)" = GLIBC_2.28 ]
"$program" --version
