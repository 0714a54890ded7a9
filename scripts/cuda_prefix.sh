#!/usr/bin/env bash
# A stand-in for the LLVM bundle that the build of `--features cuda` downloads, where its host can't be reached.
#
#   eval "$(scripts/cuda_prefix.sh [FOLDER])" && cargo build --release --features cuda
#
# The bundle (tracel-llvm 23.1.0) is LLVM's static libraries, headers and `llvm-config`. This makes a folder that looks like it to
# the crate `tracel-llvm-bundler` from Debian's packages:
#
#   apt-get install llvm-22-dev libpolly-22-dev libz3-dev libzstd-dev zlib1g-dev libxml2-dev
#
# FOLDER  where (default: ~/.cache/llavm-cuda-prefix); printed as XDG_DATA_HOME, under which the crate looks
# LLVM_CONFIG  Debian's llvm-config (default: llvm-config-22)
set -euo pipefail

folder="${1:-$HOME/.cache/llavm-cuda-prefix}"
config="$(command -v "${LLVM_CONFIG:-llvm-config-22}")" || {
    echo "there is no ${LLVM_CONFIG:-llvm-config-22}: apt-get install llvm-22-dev libpolly-22-dev" >&2
    exit 1
}
lock="$(dirname "$0")/../Cargo.lock"
version="$(awk '$0 == "name = \"tracel-llvm-bundler\"" { getline; gsub("\"", "", $3); print $3 }' "$lock")"
bundle="$folder/tracel/tracel-llvm-$version"
mkdir -p "$bundle/bin" "$bundle/lib"

# The crate turns every system library into `-lNAME`: it needs names, where Debian's tool gives paths, and finds libraries
# that have no `.so` of their own (a -dev package) in the bundle's folder.
cat > "$bundle/bin/llvm-config" << SCRIPT
#!/bin/sh
"$config" "\$@" | sed -E 's#(^| )/[^ ]*/lib([^/ ]+)\\.so#\\1-l\\2#g'
SCRIPT
chmod +x "$bundle/bin/llvm-config"

"$config" --link-static --system-libs | tr ' ' '\n' | sed -nE 's#^-l##p; s#.*/lib([^/]+)\.so$#\1#p' | while read -r name; do
    echo 'int main(void) { return 0; }' | cc -x c - -o /dev/null "-l$name" 2> /dev/null && continue
    library="$(ldconfig -p | awk -v name="lib$name.so" 'index($1, name) == 1 { print $NF; exit }')"
    [ -n "$library" ] || { echo "LLVM needs lib$name, which is not installed" >&2; exit 1; }
    ln -sf "$library" "$bundle/lib/lib$name.so"
    echo "export LIBRARY_PATH=\"$bundle/lib\${LIBRARY_PATH:+:\$LIBRARY_PATH}\"" # the C compiler looks here too
done | sort -u

touch "$bundle/.tracel-llvm-installed" # where this is, nothing is downloaded
echo "export XDG_DATA_HOME=\"$folder\""
