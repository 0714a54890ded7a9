#!/usr/bin/env bash
# Builds the wheel and tries it in a fresh environment, away from the repository: from nothing to a trained model and an answer.
#
#   scripts/check_wheel.sh [DIR]    DIR keeps the wheel (default: a temporary folder)
#
# PYTHON=FILE  the Python to try it with (default: python3); maturin must be on the path or in it (`pip install maturin`)
set -euo pipefail
cd "$(dirname "$0")/.."

python="${PYTHON:-python3}"
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
out="${1:-$scratch/wheel}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$HOME/.cache/llavm-target}"

if command -v maturin > /dev/null; then maturin=(maturin); else maturin=("$python" -m maturin); fi
"${maturin[@]}" build --release --out "$out"
wheel="$(ls -t "$out"/llavm-*.whl | head -n 1)"

"$python" -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet --no-index "$wheel"
mkdir "$scratch/empty"
(
    cd "$scratch/empty"
    llavm="$scratch/venv/bin/llavm"
    "$llavm" --version
    "$llavm" init quickstart
    # The whole quick start in CI's own step; here, that everything it needs is in the program.
    sed -i 's/^rows   = 6000/rows   = 400/' quickstart.toml
    "$llavm" run quickstart.toml > run.log 2>&1 || { tail -n 30 run.log >&2; exit 1; }
    "$llavm" generate quickstart.toml --text-only --prompt "What?" --max-new-tokens 4
)
printf '%s: %s MiB, installed %s MiB\n' "$(basename "$wheel")" "$(($(stat -c %s "$wheel") >> 20))" \
    "$(($(stat -c %s "$scratch/venv/bin/llavm") >> 20))"
