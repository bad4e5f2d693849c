#!/usr/bin/env python3
"""Every call of the SDKs of Magistrala with the one success code that its Go SDK accepts.

Usage: sdk_codes.py READY MAIL_FOLDER, where `control.mail` is file:MAIL_FOLDER.
The table is the contract, written down apart from the server's own table of routes. Each call is
made as those SDKs make it: a JSON content type on everything, GET and empty POST included; zero
values in queries; `?roles=true` on any URL, PATCH and POST included; bodies in DELETE; fields that
nobody asked for; a `Referer` with a password reset. Ends with 1 at the first other code.
"""

import glob
import http.client
import json
import re
import sys
import time

ready_file, mail = sys.argv[1:]
with open(ready_file, encoding="utf-8") as file:
    ready = json.load(file)
address, messages = ready["listeners"]["api"], ready["listeners"]["http"]
mark = f"{time.time_ns():x}"
known = {"mark": mark, "nobody": "00000000-0000-4000-8000-000000000000"}
made = 0


def exchange(host, method, path, body, headers):
    connection = http.client.HTTPConnection(host, timeout=20)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    result = answer.status, answer.read()
    connection.close()
    return result


def filled(value):
    """A text, list or object with the names in braces replaced by what is known."""
    if isinstance(value, str):
        return re.sub(r"\{(\w+)\}", lambda found: known[found[1]], value)
    if isinstance(value, list):
        return [filled(item) for item in value]
    if isinstance(value, dict):
        return {key: filled(item) for key, item in value.items()}
    return value


def call(sdk, code, method, path, body=None, token="ann", keep=None, **more):
    """Makes a call in each way that an SDK may; `keep` names what its answer is kept as."""
    global made
    path = filled(path)
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {known.get(token, token)}"
    headers.update({name.replace("_", "-"): filled(value) for name, value in more.items()})
    text = b"" if body is None else json.dumps(filled(body)).encode()
    status, answer = exchange(address, method, path, text, headers)
    where = f"{sdk}: {method} {path}: {status}, expected {code}: {answer[:300]!r}"
    assert status == code, where
    value = json.loads(answer) if answer else None
    if code >= 400:
        assert value["message"], where
    for name, place in (keep or {}).items():
        found = value
        for part in place.split("."):
            found = found[int(part)] if isinstance(found, list) else found[part]
        known[name] = found
    if code < 300:
        made += 1
    return value


def with_roles(path):
    return f"{path}{'&' if '?' in path else '?'}roles=true"


def run(rows):
    for row in rows:
        sdk, code, method, path, *rest = row
        body = rest[0] if rest else None
        call(sdk, code, method, path, body, *rest[1:])


def mailed(pattern):
    pattern = filled("To: ann2-{mark}@example.com") + "(?s:.*)" + pattern
    for _ in range(100):
        for name in sorted(glob.glob(f"{mail}/*.eml"), reverse=True):
            with open(name, encoding="utf-8") as file:
                found = re.search(pattern, file.read())
            if found:
                return found[1]
        time.sleep(0.05)
    raise SystemExit(f"no mail with {pattern}")


def person(name):
    body = {"first_name": name, "last_name": "Sdk", "email": f"{name}-{mark}@example.com",
            "id": "", "status": "", "tags": ["t"], "nobody": {"asked": "for this"},
            "credentials": {"username": f"{name}-{mark}", "secret": "12345678"}}
    call("CreateUser", 201, "POST", with_roles("/users"), body, "admin", {f"{name}_id": "id"})
    login(name)


def login(name):
    body = {"username": f"{name}-{mark}", "password": "12345678"}
    keep = {name: "access_token", f"{name}_refresh": "refresh_token"}
    call("CreateToken", 201, "POST", "/users/tokens/issue", body, None, keep)


admin = {"username": ready["admin"]["username"], "password": ready["admin"]["password"]}
call("CreateToken", 201, "POST", "/users/tokens/issue", admin, None, {"admin": "access_token"})
call("Health", 200, "GET", "/health", None, None)
for name in ("ann", "bob", "cyd"):
    person(name)
page = "?offset=0&limit=10&total=0"
run([
    ("RefreshToken", 201, "POST", "/users/tokens/refresh", None, "ann_refresh"),
    ("User", 200, "GET", with_roles("/users/{ann_id}")),
    ("UserProfile", 200, "GET", "/users/profile"),
    ("Users", 200, "GET", f"/users{page}&metadata=%7B%7D", None, "admin"),
    ("Users", 400, "GET", "/users?limit=0", None, "admin"),
    ("SearchUsers", 200, "GET", f"/users/search{page}&username=ann"),
    ("UpdateUser", 200, "PATCH", with_roles("/users/{ann_id}"), {"id": "{ann_id}", "first_name": "A"}),
    ("UpdateUserTags", 200, "PATCH", "/users/{ann_id}/tags", {"id": "{ann_id}", "tags": ["a"]}),
    ("UpdateUsername", 200, "PATCH", "/users/{ann_id}/username", {"username": "ann-{mark}"}),
    ("UpdateProfilePicture", 200, "PATCH", "/users/{ann_id}/picture",
     {"profile_picture": "https://example.com/p.png"}),
    ("UpdateUserEmail", 200, "PATCH", "/users/{ann_id}/email", {"email": "ann2-{mark}@example.com"}),
    ("UpdateUserRole", 200, "PATCH", "/users/{cyd_id}/role", {"id": "{cyd_id}", "role": "user"}, "admin"),
    ("DisableUser", 200, "POST", with_roles("/users/{cyd_id}/disable"), None, "admin"),
    ("EnableUser", 200, "POST", "/users/{cyd_id}/enable", None, "admin"),
    ("SendVerification", 200, "POST", "/users/send-verification"),
])
verification = mailed(r"verify-email.token=(\S+)")
call("VerifyEmail", 200, "GET", f"/verify-email?token={verification}", None, None)
call("ResetPasswordRequest", 201, "POST", "/password/reset-request",
     {"email": "ann2-{mark}@example.com", "host": "http://localhost"}, None, Referer="http://localhost")
reset = {"password": "12345678", "confirm_password": "12345678"}
call("ResetPassword", 201, "PUT", "/password/reset", reset, mailed(r"password/reset.token=(\S+)"))
login("ann")
run([("UpdatePassword", 200, "PATCH", "/users/secret",
      {"old_secret": "12345678", "new_secret": "12345678"})])
login("ann")
# Who registers himself shows the word that a missing token becomes.
call("CreateUser", 401, "POST", "/users", {"email": "x@example.com", "credentials": {}}, "undefined")

call("CreateDomain", 201, "POST", with_roles("/domains"),
     {"name": "sdk", "route": "sdk-{mark}", "metadata": {"a": 1}}, "ann", {"domain": "id"})
run([
    ("Domain", 200, "GET", with_roles("/domains/{domain}")),
    ("Domains", 200, "GET", f"/domains{page}"),
    ("ListUserDomains", 200, "GET", f"/users/{{ann_id}}/domains{page}"),
    ("UpdateDomain", 200, "PATCH", with_roles("/domains/{domain}"), {"id": "{domain}", "name": "sdk 2"}),
    ("DisableDomain", 200, "POST", with_roles("/domains/{domain}/disable")),
    ("EnableDomain", 200, "POST", "/domains/{domain}/enable"),
    ("FreezeDomain", 200, "POST", "/domains/{domain}/freeze", None, "admin"),
    ("EnableDomain", 200, "POST", "/domains/{domain}/enable", None, "admin"),
])


def roles(kind, base, kind_base, members):
    """The fourteen calls of roles, which every kind of object has."""
    actions = ["read"]
    call(f"Create{kind}Role", 201, "POST", with_roles(f"{base}/roles"),
         {"role_name": "sdk", "optional_actions": actions, "optional_members": []}, "ann", {"role": "id"})
    one = f"{base}/roles/{{role}}"
    run([
        (f"List{kind}Actions", 200, "GET", f"{kind_base}/roles/available-actions"),
        (f"List{kind}Roles", 200, "GET", f"{base}/roles{page}"),
        (f"View{kind}Role", 200, "GET", with_roles(one)),
        (f"Update{kind}Role", 200, "PUT", with_roles(one), {"name": "sdk 2", "id": "{role}"}),
        (f"Add{kind}RoleActions", 200, "POST", f"{one}/actions", {"actions": ["update"]}),
        (f"List{kind}RoleActions", 200, "GET", f"{one}/actions"),
        (f"Delete{kind}RoleActions", 204, "POST", f"{one}/actions/delete", {"actions": ["update"]}),
        (f"Add{kind}RoleMembers", 200, "POST", f"{one}/members", {"members": members}),
        (f"List{kind}RoleMembers", 200, "GET", f"{one}/members{page}"),
        (f"List{kind}Members", 200, "GET", f"{base}/roles/members{page}"),
        (f"Delete{kind}RoleMembers", 204, "POST", f"{one}/members/delete", {"members": members}),
        (f"Delete{kind}AllRoleMembers", 204, "POST", with_roles(f"{one}/members/delete-all")),
        (f"Delete{kind}AllRoleActions", 204, "POST", with_roles(f"{one}/actions/delete-all")),
        (f"Delete{kind}Role", 204, "DELETE", one),
    ])


roles("Domain", "/domains/{domain}", "/domains", ["{bob_id}"])
call("CreateDomainRole", 201, "POST", "/domains/{domain}/roles",
     {"role_name": "guests", "optional_actions": ["read"], "optional_members": []}, "ann", {"guests": "id"})
invite = {"invitee_user_id": "{bob_id}", "role_id": "{guests}", "resend": False}
run([
    ("SendInvitation", 201, "POST", with_roles("/domains/{domain}/invitations"), invite),
    ("ViewInvitation", 200, "GET", "/domains/{domain}/invitations/{bob_id}"),
    ("ListDomainInvitations", 200, "GET", f"/domains/{{domain}}/invitations{page}&state=all"),
    ("DeleteInvitation", 204, "DELETE", "/domains/{domain}/invitations", {"user_id": "{bob_id}"}),
    ("SendInvitation", 201, "POST", "/domains/{domain}/invitations", invite),
    ("ListUserInvitations", 200, "GET", f"/invitations{page}", None, "bob"),
    ("RejectInvitation", 204, "POST", "/invitations/reject", {"domain_id": "{domain}"}, "bob"),
    ("SendInvitation", 201, "POST", "/domains/{domain}/invitations", invite | {"resend": True}),
    ("AcceptInvitation", 204, "POST", "/invitations/accept", {"domain_id": "{domain}"}, "bob"),
])

groups, clients, channels = "/{domain}/groups", "/{domain}/clients", "/{domain}/channels"
for name, more in (("top", {}), ("below", {"parent_id": "{top}"}), ("loose", {})):
    call("CreateGroup", 201, "POST", with_roles(groups), {"name": name} | more, "ann", {name: "id"})
run([
    ("Groups", 200, "GET", f"{groups}{page}"),
    ("Group", 200, "GET", with_roles(f"{groups}/{{top}}")),
    ("UpdateGroup", 200, "PUT", with_roles(f"{groups}/{{top}}"), {"id": "{top}", "name": "top 2"}),
    ("UpdateGroupTags", 200, "PATCH", f"{groups}/{{top}}/tags", {"id": "{top}", "tags": ["g"]}),
    ("DisableGroup", 200, "POST", with_roles(f"{groups}/{{loose}}/disable")),
    ("EnableGroup", 200, "POST", f"{groups}/{{loose}}/enable"),
    ("RetrieveGroupHierarchy", 200, "GET", f"{groups}/{{top}}/hierarchy?level=2&tree=true&direction=-1"),
    ("RemoveGroupParent", 204, "DELETE", f"{groups}/{{below}}/parent"),
    ("SetGroupParent", 200, "POST", f"{groups}/{{below}}/parent", {"parent_id": "{top}"}),
    ("AddChildren", 200, "POST", f"{groups}/{{top}}/children", {"children_ids": ["{loose}"]}),
    ("ListChildren", 200, "GET", f"{groups}/{{top}}/children{page}&start_level=1&end_level=0"),
    ("RemoveChildren", 204, "DELETE", f"{groups}/{{top}}/children", {"children_ids": ["{loose}"]}),
    ("RemoveAllChildren", 204, "DELETE", with_roles(f"{groups}/{{top}}/children/all")),
    ("ListUserGroups", 200, "GET", f"/{{domain}}/users/{{ann_id}}/groups{page}"),
])
roles("Group", f"{groups}/{{top}}", groups, ["{bob_id}"])

for kind, base, one, name in (("Client", clients, f"{clients}/{{client}}", "client"),
                              ("Channel", channels, f"{channels}/{{channel}}", "channel")):
    body = {"name": "n", "tags": ["t"], "id": "", "parent_group_id": "", "metadata": {}}
    call(f"Create{kind}", 201, "POST", with_roles(base), body, "ann", {name: "id"})
    run([
        (f"Create{kind}s", 200, "POST", with_roles(f"{base}/bulk"), [{"name": "a"}, {"name": "b"}]),
        (f"{kind}s", 200, "GET", f"{base}{page}"),
        (kind, 200, "GET", with_roles(one)),
        (f"Update{kind}", 200, "PATCH", with_roles(one), {"id": f"{{{name}}}", "name": "m"}),
        (f"Update{kind}Tags", 200, "PATCH", f"{one}/tags", {"id": f"{{{name}}}", "tags": ["u"]}),
        (f"Disable{kind}", 200, "POST", with_roles(f"{one}/disable")),
        (f"Enable{kind}", 200, "POST", f"{one}/enable"),
        (f"Set{kind}Parent", 200, "POST", f"{one}/parent", {"parent_group_id": "{top}"}),
        (f"Remove{kind}Parent", 204, "DELETE", f"{one}/parent", {"parent_group_id": "{top}"}),
        (f"ListUser{kind}s", 200, "GET", f"/{{domain}}/users/{{ann_id}}/{name}s{page}"),
    ])
    roles(kind, one, base, ["{bob_id}"])
secret = {"secret": "sdk-{mark}"}
kinds = ["publish", "subscribe"]
both = {"client_ids": ["{client}"], "channel_ids": ["{channel}"], "types": kinds}
some = {"client_ids": ["{client}"], "channel_id": "{channel}", "types": kinds}
run([
    ("UpdateClientSecret", 200, "PATCH", f"{clients}/{{client}}/secret", secret),
    ("Connect", 201, "POST", with_roles(f"{channels}/connect"), both),
    ("Disconnect", 204, "POST", f"{channels}/disconnect", both),
    ("ConnectClients", 201, "POST", f"{channels}/{{channel}}/connect", some),
])
for path in ("/m/{domain}/c/{channel}/sub/topic", "/m/{domain}/c/{channel}/"):
    status, answer = exchange(messages, "POST", filled(path), b'[{"n":"v","v":1}]', {
        "Authorization": filled("Client sdk-{mark}"), "Content-Type": "application/json"})
    assert status == 202, f"SendMessage: {path}: {status} {answer!r}"
run([
    ("DisconnectClients", 204, "POST", f"{channels}/{{channel}}/disconnect", some),
    ("Journal", 200, "GET", f"/{{domain}}/journal/client/{{client}}{page}&with_attributes=true"),
    ("Journal", 200, "GET", f"/journal/user/{{ann_id}}{page}"),
    ("ClientTelemetry", 200, "GET", "/{domain}/journal/client/{client}/telemetry"),
])

call("CreatePAT", 201, "POST", with_roles("/pats"), {"name": "p", "description": "d", "duration": "24h"},
     "ann", {"pat": "id"})
scope = {"entity_type": "clients", "domain_id": "{domain}", "operation": "view", "entity_id": "*"}
run([
    ("ListPATs", 200, "GET", f"/pats{page}"),
    ("ViewPAT", 200, "GET", with_roles("/pats/{pat}")),
    ("UpdatePATName", 202, "PATCH", "/pats/{pat}/name", {"name": "q"}),
    ("UpdatePATDescription", 202, "PATCH", "/pats/{pat}/description", {"description": "e"}),
    ("AddScope", 200, "PATCH", with_roles("/pats/{pat}/scope/add"), {"scopes": [scope]}),
])
call("ListScopes", 200, "GET", f"/pats/{{pat}}/scope{page}", None, "ann", {"scope": "scopes.0.id"})
run([
    ("DeleteScopes", 200, "PATCH", "/pats/{pat}/scope/remove", {"scopes_id": ["{scope}"]}),
    ("DeleteAllScopes", 200, "DELETE", with_roles("/pats/{pat}/scope")),
    ("ResetPATSecret", 200, "PATCH", "/pats/{pat}/secret/reset", {"duration": "24h"}),
    ("RevokePAT", 204, "PATCH", with_roles("/pats/{pat}/secret/revoke")),
    ("DeletePAT", 204, "DELETE", "/pats/{pat}"),
    ("DeleteAllPATs", 200, "DELETE", with_roles("/pats")),
    ("DeleteChannel", 204, "DELETE", with_roles(f"{channels}/{{channel}}")),
    ("DeleteClient", 204, "DELETE", f"{clients}/{{client}}"),
    ("DeleteGroup", 204, "DELETE", f"{groups}/{{top}}"),
])
call("Logins", 200, "GET", f"/users/tokens/refresh-tokens{page}", None, "ann",
     {"token": "refresh_tokens.0.id"})
call("RevokeToken", 204, "POST", "/users/tokens/revoke", {"token_id": "{token}"})
# The one call that an SDK makes without a content type.
status, answer = exchange(address, "DELETE", filled("/users/{cyd_id}"), None,
                          {"Authorization": f"Bearer {known['admin']}"})
assert status == 204, f"DeleteUser: {status} {answer!r}"
print(f"ok {made} calls of the SDKs with the codes of the Go SDK")
