#!/usr/bin/env bash
# libcoap's coap-client against a running broker: publish, read back, observe, blocks.
# And over DTLS with pre-shared keys and certificates, by OpenSSL and by GnuTLS.
# Usage: coap_clients.sh READY_JSON FOLDER, which holds ca.pem and ca.key
set -euo pipefail
ready=$1 folder=$2
read -r coap coaps mqtt domain channel id0 secret0 id1 secret1 < <(python3 - "$ready" <<'PY'
import json, sys
ready = json.load(open(sys.argv[1], encoding="utf-8"))
demo = ready["demo"]
first, second = demo["clients"][:2]
print(ready["listeners"]["coap"], ready["listeners"]["coaps"], ready["listeners"]["mqtt"], demo["domain"],
      demo["channel"], first["id"], first["secret"], second["id"], second["secret"])
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
    echo "coap: $1" >&2
    tail -n 20 "$work"/* >&2 || true
    exit 1
}
client() { timeout 20 coap-client-notls "$@"; }
base=coap://$coap/m/$domain/c/$channel/libcoap
say() { # subtopic, further arguments of mosquitto_pub
    local subtopic=$1
    shift
    mosquitto_pub -h "${mqtt%:*}" -p "${mqtt##*:}" -u "$id1" -P "$secret1" -q 1 \
        -t "m/$domain/c/$channel/libcoap/$subtopic" "$@"
}

client -m put -e 21.5 "$base/t?auth=$secret0&retain=true"
[ "$(client -m get "$base/t?auth=$secret0")" = 21.5 ] || fail "what is retained"
client -m get "$base/t?auth=wrong" 2>&1 | grep -q '^4.01' || fail "a wrong secret"
client -m get "$base/t" 2>&1 | grep -q '^4.01' || fail "no secret"
client -m get "coap://$coap/.well-known/core" | grep -q '</m>' || fail ".well-known/core"

# 20 000 bytes both ways, in blocks of 1024 and of 64.
head -c 15000 /dev/urandom | base64 -w0 | head -c 20000 >"$work/body"
for size in 1024 64; do
    client -b "$size" -m put -f "$work/body" "$base/big$size?auth=$secret0&retain=true" || fail "put $size"
    client -b "$size" -m get -o "$work/back" "$base/big$size?auth=$secret0"
    cmp "$work/body" "$work/back" || fail "blocks of $size"
done

# Messages from MQTT reach an observer, confirmed ones among them.
timeout 60 stdbuf -oL coap-client-notls -s 30 -v 6 "$base/seen?auth=$secret0" >"$work/seen" 2>&1 &
reader=$!
await() {
    local tries=0
    until grep -aqE "$1" "$work/seen" 2>/dev/null; do
        tries=$((tries + 1))
        [ "$tries" -lt 400 ] || fail "the observer did not see $1"
        sleep 0.05
    done
}
await 'c:2.05 .*Observe'
for number in $(seq 40); do
    say seen -m "message-$number."
done
await 'message-40\.'
for number in $(seq 40); do
    await "message-$number\\."
done
await 't:CON c:2.05'

# Identity and key are id and secret of a client; the URI has no credential.
sealed=coaps://$coaps/m/$domain/c/$channel/libcoap/sealed
for library in openssl gnutls; do
    secure() { timeout 20 "coap-client-$library" "$@"; }
    secure -u "$id0" -k "$secret0" -m put -e "by $library" "$sealed?retain=true" || fail "put by $library"
    [ "$(secure -u "$id1" -k "$secret1" -m get "$sealed" | tail -n 1)" = "by $library" ] \
        || fail "get by $library"
    secure -u "$id0" -k "$secret0" -b 1024 -m put -f "$work/body" "$sealed/big?retain=true" \
        || fail "blocks by $library"
    secure -u "$id0" -k "$secret0" -b 1024 -m get -o "$work/back" "$sealed/big"
    cmp "$work/body" "$work/back" || fail "blocks by $library"
    timeout 6 "coap-client-$library" -B 4 -u "$id0" -k wrong -m put -e never "$sealed" >/dev/null 2>&1 || true
    [ "$(secure -u "$id0" -k "$secret0" -m get "$sealed" | tail -n 1)" = "by $library" ] \
        || fail "a wrong key by $library"
done

# A certificate with the id of a client as its name.
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$id0" \
    -keyout "$work/client.key" -out "$work/client.csr" 2>/dev/null
openssl x509 -req -in "$work/client.csr" -CA "$folder/ca.pem" -CAkey "$folder/ca.key" \
    -CAcreateserial -days 2 -extfile <(echo "extendedKeyUsage=clientAuth") \
    -out "$work/client.pem" 2>/dev/null
for library in openssl gnutls; do
    certified() {
        timeout 20 "coap-client-$library" -c "$work/client.pem" -j "$work/client.key" \
            -C "$folder/ca.pem" -R "$folder/ca.pem" "$@"
    }
    certified -m put -e "certified by $library" "$sealed?retain=true" || fail "certificate by $library"
    [ "$(certified -m get "$sealed" | tail -n 1)" = "certified by $library" ] \
        || fail "get with a certificate by $library"
done
echo "libcoap: ok"
