#!/usr/bin/env bash
# mosquitto_pub, mosquitto_sub, openssl and curl against the TLS and WebSocket listeners.
# Usage: tls_clients.sh READY_JSON FOLDER, where FOLDER holds ca.pem and ca.key, which signed the
# broker's certificate and sign one for a client here.
set -euo pipefail
ready=$1 folder=$2
read -r host port ws domain channel id0 secret0 id1 < <(python3 - "$ready" <<'PY'
import json, sys
ready = json.load(open(sys.argv[1], encoding="utf-8"))
host, port = ready["listeners"]["mqtts"].rsplit(":", 1)
demo = ready["demo"]
first, second = demo["clients"][:2]
print(host, port, ready["listeners"]["ws"], demo["domain"], demo["channel"],
      first["id"], first["secret"], second["id"])
PY
)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# A client that is named by its certificate.
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$work/client.key" \
    -out "$work/client.csr" -subj "/O=devices/CN=$id1" 2>/dev/null
openssl x509 -req -in "$work/client.csr" -CA "$folder/ca.pem" -CAkey "$folder/ca.key" \
    -CAcreateserial -days 2 -extfile <(echo "extendedKeyUsage=clientAuth") -out "$work/client.pem" 2>/dev/null
topic=m/$domain/c/$channel/tls
for tls in tlsv1.2 tlsv1.3; do
    : >"$work/sub"
    timeout 20 stdbuf -oL mosquitto_sub -h "$host" -p "$port" --cafile "$folder/ca.pem" \
        --tls-version "$tls" -u "$id0" -P "$secret0" -t "$topic" -q 1 -C 1 -d >"$work/sub" 2>&1 &
    subscriber=$!
    until grep -q SUBACK "$work/sub"; do
        kill -0 "$subscriber" 2>/dev/null || { cat "$work/sub"; exit 1; }
        sleep 0.02
    done
    mosquitto_pub -h "$host" -p "$port" --cafile "$folder/ca.pem" --tls-version "$tls" \
        --cert "$work/client.pem" --key "$work/client.key" -t "$topic" -q 1 -m "by certificate"
    wait "$subscriber"
    grep -q '^by certificate$' "$work/sub" || { cat "$work/sub"; exit 1; }
    echo "ok mosquitto $tls, password and certificate"
done
for version in tls1_2 tls1_3; do
    # The second connection resumes what the first one agreed on.
    for resume in "-sess_out $work/session" "-sess_in $work/session"; do
        # shellcheck disable=SC2086
        { printf '\x10\x10\0\4MQTT\4\2\0\074\0\4open'; sleep 0.3; } \
            | openssl s_client -connect "$host:$port" -CAfile "$folder/ca.pem" -"$version" \
                -alpn mqtt -verify_return_error -brief $resume >"$work/out" 2>"$work/told" || true
        grep -q 'Verification: OK' "$work/told" || { cat "$work/told"; exit 1; }
    done
    echo "ok openssl s_client $version"
done
openssl s_client -connect "$host:$port" -tls1_1 </dev/null >"$work/out" 2>&1 \
    && { echo "TLS 1.1 was let in" >&2; exit 1; }
status=$(curl -s -o "$work/answer" -w '%{http_code}' "http://$ws/mqtt")
[ "$status" = 426 ] || { echo "curl got $status without an upgrade" >&2; exit 1; }
status=$(curl -s -o "$work/answer" -w '%{http_code}' -m 5 -H 'Connection: Upgrade' \
    -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' \
    -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' "http://$ws/mqtt")
[ "$status" = 400 ] || { echo "curl got $status without a sub-protocol" >&2; exit 1; }
echo "ok curl told what is expected"
