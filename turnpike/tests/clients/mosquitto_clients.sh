#!/usr/bin/env bash
# mosquitto_pub and mosquitto_sub against a running broker, 3.1, 3.1.1 and 5.
# Usage: mosquitto_clients.sh READY_JSON
set -euo pipefail
ready=$1
read -r host port domain channel id0 secret0 id1 secret1 < <(python3 - "$ready" <<'PY'
import json, sys
ready = json.load(open(sys.argv[1], encoding="utf-8"))
host, port = ready["listeners"]["mqtt"].rsplit(":", 1)
demo = ready["demo"]
first, second = demo["clients"][:2]
print(host, port, demo["domain"], demo["channel"], first["id"], first["secret"], second["id"], second["secret"])
PY
)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for version in mqttv31 mqttv311 mqttv5; do
    for qos in 0 1 2; do
        topic=m/$domain/c/$channel/mosquitto/$version/$qos
        # Emptied before it is looked at: the one before had its SUBACK too.
        : >"$work/sub"
        timeout 20 stdbuf -oL mosquitto_sub -h "$host" -p "$port" -V "$version" -u "$id0" -P "$secret0" \
            -i "sub-$qos" -t "$topic" -q "$qos" -C 3 -d >"$work/sub" 2>&1 &
        subscriber=$!
        until grep -q SUBACK "$work/sub"; do
            kill -0 "$subscriber" 2>/dev/null || { cat "$work/sub"; exit 1; }
            sleep 0.02
        done
        printf 'one\ntwo\nthree\n' | mosquitto_pub -h "$host" -p "$port" -V "$version" \
            -u "$id1" -P "$secret1" -i "pub-$qos" -t "$topic" -q "$qos" -l
        wait "$subscriber"
        [ "$(grep -cE '^(one|two|three)$' "$work/sub")" = 3 ] || { cat "$work/sub"; exit 1; }
    done
    echo "ok mosquitto $version"
done
if mosquitto_pub -h "$host" -p "$port" -u "$id0" -P wrong -t x -m x 2>"$work/refused"; then
    echo "a wrong secret was let in" >&2
    exit 1
fi
echo "ok mosquitto wrong secret refused"
