#!/usr/bin/env bash
# Every route of the control API by curl, each with the success code that its clients rely on, and
# every documented error. Ends with a look at the served OpenAPI document: a route that was not
# called with success, or does not refuse as all others do, is a failure.
# Usage: api_examples.sh READY_JSON MAIL_FOLDER CA_PEM, where `control.mail` is file:MAIL_FOLDER and
# `control.oauth.smoke` is the provider of oauth_provider.py, whose certificate CA_PEM has signed.
set -euo pipefail
ready=$1 mail=$2 ca=$3
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
    echo "api: $1" >&2
    exit 1
}
field() { python3 -c 'import json,sys
value = json.load(open(sys.argv[1], encoding="utf-8"))
for key in sys.argv[2].split("."):
    value = value[int(key)] if isinstance(value, list) else value[key]
print(value)' "$@"; }
api=http://$(field "$ready" listeners.api)
http=http://$(field "$ready" listeners.http)
token=
# Calls, expects a status, leaves the answer in $work/answer.
call() { # status, method, path, body
    local expected=$1 method=$2 path=$3 arguments=()
    [ -z "$token" ] || arguments+=(-H "Authorization: Bearer $token")
    [ $# -lt 4 ] || arguments+=(--data-binary "$4")
    [ "${type-json}" = none ] || arguments+=(-H "Content-Type: ${type-application/json}")
    local status
    status=$(curl -sg -m 20 -o "$work/answer" -w '%{http_code}' -X "$method" "${arguments[@]}" "$api$path")
    [ "$status" = "$expected" ] || fail "$method $path: $status, expected $expected: $(cat "$work/answer")"
    case $status in
    2??) echo "$method ${path%%\?*}" >>"$work/called" ;;
    *) # An error always says what is wrong, in JSON.
        [ -n "$(field "$work/answer" message)" ] || fail "$method $path: an error without a message" ;;
    esac
}
make() { # variable, path, body: makes an object and keeps its id
    call 201 POST "$2" "$3"
    printf -v "$1" %s "$(field "$work/answer" id)"
}
answers() { grep -qE "$1" "$work/answer" || fail "expected $1 in $(cat "$work/answer")"; }
login() { # name, password
    token='' call 201 POST /users/tokens/issue "{\"username\":\"$1\",\"password\":\"$2\"}"
    token=$(field "$work/answer" access_token) refresh=$(field "$work/answer" refresh_token)
}
mailed() { # pattern: what it matches in the newest mail that has it
    local tries=0 found=
    until found=$(ls -t "$mail"/* 2>/dev/null | xargs -r grep -ohE "$1" | head -1) && [ -n "$found" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || fail "no mail with $1"
        sleep 0.05
    done
    printf %s "$found"
}

# --- users and tokens -----------------------------------------------------------------------------
call 200 GET /health
call 200 GET /keys/.well-known/jwks.json
login "$(field "$ready" admin.username)" "$(field "$ready" admin.password)"
admin=$token
person() { # variable, name
    make "$1" /users "{\"first_name\":\"$2\",\"last_name\":\"Doe\",\"email\":\"$2@example.com\",
        \"tags\":[\"t\"],\"metadata\":{\"a\":1},\"credentials\":{\"username\":\"$2\",\"secret\":\"12345678\"}}"
}
person ann curl-ann
person bob curl-bob
person cyd curl-cyd
call 409 POST /users '{"first_name":"x","last_name":"y","email":"curl-ann@example.com","credentials":{"username":"curl-x","secret":"12345678"}}'
call 400 POST /users '{"first_name":"x","last_name":"y","email":"none","credentials":{"username":"curl-x","secret":"12345678"}}'
call 200 GET '/users?limit=100&metadata=%7B%22a%22:1%7D&order=username&dir=asc'
answers curl-ann
call 400 GET '/users?limit=101'
call 400 GET '/users?limit=1&limit=2'
call 400 GET '/users?order=shoe_size'
call 200 GET '/users/search?username=curl-ann'
call 400 GET /users/search
call 200 GET "/users/$ann"
call 200 PATCH "/users/$ann/role" '{"role":"admin"}'
call 200 PATCH "/users/$ann/role" '{"role":"user"}'
call 200 GET "/users/$ann/domains"
call 200 POST "/users/$bob/disable"
call 409 POST "/users/$bob/disable"
token='' call 401 POST /users/tokens/issue '{"username":"curl-bob","password":"12345678"}'
call 200 POST "/users/$bob/enable"
login curl-ann 12345678
call 403 GET /users
call 403 POST "/users/$bob/disable"
call 200 GET /users/profile
call 200 PATCH "/users/$ann" '{"first_name":"Anna","metadata":{"b":2}}'
answers Anna
call 200 PATCH "/users/$ann/tags" '{"tags":["x","y"]}'
call 200 PATCH "/users/$ann/username" '{"username":"curl-anna"}'
call 200 PATCH "/users/$ann/picture" '{"profile_picture":"https://example.com/a.png"}'
call 200 PATCH "/users/$ann/email" '{"email":"anna@example.com"}'
call 400 PATCH "/users/$ann/email" '{"email":"anna@example.com"}'
call 200 PATCH /users/secret '{"old_secret":"12345678","new_secret":"87654321"}'
login curl-anna 87654321
call 200 POST /users/send-verification
verification=$(mailed 'verify-email#token=[A-Za-z0-9._-]+')
token='' call 200 POST /verify-email "{\"token\":\"${verification#*token=}\"}"
token='' call 401 POST /verify-email "{\"token\":\"${verification#*token=}\"}"
call 200 PATCH "/users/$ann/email" '{"email":"anna-2@example.com"}'
call 200 POST /users/send-verification
verification=$(mailed 'verify-email#token=[A-Za-z0-9._-]+')
token='' call 200 GET "/verify-email?${verification#*#}"
call 200 PATCH "/users/$ann/email" '{"email":"anna@example.com"}'
token='' call 401 GET /verify-email?token=x
token='' call 201 POST /password/reset-request '{"email":"anna@example.com"}'
reset=$(mailed 'password/reset#token=[A-Za-z0-9._-]+')
token='' call 201 PUT /password/reset "{\"token\":\"${reset#*token=}\",\"password\":\"12345678\",\"confirm_password\":\"12345678\"}"
token='' call 401 PUT /password/reset "{\"token\":\"${reset#*token=}\",\"password\":\"12345678\",\"confirm_password\":\"12345678\"}"
call 401 GET /users/profile
login curl-anna 12345678
first=$refresh
token=$first call 201 POST /users/tokens/refresh
token=$(field "$work/answer" access_token)
token=$first call 401 POST /users/tokens/refresh
login curl-anna 12345678
token=$refresh call 401 GET /users/profile
call 200 GET /users/tokens/refresh-tokens
id=$(field "$work/answer" refresh_tokens.0.id)
call 204 POST /users/tokens/revoke "{\"token_id\":\"$id\"}"
login curl-anna 12345678
owner=$token
login curl-bob 12345678
member=$token

# --- logins at a provider ---------------------------------------------------------------------------
goes() { # method and path in the document, arguments of curl: prints where a browser is sent
    curl -s -m 20 -o "$work/answer" -b "$work/jar" -c "$work/jar" -w '%{redirect_url}' "${@:2}"
    echo "GET $1" >>"$work/called"
}
there=$(goes /oauth/login/smoke "$api/oauth/login/smoke")
back=$(curl -s -m 20 --cacert "$ca" -o "$work/answer" -w '%{redirect_url}' "$there")
[[ $back = */oauth/callback/smoke\?* ]] || fail "the provider sent back to $back"
home=$(goes /oauth/callback/smoke "$api/oauth/callback/${back#*/oauth/callback/}")
[ "$home" = https://console.example/in ] || fail "a login at the provider ended at $home"
token=$(awk '$6 == "access_token" { print $7 }' "$work/jar") call 200 GET /users/profile
answers elsewhere@example.com
# The browser keeps no binding, so its way back is good once.
token='' call 400 GET "/oauth/callback/${back#*/oauth/callback/}"
token='' call 400 GET '/oauth/login/smoke?return=https://evil.example/'
token='' call 404 GET /oauth/login/nobody

# --- personal access tokens -----------------------------------------------------------------------
token=$owner
call 201 POST /pats '{"name":"deploy","description":"d","duration":"720h"}'
pat=$(field "$work/answer" id) secret=$(field "$work/answer" secret)
call 400 POST /pats '{"name":"deploy","duration":"soon"}'
call 200 GET '/pats?status=all'
call 200 GET "/pats/$pat"
call 202 PATCH "/pats/$pat/name" '{"name":"other"}'
call 202 PATCH "/pats/$pat/description" '{"description":"other"}'
token=$secret call 401 GET /pats

call 201 POST /keys '{"type":3,"duration":3600}'
key=$(field "$work/answer" id) value=$(field "$work/answer" value)
call 400 POST /keys '{"type":2}'
call 200 GET "/keys/$key"
token=$value call 200 GET /users/profile
token=$value call 401 POST /keys '{"type":3}'
call 204 DELETE "/keys/$key"
call 404 GET "/keys/$key"
token=$value call 401 GET /users/profile

# --- domains ----------------------------------------------------------------------------------------
make domain /domains '{"name":"Plant","route":"curl-plant","tags":["t"],"metadata":{"a":1}}'
call 409 POST /domains '{"name":"Plant","route":"curl-plant"}'
call 400 POST /domains '{"name":"Plant","route":"no route"}'
call 400 POST /domains '{"name":"Plant"'
type=text/plain call 415 POST /domains '{"name":"Plant","route":"r"}'
call 200 GET '/domains?status=all&name=plant'
call 200 GET "/domains/$domain?roles=true"
call 200 GET "/domains/curl-plant"
call 200 PATCH "/domains/$domain" '{"name":"Plant 1"}'
call 200 GET "/domains/$domain/permissions"
call 200 GET /domains/roles/available-actions
token=$member call 403 GET "/domains/$domain"
token=$member call 403 GET /domains/00000000-0000-4000-8000-000000000000
token=$admin call 404 GET /domains/00000000-0000-4000-8000-000000000000
call 200 POST "/domains/$domain/disable"
call 200 POST "/domains/$domain/enable"
token=$admin call 200 POST "/domains/$domain/freeze"
call 403 GET "/domains/$domain"
token=$admin call 200 POST "/domains/$domain/enable"

# --- roles, of a kind of object ----------------------------------------------------------------------
roles() { # path of the object, path of its kind
    local role
    call 200 GET "$2/roles/available-actions"
    make role "$1/roles" '{"role_name":"curl","optional_actions":["read"]}'
    call 409 POST "$1/roles" '{"role_name":"curl"}'
    call 200 GET "$1/roles"
    call 200 GET "$1/roles/$role"
    call 200 PUT "$1/roles/$role" '{"name":"curly"}'
    call 200 POST "$1/roles/$role/actions" '{"actions":["update"]}'
    answers update
    call 400 POST "$1/roles/$role/actions" '{"actions":["fly"]}'
    call 200 GET "$1/roles/$role/actions"
    call 204 POST "$1/roles/$role/actions/delete" '{"actions":["update"]}'
    call 200 POST "$1/roles/$role/members" "{\"members\":[\"$bob\"]}"
    call 409 POST "$1/roles/$role/members" "{\"members\":[\"$bob\"]}"
    call 200 GET "$1/roles/$role/members"
    call 200 GET "$1/roles/members"
    call 204 POST "$1/roles/$role/members/delete" "{\"members\":[\"$bob\"]}"
    if [ "$1" = "/domains/$domain" ]; then
        call 200 POST "$1/roles/$role/members" "{\"members\":[\"$bob\",\"$cyd\"]}"
    else
        call 200 POST "$1/roles/$role/members" "{\"members\":[\"$bob\"]}"
    fi
    call 204 DELETE "$1/roles" "{\"member_ids\":[\"$bob\"]}"
    call 204 POST "$1/roles/$role/members/delete-all"
    call 204 POST "$1/roles/$role/actions/delete-all"
    call 204 DELETE "$1/roles/$role"
    call 404 GET "$1/roles/$role"
    call 201 POST "$1/assign" "{\"user_ids\":[\"$bob\"],\"relation\":\"editor\"}"
    call 204 POST "$1/unassign" "{\"user_ids\":[\"$bob\"],\"relation\":\"editor\"}"
}
roles "/domains/$domain" /domains
make guests "/domains/$domain/roles" '{"role_name":"guests","optional_actions":["read","client_read"]}'
call 400 POST "/domains/$domain/roles/$guests/actions" '{"actions":[]}'

# --- invitations --------------------------------------------------------------------------------------
invite="{\"invitee_user_id\":\"$bob\",\"role_id\":\"$guests\"}"
call 201 POST "/domains/$domain/invitations" "$invite"
call 409 POST "/domains/$domain/invitations" "$invite"
call 200 GET "/domains/$domain/invitations?state=pending"
call 200 GET "/domains/$domain/invitations/$bob"
call 204 DELETE "/domains/$domain/invitations" "{\"user_id\":\"$bob\"}"
call 201 POST "/domains/$domain/invitations" "$invite"
call 204 DELETE "/domains/$domain/invitations/$bob"
call 201 POST "/domains/$domain/invitations" "$invite"
token=$member call 200 GET /invitations
token=$member call 204 POST /invitations/reject "{\"domain_id\":\"$domain\"}"
call 201 POST "/domains/$domain/invitations" "${invite%\}},\"resend\":true}"
token=$member call 204 POST /invitations/accept "{\"domain_id\":\"$domain\"}"
token=$member call 409 POST /invitations/accept "{\"domain_id\":\"$domain\"}"
token=$member call 403 POST "/domains/$domain/invitations" "$invite"
# Somebody who has no account yet.
mailto="{\"invitee_email\":\"curl-dan@example.com\",\"role_id\":\"$guests\"}"
call 201 POST "/domains/$domain/invitations" "$mailto"
call 409 POST "/domains/$domain/invitations" "$mailto"
call 200 GET "/domains/$domain/invitations?mailed=true"
answers curl-dan@example.com
invitation=$(mailed 'invitations/accept#token=[A-Za-z0-9._-]+')
token=$admin make dan /users "{\"first_name\":\"d\",\"last_name\":\"d\",\"email\":\"curl-dan@example.com\",
    \"credentials\":{\"username\":\"curl-dan\",\"secret\":\"12345678\"},\"invitation\":\"${invitation#*token=}\"}"
answers verified_at
login curl-dan 12345678
call 400 POST /invitations/accept "{\"token\":\"${invitation#*token=}\"}"
call 204 POST /invitations/accept "{\"domain_id\":\"$domain\"}"
token=$owner

# --- groups ---------------------------------------------------------------------------------------------
groups=/$domain/groups
make top "$groups" '{"name":"top","description":"d","metadata":{"floor":1}}'
make below "$groups" "{\"name\":\"below\",\"parent_id\":\"$top\"}"
make third "$groups" '{"name":"third"}'
call 200 GET "$groups?root_group=true&limit=100"
call 200 GET "$groups/$below"
call 200 PUT "$groups/$below" '{"name":"under","description":"e"}'
call 200 PATCH "$groups/$below/tags" '{"tags":["a"]}'
call 200 POST "$groups/$third/disable"
call 200 POST "$groups/$third/enable"
call 200 GET "$groups/$top/hierarchy?level=3&dir=-1&tree=true"
answers "$below"
call 409 POST "$groups/$below/parent" "{\"parent_id\":\"$third\"}"
call 204 DELETE "$groups/$below/parent"
call 200 POST "$groups/$below/parent" "{\"parent_id\":\"$top\"}"
call 400 POST "$groups/$top/parent" "{\"parent_id\":\"$top\"}"
call 400 POST "$groups/$top/parent" "{\"parent_id\":\"$below\"}"
call 200 POST "$groups/$top/children" "{\"children_ids\":[\"$third\"]}"
call 200 GET "$groups/$top/children?start_level=1&end_level=-1"
call 204 DELETE "$groups/$top/children" "{\"children_ids\":[\"$third\"]}"
call 204 DELETE "$groups/$top/children/all"
call 200 GET "$groups/$top/channels"
call 200 GET "$groups/$top/access"
call 200 GET "$groups/$top/permissions"
roles "$groups/$top" "$groups"

# --- clients and channels ---------------------------------------------------------------------------------
clients=/$domain/clients channels=/$domain/channels
make client "$clients" '{"name":"press","tags":["a","b"],"metadata":{"line":4},"credentials":{"identity":"i","secret":"curl-press"}}'
call 409 POST "$clients" '{"name":"press","credentials":{"secret":"curl-press"}}'
call 200 POST "$clients/bulk" '[{"name":"bulk1"},{"name":"bulk2"}]'
call 200 GET "$clients?tags=a%2Bb&metadata=%7B%22line%22:4%7D&name=PRES"
answers "$client"
call 200 GET "$clients/$client?roles=true"
call 200 PATCH "$clients/$client" '{"name":"press 4","metadata":{"line":5}}'
call 200 PATCH "$clients/$client/tags" '{"tags":["c"]}'
call 200 PATCH "$clients/$client/secret" '{"secret":"curl-press-2"}'
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=press" \
    -set_serial 0x4A3F -keyout "$work/press.key" -out "$work/press.pem" 2>/dev/null
proof() { printf %s "$1" | openssl dgst -sha256 -sign "$work/press.key" | base64 -w 0; }
until=$(($(date +%s) + 3600))
certificate() { # proof
    python3 -c 'import json,sys; print(json.dumps({"certificate": open(sys.argv[1]).read(), "proof": sys.argv[2],
        "proof_until": int(sys.argv[3])}))' "$work/press.pem" "$1" "$until"
}
own=$(certificate "$(proof "turnpike certificate $domain $client until $until")")
call 400 POST "$clients/$client/certs" "$(certificate "$(proof "turnpike certificate $domain $domain until $until")")"
call 201 POST "$clients/$client/certs" "$own"
call 409 POST "$clients/$client/certs" "$own"
call 400 POST "$clients/$client/certs" '{"certificate":"none"}'
call 200 GET "$clients/$client/certs"
call 204 DELETE "$clients/$client/certs/4a:3f"
call 404 DELETE "$clients/$client/certs/4a:3f"
call 200 POST "$clients/$client/disable"
call 409 POST "$clients/$client/disable"
call 200 POST "$clients/$client/enable"
call 200 POST "$clients/$client/parent" "{\"parent_group_id\":\"$top\"}"
call 204 DELETE "$clients/$client/parent"
call 200 GET "$clients/$client/access"
call 200 GET "$clients/$client/permissions"
call 200 GET "$clients/$client/channels"
call 400 GET "$clients/no-id"
call 404 GET "$clients/00000000-0000-4000-8000-000000000000"
token=$member call 200 GET "$clients"
token=$member call 403 PATCH "$clients/$client" '{"name":"mine"}'
roles "$clients/$client" "$clients"
make channel "$channels" '{"name":"telemetry","route":"telemetry","metadata":{"a":[1]}}'
call 200 POST "$channels/bulk" '[{"name":"one"},{"name":"two"}]'
other=$(field "$work/answer" channels.0.id)
call 200 GET "$channels?client=$client"
call 200 GET "$channels/$channel"
call 200 PATCH "$channels/$channel" '{"name":"telemetry 1"}'
call 200 PATCH "$channels/$channel/tags" '{"tags":["c"]}'
call 200 POST "$channels/$channel/disable"
call 200 POST "$channels/$channel/enable"
call 200 POST "$channels/$channel/parent" "{\"parent_group_id\":\"$top\"}"
call 204 DELETE "$channels/$channel/parent"
call 200 GET "$channels/$channel/access"
call 200 GET "$channels/$channel/permissions"
call 200 GET "$channels/$channel/clients"
roles "$channels/$channel" "$channels"
both="{\"channel_ids\":[\"$channel\",\"$other\"],\"client_ids\":[\"$client\"],\"types\":[\"publish\",\"Subscribe\"]}"
call 201 POST "$channels/connect" "$both"
call 409 POST "$channels/connect" "$both"
call 400 POST "$channels/connect" "{\"channel_ids\":[\"$channel\"],\"client_ids\":[\"$client\"],\"types\":[\"listen\"]}"
call 204 POST "$channels/disconnect" "$both"
call 201 POST "$channels/$channel/connect" "{\"client_ids\":[\"$client\"],\"types\":\"publish\"}"
status=$(curl -s -o "$work/answer" -w '%{http_code}' -H 'Authorization: Client curl-press-2' \
    --data-binary 1 "$http/m/$domain/c/$channel")
[ "$status" = 202 ] || fail "publishing: $status"
call 204 POST "$channels/$channel/disconnect" "{\"client_ids\":[\"$client\"],\"types\":[\"publish\"]}"
status=$(curl -s -o "$work/answer" -w '%{http_code}' -H 'Authorization: Client curl-press-2' \
    --data-binary 1 "$http/m/$domain/c/$channel")
[ "$status" = 403 ] || fail "publishing after the disconnect: $status"
call 201 POST "$channels/$channel/clients/$client/connect" '{"types":["publish"]}'
call 204 POST "$channels/$channel/clients/$client/disconnect" '{"types":["publish"]}'

# --- scopes, explanations, the journal ----------------------------------------------------------------------
token=$secret call 403 GET "$clients/$client"
answers 'failed to authorize PAT'
call 200 PATCH "/pats/$pat/scope/add" \
    "{\"scopes\":[{\"domain_id\":\"$domain\",\"entity_type\":\"clients\",\"entity_id\":\"*\",\"operation\":\"view\"}]}"
token=$secret call 200 GET "$clients/$client"
token=$secret call 403 DELETE "$clients/$client"
call 200 GET "/pats/$pat/scope"
id=$(field "$work/answer" scopes.0.id)
call 200 PATCH "/pats/$pat/scope/remove" "{\"scopes_id\":[\"$id\"]}"
call 200 DELETE "/pats/$pat/scope"
call 200 PATCH "/pats/$pat/secret/reset" '{"duration":"20h"}'
call 204 PATCH "/pats/$pat/secret/revoke"
call 204 DELETE "/pats/$pat"
call 200 DELETE /pats
call 200 GET "/$domain/authz/explain?subject=$bob&action=read&object=$client"
call 200 GET "/$domain/journal/client/$client?operation=client.update&with_attributes=true&dir=desc"
answers client.update
call 200 GET "/$domain/journal/client/$client/telemetry"
answers inbound_messages
call 200 GET "/journal/user/$ann"
token=$member call 403 GET "/journal/user/$ann"
token=$admin call 200 GET /journal/verify
token=$member call 200 GET "/$domain/users/$bob/groups"
token=$member call 200 GET "/$domain/users/$bob/clients"
token=$member call 200 GET "/$domain/users/$bob/channels"

# --- the end of things ----------------------------------------------------------------------------------------
call 204 DELETE "$channels/$channel"
call 204 DELETE "$clients/$client"
call 404 GET "$clients/$client"
call 204 DELETE "$groups/$top"
call 204 DELETE "/domains/$domain"
token=$admin call 204 DELETE "/users/$cyd"

python3 "$here/api_refusals.py" "$api" "$admin" "$work/called"
echo "api: every route answers and refuses as documented"
