#!/usr/bin/env python3
"""Takes rights away while messages flow, and counts those that pass under them afterwards.

A publisher sends its clock's reading as fast as it can; a subscriber compares. When a call that
revokes has returned, at t, no message that was sent after t may come, until the right is given
back. Every kind of revocation is done the same number of times. All processes read one clock.

Usage: revocations.py READY [COUNT [TURNPIKE]]
READY is the line that `turnpike serve --json` printed at its first start; COUNT is the number of
revocations of each kind (1000); with TURNPIKE, the binary, signing keys are revoked as well, in the
data directory of the environment. Ends with 1 if a message was late. Needs Python 3 alone.
"""

import http.client
import json
import multiprocessing as mp
import socket
import struct
import subprocess
import sys
import time

clock = time.monotonic_ns


class Shared:
    """What the three processes know of each other."""

    def __init__(self):
        self.user = mp.Array("c", 64)
        self.password = mp.Array("c", 2048)
        self.writer_password = mp.Array("c", 128)
        self.identity = mp.Value("q", 0)  # counts who the subscriber is to be
        self.identified = mp.Value("q", 0)  # who it is
        self.revoked_at = mp.Value("q", 0)  # 0 while the right is there
        self.sent = mp.Value("q", 0)
        self.received = mp.Value("q", 0)
        self.late = mp.Value("q", 0)
        self.looked = mp.Value("q", 0)
        self.stop = mp.Value("b", 0)


def text(data):
    return struct.pack(">H", len(data)) + data


def packet(head, body):
    length, size = b"", len(body)
    while True:
        size, digit = size >> 7, size & 127
        length += bytes([digit | (128 if size else 0)])
        if not size:
            return bytes([head]) + length + body


def connect(address, name, user, password):
    """A socket behind CONNACK 0x00, or nothing."""
    host, port = address.rsplit(":", 1)
    try:
        sock = socket.create_connection((host, int(port)), timeout=5)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        body = b"\x00\x04MQTT\x04\xc2\x00\x00" + text(name) + text(user) + text(password)
        sock.sendall(packet(0x10, body))
        answer = sock.recv(4)
        if len(answer) == 4 and answer[3] == 0:
            return sock
        sock.close()
    except OSError:
        pass
    return None


def publisher(address, user, topic, shared):
    sock = None
    head = text(topic)
    while not shared.stop.value:
        if sock is None:
            # Who tries too often with what is no secret any more has to wait: nobody tries then.
            secret = shared.writer_password.value
            sock = secret and connect(address, b"racer", user, secret) or None
            if sock is None:
                time.sleep(0.0005)
                continue
        batch = b"".join(packet(0x30, head + struct.pack(">q", clock())) for _ in range(8))
        try:
            sock.sendall(batch)
            shared.sent.value += 8
        except OSError:
            sock.close()
            sock = None


def subscriber(address, topic, shared):
    sock, buffer = None, b""
    while not shared.stop.value:
        shared.looked.value += 1
        if sock and shared.identified.value != shared.identity.value:
            sock.close()
            sock = None
        if sock is None:
            identity = shared.identity.value
            secret = shared.password.value
            sock = secret and connect(address, b"watcher", shared.user.value, secret) or None
            buffer = b""
            if sock is None:
                time.sleep(0.0005)
                continue
            sock.settimeout(0.002)
            shared.identified.value = identity
            sock.sendall(packet(0x82, b"\x00\x01" + text(topic) + b"\x00"))
        try:
            data = sock.recv(1 << 16)
        except TimeoutError:
            continue
        except OSError:
            data = b""
        if not data:
            sock.close()
            sock = None
            continue
        buffer += data
        revoked_at = shared.revoked_at.value
        at = 0
        while len(buffer) - at >= 2 and len(buffer) - at >= 2 + buffer[at + 1]:
            end = at + 2 + buffer[at + 1]
            if buffer[at] & 0xF0 == 0x30:
                shared.received.value += 1
                (sent_at,) = struct.unpack(">q", buffer[end - 8 : end])
                if revoked_at and sent_at > revoked_at:
                    shared.late.value += 1
            at = end
        buffer = buffer[at:]


class Api:
    def __init__(self, address):
        self.connection = http.client.HTTPConnection(address, timeout=60)
        self.token = None

    def call(self, method, path, body=None, token=None):
        headers = {"Content-Type": "application/json"}
        if token or self.token:
            headers["Authorization"] = f"Bearer {token or self.token}"
        data = None if body is None else json.dumps(body)
        self.connection.request(method, path, data, headers)
        response = self.connection.getresponse()
        raw = response.read()
        if response.status >= 300:
            raise SystemExit(f"{method} {path}: {response.status} {raw.decode()}")
        return json.loads(raw) if raw else None


def main():
    ready = json.load(open(sys.argv[1], encoding="utf-8"))
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    mqtt, address = ready["listeners"]["mqtt"], ready["listeners"]["api"]
    api = Api(address)
    admin = {key: ready["admin"][key] for key in ("username", "password")}

    def log_in():
        api.token = None
        api.token = api.call("POST", "/users/tokens/issue", admin)["access_token"]

    log_in()

    mark = f"{clock():x}"
    domain = api.call("POST", "/domains", {"name": "race", "route": f"race-{mark}"})["id"]
    channel = api.call("POST", f"/{domain}/channels", {"name": "line"})["id"]
    writer = api.call("POST", f"/{domain}/clients", {"name": "writer"})
    reader = api.call("POST", f"/{domain}/clients", {"name": "reader"})
    person = {
        "first_name": "Rea",
        "last_name": "Der",
        "email": f"{mark}@example.com",
        "credentials": {"username": f"reader-{mark}", "secret": "a password of ours"},
    }
    user = api.call("POST", "/users", person)["id"]
    roles = f"/domains/{domain}/roles"
    member = {"role_name": "members", "optional_actions": ["read"], "optional_members": [user]}
    api.call("POST", roles, member)
    roles = f"/{domain}/channels/{channel}/roles"
    role = {"role_name": "readers", "optional_actions": ["subscribe"], "optional_members": [user]}
    role = api.call("POST", roles, role)
    role = f"{roles}/{role.get('role_id') or role['id']}"

    def joined(verb, who, kinds):
        body = {"client_ids": [who["id"]], "channel_ids": [channel], "types": kinds}
        api.call("POST", f"/{domain}/channels/{verb}", body)

    both = ["publish", "subscribe"]
    joined("connect", writer, both)
    joined("connect", reader, both)

    shared = Shared()
    topic = f"m/{domain}/c/{channel}".encode()
    secrets = {"writer": writer["credentials"]["secret"]}
    shared.writer_password.value = secrets["writer"].encode()

    def be(name, secret):
        shared.user.value = name.encode()
        shared.password.value = secret.encode()
        shared.identity.value += 1

    def as_client():
        be(reader["id"], reader["credentials"]["secret"])

    def fresh_token():
        login = {"username": f"reader-{mark}", "password": "a password of ours"}
        return api.call("POST", "/users/tokens/issue", login)["access_token"]

    def as_user():
        be(user, fresh_token())

    def switch(path):
        return (
            lambda: api.call("POST", f"{path}/disable"),
            lambda: api.call("POST", f"{path}/enable"),
        )

    def new_secret():
        secrets["writer"] = f"{mark}-{clock():x}"
        shared.writer_password.value = b""
        api.call("PATCH", f"/{domain}/clients/{writer['id']}/secret", {"secret": secrets["writer"]})

    def show_secret():
        shared.writer_password.value = secrets["writer"].encode()

    pat = {}

    def new_pat():
        token = fresh_token()
        if pat:
            api.call("DELETE", f"/pats/{pat['id']}", None, token)
        made = api.call("POST", "/pats", {"name": f"p{clock():x}", "duration": "1h"}, token)
        scope = {"entity_type": "messages", "domain_id": domain, "operation": "subscribe"}
        scopes = {"scopes": [scope | {"entity_id": channel}]}
        api.call("PATCH", f"/pats/{made['id']}/scope/add", scopes, token)
        pat.update(id=made["id"], token=token)
        be(user, made["secret"])

    def revoke_pat():
        shared.password.value = b""
        api.call("PATCH", f"/pats/{pat['id']}/secret/revoke", None, pat["token"])

    def disable_user():
        shared.password.value = b""
        api.call("POST", f"/users/{user}/disable")

    def revoke_keys():
        shared.password.value = b""
        revoke = [sys.argv[3], "provision", "rotate-keys", "--revoke"]
        subprocess.run(revoke, check=True, stdout=subprocess.DEVNULL)

    def as_before():
        pass

    # Name, what is done first, how it is revoked, how it is given back.
    kinds = [
        ("disconnect publish", as_client, lambda: joined("disconnect", writer, ["publish"]),
         lambda: joined("connect", writer, ["publish"])),
        ("disconnect subscribe", as_before, lambda: joined("disconnect", reader, ["subscribe"]),
         lambda: joined("connect", reader, ["subscribe"])),
        ("disable publishing client", as_before, *switch(f"/{domain}/clients/{writer['id']}")),
        ("disable subscribing client", as_before, *switch(f"/{domain}/clients/{reader['id']}")),
        ("disable channel", as_before, *switch(f"/{domain}/channels/{channel}")),
        ("disable domain", as_before, *switch(f"/domains/{domain}")),
        ("change secret", as_before, new_secret, show_secret),
        ("remove role member", as_user,
         lambda: api.call("POST", f"{role}/members/delete", {"members": [user]}),
         lambda: api.call("POST", f"{role}/members", {"members": [user]})),
        ("disable user", as_before, disable_user,
         lambda: (api.call("POST", f"/users/{user}/enable"), as_user())),
        ("revoke personal access token", new_pat, revoke_pat, new_pat),
    ]
    if len(sys.argv) > 3:
        kinds.append(("revoke signing keys", as_user, revoke_keys, lambda: (log_in(), as_user())))

    processes = [
        mp.Process(target=publisher, args=(mqtt, writer["id"].encode(), topic, shared), daemon=True),
        mp.Process(target=subscriber, args=(mqtt, topic, shared), daemon=True),
    ]
    as_client()
    for process in processes:
        process.start()

    def flows():
        """Until messages come again."""
        begin, seen = time.monotonic(), None
        while seen is None or shared.received.value == seen:
            if seen is None and shared.identified.value == shared.identity.value:
                seen = shared.received.value
            if time.monotonic() - begin > 20:
                raise SystemExit("no message comes though the right is there")
            time.sleep(0.0002)

    every, all_late = [], 0
    print(f"{'revocation':30} {'late':>5} {'p50':>8} {'p99':>8} {'max':>8}   (ms, of {count})")
    for name, first, revoke, restore in kinds:
        first()
        times, late = [], shared.late.value
        for _ in range(count):
            flows()
            began = clock()
            revoke()
            answered = clock()
            times.append((answered - began) / 1e6)
            shared.revoked_at.value = answered
            # The subscriber looks twice at what came since.
            looked, until = shared.looked.value, time.monotonic() + 0.003
            while shared.looked.value < looked + 2 or time.monotonic() < until:
                time.sleep(0.0002)
            shared.revoked_at.value = 0
            restore()
        times.sort()
        every += times
        late = shared.late.value - late
        all_late += late
        row = [times[len(times) // 2], times[len(times) * 99 // 100], times[-1]]
        print(f"{name:30} {late:5} " + " ".join(f"{value:8.2f}" for value in row), flush=True)
    shared.stop.value = 1
    for process in processes:
        process.join(5)
        process.kill()
    every.sort()
    row = [every[len(every) // 2], every[len(every) * 99 // 100], every[-1]]
    print(f"{'all':30} {all_late:5} " + " ".join(f"{value:8.2f}" for value in row))
    print(f"{shared.sent.value} messages were sent, {shared.received.value} came")
    print("answered within, in ms: " + ", ".join(
        f"{bound}: {sum(value <= bound for value in every)}"
        for bound in (1, 2, 5, 10, 25, 50, 100, 1000)
    ))
    sys.exit(1 if all_late else 0)


if __name__ == "__main__":
    main()
