#!/usr/bin/env bash
# Measures Turnpike beside mosquitto 2.0 and a bare relay on this machine, and writes what
# came out to docs/performance/*.json and the tables of docs/performance.md.
#
# Usage: docs/performance/measure.sh [ROUNDS [SECONDS]]     (5 rounds of 3 seconds)
#
# The three run pinned to core 0, the load generator to core 1, one load at a time, in turns:
# within a round each load meets all three one after the other, so that whatever else the machine
# does meets all of them. Ratios are taken within a round; medians over the rounds.
# Needs mosquitto, strace, python3 and two cores. Takes about 5 minutes.
set -euo pipefail
# A session of its own: priorities hold between sessions only if the session's own is raised.
[ -n "${MEASURE:-}" ] || MEASURE=1 exec setsid -w "$0" "$@"
cd "$(dirname "$0")/../.."
rounds=${1:-5}
seconds=${2:-3}
turnpike=${TURNPIKE:-target/release/turnpike}
[ -x "$turnpike" ] || cargo build --release
for tool in mosquitto strace python3 taskset; do
    command -v "$tool" >/dev/null || { echo "measure: $tool is not installed" >&2; exit 1; }
done
work=$(mktemp -d)
pids=()
stop() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap stop EXIT

# Priority over other work on the machine, where that is allowed: the same for all.
nice=()
nice -n -10 true 2>/dev/null && nice=(nice -n -10)
{ echo -10 >/proc/self/autogroup; } 2>/dev/null || true

# A topic as long as that of Turnpike's demo channel, for the others.
prefix=m/0190a0b0-1111-7111-8111-111111111111/c/0190a0b0-1111-7111-8111-222222222222

cat >"$work/mosquitto.conf" <<CONF
listener 2884 127.0.0.1
allow_anonymous true
persistence false
log_dest none
set_tcp_nodelay true
CONF
"${nice[@]}" taskset -c 0 mosquitto -c "$work/mosquitto.conf" & pids+=($!)
mosquitto=$!
"${nice[@]}" taskset -c 0 "$turnpike" loadtest relay --listen 127.0.0.1:2885 & pids+=($!)
relay=$!
TURNPIKE_LISTENERS__WS__ENABLED=false TURNPIKE_LISTENERS__HTTP__ENABLED=false \
    "${nice[@]}" taskset -c 0 "$turnpike" serve --data-dir "$work/data" --json \
    --mqtt-address 127.0.0.1:2883 --api-address 127.0.0.1:2900 \
    >"$work/credentials.json" 2>"$work/turnpike.log" & pids+=($!)
broker=$!
for _ in $(seq 100); do [ -s "$work/credentials.json" ] && break; sleep 0.1; done
[ -s "$work/credentials.json" ] || { cat "$work/turnpike.log" >&2; exit 1; }

load() { # name, subject, result file, further arguments
    local name=$1 subject=$2 result=$3 at pid
    shift 3
    case $name in
        pairs) at=(pairs) ;;
        pairs-16) at=(pairs --burst 16) ;;
        fan-in) at=(fan-in) ;;
        fan-out) at=(fan-out) ;;
        fan-out-8) at=(fan-out --burst 8) ;;
    esac
    case $subject in
        mosquitto) at+=(--address 127.0.0.1:2884 --topic-prefix "$prefix" --pid "$mosquitto") ;;
        relay) at+=(--address 127.0.0.1:2885 --topic-prefix "$prefix" --pid "$relay") ;;
        turnpike) at+=(--credentials "$work/credentials.json" --pid "$broker") ;;
    esac
    "${nice[@]}" taskset -c 1 timeout 120 "$turnpike" loadtest "${at[@]}" --json "$result" "$@"
}

loads=(pairs pairs-16 fan-in fan-out fan-out-8)
subjects=(mosquitto turnpike relay)
for round in $(seq "$rounds"); do
    for name in "${loads[@]}"; do
        for subject in "${subjects[@]}"; do
            echo "round $round, $subject:"
            load "$name" "$subject" "$work/$name.$subject.$round.json" --duration "$seconds"
        done
        # Who is first changes from load to load.
        subjects=("${subjects[@]:1}" "${subjects[0]}")
    done
done

# System calls: two runs of different length under strace; the difference leaves out connecting.
calls() { # name, subject, messages
    local pid=$broker
    [ "$2" = mosquitto ] && pid=$mosquitto
    strace -c -f -p "$pid" -o "$work/strace" 2>/dev/null & local tracer=$!
    sleep 0.5
    load "$1" "$2" "$work/$1.$2.$3.calls.json" --messages "$3" >/dev/null
    kill -INT "$tracer"
    wait "$tracer" || true
    mv "$work/strace" "$work/$1.$2.$3.calls"
}
for subject in mosquitto turnpike; do
    for n in 10000 50000; do calls pairs "$subject" "$n"; done
    for n in 32000 160000; do calls pairs-16 "$subject" "$n"; done
    for n in 10000 50000; do calls fan-in "$subject" "$n"; done
    for n in 20 100; do calls fan-out "$subject" "$n"; done
done

python3 docs/performance/tables.py collect "$work" "$rounds" "$seconds"
python3 docs/performance/tables.py write
