#!/usr/bin/env bash
# The first day on a GPU, in slots of at most 10 minutes; every measurement is a line of JSON.
#
#   scripts/gpu_day.sh [--dry-run] SLOT OUT PROGRAM…
#
# SLOT     doctor | train-SIZE | generate-SIZE (SIZE: tiny, small or 0.6b) | peer-SIZE | report
# OUT      the file to which lines are added: {"slot","program","command","exit","seconds","figures":{…},"line"}
# PROGRAM  llavm as each of the feature sets `cuda`, `cuda-llvm`, `cuda,fusion` and `cuda-llvm,fusion` builds it, under names that tell
#          them apart (build them first: compiling is no part of a slot). For `peer-SIZE`: a Python with torch and transformers.
#          For `report`: nothing; OUT's lines are printed as one JSON array.
#
# --dry-run      only print the commands
# DEVICE         default: cuda
# DTYPES         default: bf16; doctor also looks at f32
# BATCHES        rows of a step, and prompts answered together (default: "8 32")
# STEPS          timed steps or, for `generate`, tokens (default: 20)
# PEAK           TFLOP/s of the card in bf16, dense, for the share of it that is used (default: 989, an H200)
# SLOT_SECONDS   after these nothing of the slot runs any more (default: 580); what did not fit is a line with "exit": null
#
# Order of the day: doctor, train-small, train-0.6b, generate-small, generate-0.6b, peer-small, peer-0.6b, report. A program whose doctor
# finds it wrong refuses to train and to answer, which is a line as well. No GPU has run this yet.
set -uo pipefail
scripts="$(cd "$(dirname "$0")" && pwd)"

dry=""
if [ "${1:-}" = --dry-run ]; then dry=1; shift; fi
slot="${1:?SLOT: doctor, train-SIZE, generate-SIZE, peer-SIZE or report}" out="${2:?OUT}"
shift 2
device="${DEVICE:-cuda}" peak="${PEAK:-989}" steps="${STEPS:-20}" end=$((SECONDS + ${SLOT_SECONDS:-580}))
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT

# figures LINE: "12.5 samples/s" and the like as JSON numbers.
figures() {
    grep -oE '[0-9.]+ (ms/step|model TFLOP/s|samples/s|tokens/s)|[0-9.]+% of the device|peak memory [0-9.]+ [MG]iB|(prefill|decode) [0-9.]+' <<< "$1" | awk '
        function add(name, value) { if (!(name in seen)) { printf "%s\"%s\": %s", comma, name, value; comma = ", " } seen[name] }
        $1 == "prefill" || $1 == "decode" { add($1 "_tokens_per_s", $2); next }
        $1 == "peak" { add("host_mib", $4 == "GiB" ? $3 * 1024 : $3); next }
        $2 == "ms/step" { add("ms_per_step", $1) }
        $2 == "model" { add("model_tflops_per_s", $1) }
        $2 == "samples/s" { add("samples_per_s", $1) }
        $2 == "tokens/s" { add("tokens_per_s", $1) }
        $2 == "of" { sub("%", "", $1); add("mfu_percent", $1) }'
}

# watch: the most memory in use on any GPU, in MiB, into a file, until it is killed.
watch() {
    local now most=0
    while now="$(nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits 2> /dev/null | sort -n | tail -1)" && [ -n "$now" ]; do
        [ "$now" -gt "$most" ] && most="$now" && echo "$most" > "$scratch/mib"
        sleep 0.5
    done
}

# line EXIT SECONDS FIGURES TEXT PROGRAM ARGUMENTS…
line() {
    local text command
    text="$(tr -d '\000-\037' <<< "$4" | sed 's/\\/\\\\/g; s/"/\\"/g')"
    command="$(sed 's/\\/\\\\/g; s/"/\\"/g' <<< "${*:6}")"
    printf '{"slot": "%s", "program": "%s", "command": "%s", "exit": %s, "seconds": %s, "figures": {%s}, "line": "%s"}\n' \
        "$slot" "$(basename "$5")" "$command" "$1" "$2" "$3" "$text" | tee -a "$out"
}

# measure PROGRAM ARGUMENTS…
measure() {
    local start="$SECONDS" left=$((end - SECONDS)) status text found watcher
    if [ -n "$dry" ]; then echo "$*"; return; fi
    if [ "$left" -lt 10 ]; then line null 0 "" "no time left in this slot" "$@"; return; fi
    rm -f "$scratch/mib"
    watch & watcher=$!
    timeout "$left" "$@" > "$scratch/out" 2>&1
    status=$?
    kill "$watcher" 2> /dev/null
    wait "$watcher" 2> /dev/null
    text="$(grep -E 'samples/s|decode|verdict|"rate"' "$scratch/out" | tail -1)"
    [ -n "$text" ] || text="$(grep -v '^$' "$scratch/out" | tail -1)"
    case "$text" in
    "{"*"}") found="${text#\{}" found="${found%\}}" ;; # a peer's own JSON
    *) found="$(figures "$text")" ;;
    esac
    [ ! -s "$scratch/mib" ] || found="${found:+$found, }\"device_mib\": $(cat "$scratch/mib")"
    line "$status" "$((SECONDS - start))" "$found" "$text" "$@"
    [ "$status" -eq 0 ] || tail -50 "$scratch/out" >&2
}

if [ "$slot" = report ]; then
    { echo "["; sed '$!s/$/,/' "$out"; echo "]"; }
    exit
fi
size="${slot#*-}"
for program in "$@"; do
    for dtype in ${DTYPES:-bf16}; do
        case "$slot" in
        doctor)
            # Each by itself: what a training or an answer in one of them asks for later.
            for looked in $(printf '%s\n' f32 "$dtype" | sort -ru); do measure "$program" doctor --device "$device" --dtype "$looked"; done
            ;;
        train-*)
            for stage in align lora; do
                for batch in ${BATCHES:-8 32}; do
                    measure "$program" bench train --size "$size" --stage "$stage" --batch "$batch" --steps "$steps" --dtype "$dtype" --device "$device" --peak-tflops "$peak"
                done
            done
            ;;
        generate-*)
            for batch in 1 ${BATCHES:-8 32}; do
                measure "$program" bench generate --size "$size" --batch "$batch" --new "$steps" --dtype "$dtype" --device "$device"
            done
            ;;
        peer-*)
            case "$dtype" in bf16) torch=bfloat16 ;; f16) torch=float16 ;; *) torch=float32 ;; esac
            for stage in align lora; do
                for batch in ${BATCHES:-8 32}; do
                    measure "$program" "$scripts/bench_train.py" --peer "[\"train\", \"$size\", \"$stage\", $batch, $steps, \"$device\", \"$torch\"]"
                done
            done
            measure "$program" "$scripts/bench_train.py" --peer "[\"generate\", 128, $steps, \"$size\", \"$device\", \"$torch\"]"
            ;;
        *) echo "unknown slot $slot: use doctor, train-SIZE, generate-SIZE, peer-SIZE or report" >&2; exit 2 ;;
        esac
    done
done
