"""Times calls of the control API on a running server.

Usage: control_api.py READY_JSON [TEN_THOUSANDS], with what `turnpike serve --json` printed at its first start.
"""
import http.client
import json
import sys
import time

ready = json.load(open(sys.argv[1]))
rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 10
connection = http.client.HTTPConnection(ready["listeners"]["api"])


def call(method, path, token=None, body=None):
    headers = {"content-type": "application/json"}
    if token:
        headers["authorization"] = "Bearer " + token
    begun = time.perf_counter()
    connection.request(method, path, json.dumps(body) if body is not None else None, headers)
    answer = connection.getresponse()
    text = answer.read()
    took = (time.perf_counter() - begun) * 1000
    if answer.status >= 300:
        sys.exit(f"{method} {path}: {answer.status} {text.decode()}")
    return (json.loads(text) if text else None), took


def show(name, times):
    times.sort()
    p99 = times[min(len(times) - 1, len(times) * 99 // 100)]
    print(f"{name:<40} p50 {times[len(times) // 2]:7.1f} ms   p99 {p99:7.1f} ms")


admin = call("POST", "/users/tokens/issue", body=ready["admin"])[0]["access_token"]
user = {"email": "p@example.com", "credentials": {"username": "perf", "secret": "correct horse"}}
call("POST", "/users", admin, user)
login = {"username": "perf", "password": "correct horse"}
token = call("POST", "/users/tokens/issue", body=login)[0]["access_token"]
domain = call("POST", "/domains", token, {"name": "perf", "route": "perf"})[0]["id"]

times = []
for part in range(rounds):
    clients = [
        {"name": f"client-{part}-{at}", "tags": [f"t{at % 100}"], "metadata": {"n": at}}
        for at in range(10_000)
    ]
    made, took = call("POST", f"/{domain}/clients/bulk", token, clients)
    times.append(took)
show("bulk creation of 10 000 clients", times)
for query in ["", "?limit=100", "?order=name", "?offset=9000", "?tags=t7", "?name=client-0-77",
              "?metadata=%7B%22n%22%3A77%7D"]:
    times = [call("GET", f"/{domain}/clients{query}", token)[1] for _ in range(50)]
    show(f"GET clients{query}", times)
channel = call("POST", f"/{domain}/channels", token, {"name": "c"})[0]["id"]
pair = {"client_ids": [made["clients"][0]["id"]], "channel_ids": [channel], "types": ["publish"]}
times = []
for _ in range(500):
    call("POST", f"/{domain}/channels/connect", token, pair)
    times.append(call("POST", f"/{domain}/channels/disconnect", token, pair)[1])
show("disconnect, until the broker has fenced it", times)
