#!/usr/bin/env python3
"""schemathesis over the served OpenAPI document: no 5xx, nothing that the document does not say.

Makes a domain with objects of every kind, writes their ids into the document's path parameters, so
that calls reach handlers instead of ending at "not found", and runs schemathesis as the platform's
administrator. Ends with its status.

Usage: schemathesis_api.py READY SCHEMATHESIS [EXAMPLES]
READY is the line of `turnpike serve --json`, SCHEMATHESIS the command, EXAMPLES the number of
examples for each operation (10).
"""

import json
import os
import subprocess
import sys
import tempfile
import urllib.request

SPARE = 12  # objects of each kind
DOOMED = 4  # so many of them are named by calls that delete or disable

with open(sys.argv[1], encoding="utf-8") as file:
    ready = json.load(file)
base = f"http://{ready['listeners']['api']}"
token = None


def call(method, path, body=None):
    request = urllib.request.Request(base + path, method=method)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    data = None
    if body is not None:
        request.add_header("Content-Type", "application/json")
        data = json.dumps(body).encode()
    with urllib.request.urlopen(request, data, timeout=30) as answer:
        return json.loads(answer.read() or b"null")


admin = ready["admin"]
login = {"username": admin["username"], "password": admin["password"]}
token = call("POST", "/users/tokens/issue", login)["access_token"]


def person(number):
    return call("POST", "/users", {
        "first_name": "A", "last_name": "B", "email": f"schema{number}@example.com",
        "credentials": {"username": f"schema{number}", "secret": "correct horse"},
    })["id"]


users = [person(number) for number in range(SPARE)]
domain = call("POST", "/domains", {"name": "schema", "route": "schema"})["id"]
# A second one may be disabled, frozen and deleted.
spare = [call("POST", "/domains", {"name": "s", "route": f"schema{n}"})["id"] for n in range(3)]
ids = {"users": users, "domains": [domain]}
for kind in ("groups", "channels", "clients"):
    ids[kind] = [
        call("POST", f"/{domain}/{kind}", {"name": f"{kind}{n}"})["id"] for n in range(SPARE)
    ]
ids["pats"] = [
    call("POST", "/pats", {"name": f"p{n}", "duration": "20h"})["id"] for n in range(SPARE)
]
roles = {}
for kind in ("groups", "channels", "clients"):
    roles[kind] = [
        call("POST", f"/{domain}/{kind}/{ids[kind][-1]}/roles",
             {"role_name": f"r{n}", "optional_actions": ["read"]})["id"]
        for n in range(SPARE)
    ]
roles["domains"] = [
    call("POST", f"/domains/{domain}/roles",
         {"role_name": f"r{n}", "optional_actions": ["read"]})["id"]
    for n in range(SPARE)
]


def values(path, method, name):
    """What a path parameter may be: other objects for calls that take them away."""
    found = candidates(path, name)
    if len(found) != SPARE:
        return found
    last = path.rsplit("/", 1)[1]
    takes_away = method == "delete" and last.startswith("{") or last in ("disable", "revoke")
    return found[:DOOMED] if takes_away else found[DOOMED:]


def candidates(path, name):
    parts = path.strip("/").split("/")
    kind = next((part for part in parts if part in ids), None)
    if name == "domain":
        whole = path in ("/domains/{domain}", "/domains/{domain}/disable", "/domains/{domain}/freeze")
        return spare if whole else [domain]
    if name == "user":
        return users
    if name == "client":
        return ids["clients"]
    if name == "provider":
        # One that is there would lead out of the server: api_examples.sh goes that way.
        return ["nobody"]
    if name == "serial":
        # A certificate takes a key to be made: api_examples.sh registers one.
        return ["4a:3f"]
    if name == "kind":
        return ["group", "channel", "client"]
    if name == "role":
        return roles[kind]
    if name == "id" and parts[0] == "journal":
        return users
    if name == "id" and "{role}" in parts:
        return ids[kind][-1:]
    if name == "id":
        return ids[kind] if kind else ids["clients"]
    raise SystemExit(f"{path}: a path parameter {name!r} that this script does not know")


document = call("GET", "/openapi.json")
del document["paths"]["/pats"]["delete"]  # would leave nothing for the others
for path, operations in document["paths"].items():
    for method, operation in operations.items():
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "path":
                parameter["schema"] = {
                    "type": "string", "enum": values(path, method, parameter["name"]),
                }

with tempfile.TemporaryDirectory() as folder:
    name = os.path.join(folder, "openapi.json")
    with open(name, "w", encoding="utf-8") as file:
        json.dump(document, file)
    checks = ("not_a_server_error", "status_code_conformance", "content_type_conformance",
              "response_schema_conformance")
    command = [
        sys.argv[2], "--no-color", "run", name, "--url", base,
        "-H", f"Authorization: Bearer {token}", "--checks", ",".join(checks),
        "--max-examples", sys.argv[3] if len(sys.argv) > 3 else "10",
        "--seed", "1", "--phases", "examples,coverage,fuzzing",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    print("\n".join(lines if done.returncode else lines[-12:]))
    if done.returncode:
        print(done.stderr, file=sys.stderr)
    # All of it went through the door: nothing took the token's right away on the way.
    call("GET", "/users/profile")
    sys.exit(done.returncode)
