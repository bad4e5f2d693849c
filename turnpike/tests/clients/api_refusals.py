#!/usr/bin/env python3
"""What every route of the control API has in common, checked against its OpenAPI document.

Usage: api_refusals.py API TOKEN CALLED
API is the listener's address, TOKEN an administrator's access token, CALLED a file with a line
`METHOD path` for each call that succeeded. Fails if a route of the document is not among them, if a
route answers without a token that needs one, takes a body that is no JSON or of another content
type, or refuses without saying why in JSON.
"""

import http.client
import json
import re
import sys
from urllib.parse import urlsplit

api, token, called_file = sys.argv[1:]
NOBODY = "00000000-0000-4000-8000-000000000000"


def call(method, path, body=None, **headers):
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection(urlsplit(api).netloc, timeout=20)
    try:
        connection.request(method, path, body, names)
    except BrokenPipeError:
        pass  # a body that is refused unread
    answer = connection.getresponse()
    result = answer.status, answer.read(), answer.headers
    connection.close()
    return result


def refused(expected, method, path, body=None, **headers):
    status, text, answered = call(method, path, body, **headers)
    where = f"{method} {path}: {status}, {text[:200]!r}"
    assert status == expected, f"{where}; expected {expected}"
    assert answered["content-type"] == "application/json", where
    assert json.loads(text)["message"], where


document = json.loads(call("GET", "/openapi.json")[1])
with open(called_file, encoding="utf-8") as file:
    called = {tuple(line.split(maxsplit=1)) for line in file.read().splitlines()}
missing = []
for template, operations in document["paths"].items():
    pattern = re.compile("/".join(
        "[^/]+" if part.startswith("{") else re.escape(part) for part in template.split("/")))
    path = re.sub(r"\{kind\}", "client", template)
    path = re.sub(r"\{[a-z]+\}", NOBODY, path)
    for method, operation in operations.items():
        method = method.upper()
        if not any(m == method and pattern.fullmatch(p) for m, p in called):
            missing.append(f"{method} {template}")
        secured = operation["security"]
        bearer = {"Authorization": f"Bearer {token}"} if secured else {}
        if secured and {} not in secured:
            refused(401, method, path)
            refused(401, method, path, Authorization="Bearer none.of.these")
        if operation.get("requestBody", {}).get("required"):
            refused(415, method, path, b"{}", Content_Type="text/plain", **bearer)
            refused(400, method, path, b"{", Content_Type="application/json", **bearer)
            refused(400, method, path, b"\xff", Content_Type="application/json", **bearer)
refused(404, "GET", "/no/such/route/at/all")
refused(405, "PATCH", "/domains")
refused(413, "POST", "/domains", b" " * (64 << 20), Content_Type="application/json",
        Authorization=f"Bearer {token}")
assert not missing, f"not called by the examples: {missing}"
