#!/usr/bin/env bash
# The control API over TLS by curl, which checks the certificate.
# Usage: api_tls.sh READY_JSON CA_PEM
set -euo pipefail
ready=$1 ca=$2
read -r port name password < <(python3 - "$ready" <<'PY'
import json, sys
ready = json.load(open(sys.argv[1], encoding="utf-8"))
print(ready["listeners"]["api"].rsplit(":", 1)[1], ready["admin"]["username"], ready["admin"]["password"])
PY
)
api=https://localhost:$port
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
expect() { # status, arguments of curl
    local expected=$1 status
    shift
    status=$(curl -s -m 20 --cacert "$ca" -o "$work/answer" -w '%{http_code}' "$@") || true
    [ "$status" = "$expected" ] || { echo "curl $*: $status, expected $expected" >&2; exit 1; }
}
login="{\"username\":\"$name\",\"password\":\"$password\"}"
expect 200 "$api/health"
expect 201 -H 'Content-Type: application/json' --data-binary "$login" "$api/users/tokens/issue"
token=$(python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["access_token"])' "$work/answer")
expect 200 -H "Authorization: Bearer $token" "$api/users/profile"
# Who may read the metrics of a listener that others reach says who it is.
expect 401 "$api/metrics"
expect 200 -H "Authorization: Bearer $token" "$api/metrics"
# Neither without TLS, nor below the version that is asked for.
expect 000 "http://localhost:$port/health"
expect 000 --tls-max 1.2 "$api/health"
echo "ok curl over TLS"
