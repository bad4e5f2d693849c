#!/bin/sh
# Instructions of each stage, and of mqttbytes beside it: callgrind counts two runs of different
# length, and their difference is the stage's own. Needs valgrind. The count does not vary between
# runs of one binary on one machine; of a refill, `rep movsb` counts for each byte.
set -eu
cd "$(dirname "$0")/../.."
cargo build --release --locked -p turnpike-benches --bin instructions
run=${CARGO_TARGET_DIR:-target}/release/instructions
count() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$run" "$1" "$2" 2>&1 |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}
stages=${*:-frame-walk decode-3.1.1 decode-5 decode-mqttbytes refill-mqttbytes encode-3.1.1 \
    encode-5 pieces-3.1.1 pieces-5 encode-mqttbytes encode-copies topic-ids topic-subtopic \
    topic-routes route-whole route-1 route-16 route-16-plus route-100}
for stage in $stages; do
    short=$(count "$stage" 6400)
    long=$(count "$stage" 19200)
    printf '%-20s %6d\n' "$stage" $(((long - short) / 12800))
done
