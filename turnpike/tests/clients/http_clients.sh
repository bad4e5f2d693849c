#!/usr/bin/env bash
# curl against the HTTP listener: publishing in its forms, Server-Sent Events, refusals.
# Usage: http_clients.sh READY_JSON
set -euo pipefail
ready=$1
read -r http mqtt domain channel id0 secret0 secret1 < <(python3 - "$ready" <<'PY'
import json, sys
ready = json.load(open(sys.argv[1], encoding="utf-8"))
demo = ready["demo"]
first, second = demo["clients"][:2]
print(ready["listeners"]["http"], ready["listeners"]["mqtt"], demo["domain"], demo["channel"],
      first["id"], first["secret"], second["secret"])
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
    echo "http: $1" >&2
    exit 1
}
topic=m/$domain/c/$channel/http
post() { # expected status, path, curl arguments
    local expected=$1 path=$2
    shift 2
    status=$(curl -s -o "$work/answer" -w '%{http_code}' -m 10 "http://$http$path" "$@")
    [ "$status" = "$expected" ] || fail "$path: $status, expected $expected: $(cat "$work/answer")"
}
client=(-H "Authorization: Client $secret0")
post 202 "/$topic?retain=true&qos=1" "${client[@]}" --data-binary kept
# Events begin with what is retained.
curl -sN -m 30 "http://$http/$topic?authorization=$secret1" >"$work/events" &
reader=$!
await() {
    local tries=0
    until grep -qE "$1" "$work/events"; do
        tries=$((tries + 1))
        [ "$tries" -lt 200 ] || fail "no event $1: $(cat "$work/events")"
        sleep 0.05
    done
}
await '^data: kept$'
post 202 "/$topic" "${client[@]}" --data-binary raw
await '^data: raw$'
post 202 "/m/demo/c/demo/http" -u "$id0:$secret0" --data-binary 'by route'
await '^data: by route$'
mosquitto_pub -h "${mqtt%:*}" -p "${mqtt##*:}" -u "$id0" -P "$secret0" -t "$topic" -q 1 -m 'by mqtt'
await '^data: by mqtt$'
payload=$(printf 'by json' | base64)
post 200 /publish "${client[@]}" -H 'Content-Type: application/json' \
    --data "{\"topic\":\"$topic\",\"payload\":\"$payload\",\"qos\":1}"
await '^data: by json$'
post 202 "/channels/$channel/messages.http" "${client[@]}" --data-binary 'by alias'
await '^data: by alias$'
post 202 "/hc/$domain" "${client[@]}" -X POST
post 401 "/$topic" --data-binary x
post 401 "/$topic" -H 'Authorization: Client wrong' --data-binary x
post 403 "/m/$domain/c/none" "${client[@]}" --data-binary x
post 400 "/m/$domain/c/" "${client[@]}" --data-binary x
post 404 /elsewhere "${client[@]}" --data-binary x
head -c 2000000 /dev/zero >"$work/large"
post 413 "/$topic" "${client[@]}" --data-binary "@$work/large"
echo "ok curl publishes, subscribes and is refused"
