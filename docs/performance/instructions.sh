#!/bin/sh
# Instructions of each stage, and of mqttbytes beside it: callgrind counts two runs of different
# length, and their difference is the stage's own. Needs valgrind. The count does not vary between
# runs of one binary on one machine; of a refill, `rep movsb` counts for each byte.
#
# Usage: instructions.sh [STAGE...]   prints them
#        instructions.sh check        fails if a stage of ours takes more than 3 % above the baseline
#        instructions.sh write        writes the baseline, instructions.txt
#
# The compiler is the one of rust-toolchain.toml. So that processors with other extensions count
# the same, the C library is told to use none beyond AVX2.
set -eu
cd "$(dirname "$0")/../.."
baseline=docs/performance/instructions.txt
export GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-ERMS,-FSRM
cargo build --quiet --release --locked -p turnpike-benches --bin instructions
run=${CARGO_TARGET_DIR:-target}/release/instructions
count() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$run" "$1" "$2" 2>&1 |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}
ours="frame-walk decode-3.1.1 decode-5 encode-3.1.1 encode-5 pieces-3.1.1 pieces-5 topic-ids
    topic-subtopic topic-routes permit-cached permit-table route-whole route-1 route-16 route-16-plus route-100"
print() {
    for stage in "$@"; do
        short=$(count "$stage" 6400)
        long=$(count "$stage" 19200)
        printf '%-20s %6d\n' "$stage" $(((long - short) / 12800))
    done
}
case ${1:-} in
    check)
        # shellcheck disable=SC2086 # stages are words
        print $ours | awk -v baseline="$baseline" '
            BEGIN { while ((getline line < baseline) > 0) { split(line, word, " "); before[word[1]] = word[2] } }
            {
                if (!($1 in before)) { print $1 ": no baseline; write it with instructions.sh write"; bad = 1; next }
                change = ($2 - before[$1]) * 100 / before[$1]
                printf "%-20s %6d %6d %+6.1f %%\n", $1, before[$1], $2, change
                if (change > 3) bad = 1
                if (change < -3) better = 1
            }
            END {
                if (better) print "some take less: write the new baseline with instructions.sh write"
                if (bad) print "instructions: a stage takes more than 3 % above its baseline"
                exit bad
            }'
        ;;
    write)
        # shellcheck disable=SC2086
        print $ours >"$baseline"
        ;;
    '')
        # shellcheck disable=SC2086
        print $ours decode-mqttbytes refill-mqttbytes encode-mqttbytes encode-copies
        ;;
    *) print "$@" ;;
esac
