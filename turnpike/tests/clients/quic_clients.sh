#!/usr/bin/env bash
# mqttv5, which is not ours, against the QUIC listener, on one stream. (It sends on further streams that
# are unidirectional, which is a way of its own; the tests have EMQX's.)
# Usage: quic_clients.sh READY_JSON CA MQTTV5, where CA signed the broker's certificate.
set -euo pipefail
ready=$1 ca=$2 mqttv5=$3
read -r quic domain channel id0 secret0 id1 secret1 < <(python3 - "$ready" <<'PY'
import json, sys
ready = json.load(open(sys.argv[1], encoding="utf-8"))
demo = ready["demo"]
first, second = demo["clients"][:2]
print(ready["listeners"]["quic"], demo["domain"], demo["channel"], first["id"], first["secret"],
      second["id"], second["secret"])
PY
)
work=$(mktemp -d)
reader=
stop() {
    [ -z "$reader" ] || kill "$reader" 2>/dev/null || true
    rm -rf "$work"
}
trap stop EXIT
fail() {
    echo "quic: $1" >&2
    tail -n 20 "$work"/* >&2 || true
    exit 1
}
publish() { # what is said, further arguments
    local said=$1 qos
    shift
    for qos in 0 1 2; do
        timeout 20 "$mqttv5" pub --non-interactive --url "quics://$quic" --ca-cert "$ca" \
            --protocol-version "$version" --username "$id1" --password "$secret1" \
            --topic "$topic/$qos" --message "$said $qos" \
            --qos "$qos" "$@" >"$work/writer" 2>&1 || fail "publish at $qos"
    done
}
seen() { # pattern, how often
    local tries=0
    until [ "$(grep -c "$1" "$work/seen" || true)" = "$2" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 400 ] || fail "$1 was not seen $2 times"
        sleep 0.05
    done
}
for version in 3.1.1 5; do
    topic=m/$domain/c/$channel/quic/$version
    publish kept --retain
    : >"$work/seen"
    timeout 60 "$mqttv5" sub --non-interactive --url "quics://$quic" --ca-cert "$ca" \
        --protocol-version "$version" --username "$id0" --password "$secret0" \
        --topic "$topic/#" --qos 2 --count 6 >"$work/seen" 2>"$work/reader" &
    reader=$!
    # What was kept says that it is subscribed.
    seen kept 3
    publish live
    wait "$reader" || fail "not everything was received"
    reader=
    seen live 3
    echo "ok mqttv5 $version over QUIC"
done
