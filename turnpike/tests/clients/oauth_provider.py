#!/usr/bin/env python3
"""A provider of logins in TLS, for one person who always agrees; it checks what it is given.

Usage: oauth_provider.py CERTIFICATE KEY PORT_FILE
Prints nothing; writes the port that it listens on into PORT_FILE. The client is `turnpike` with the
secret `smoke-secret`.
"""

import base64
import hashlib
import http.server
import json
import os
import secrets
import ssl
import sys
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

certificate, key, port_file = sys.argv[1:]
codes = {}
tokens = set()
PERSON = {"sub": "smoke-1", "email": "elsewhere@example.com", "email_verified": True,
          "given_name": "Else", "family_name": "Where"}


class Provider(http.server.BaseHTTPRequestHandler):
    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        url = urlsplit(self.path)
        if url.path == "/userinfo":
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            return self.answer(200, PERSON) if token in tokens else self.answer(401, {})
        asked = dict(parse_qsl(url.query))
        good = (url.path == "/authorize" and asked["response_type"] == "code"
                and asked["client_id"] == "turnpike" and asked["code_challenge_method"] == "S256"
                and asked["redirect_uri"].endswith("/oauth/callback/smoke"))
        if not good:
            return self.answer(400, {"error": "invalid_request"})
        code = secrets.token_urlsafe()
        codes[code] = (asked["code_challenge"], asked["redirect_uri"])
        back = urlencode({"code": code, "state": asked["state"]}, quote_via=quote)
        self.send_response(302)
        self.send_header("Location", f"{asked['redirect_uri']}?{back}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self):
        form = dict(parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
        secret = "Basic " + base64.b64encode(b"turnpike:smoke-secret").decode()
        challenge, redirect_uri = codes.pop(form.get("code"), (None, None))
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        given = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        good = (self.path == "/token" and self.headers.get("Authorization") == secret
                and form.get("grant_type") == "authorization_code" and given == challenge
                and form.get("redirect_uri") == redirect_uri)
        if not good:
            return self.answer(400, {"error": "invalid_grant"})
        token = secrets.token_urlsafe()
        tokens.add(token)
        self.answer(200, {"access_token": token, "token_type": "Bearer"})

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Provider)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
with open(port_file + ".new", "w", encoding="utf-8") as file:
    file.write(str(server.server_port))
os.rename(port_file + ".new", port_file)
server.serve_forever()
