"""Times lists of the control API at full size: one domain with 1 000 000 clients, 100 000 channels and
10 000 groups.

Usage: control_api.py READY_JSON [--fill [SHARE]], with what `turnpike serve --json` printed at its first
start. With --fill the domain is made first; SHARE, such as 0.1, makes it smaller. Each kind of list is
asked for 50 times, with another value each time where it takes one: the first answers are cold.
"""
import http.client
import json
import random
import sys
import time
import urllib.parse

ready = json.load(open(sys.argv[1]))
fill = "--fill" in sys.argv
share = float(sys.argv[3]) if len(sys.argv) > 3 else 1.0
connection = http.client.HTTPConnection(ready["listeners"]["api"])
PART, ROUNDS = 10_000, 50
CLIENTS, CHANNELS, GROUPS = (round(count * share) for count in (1_000_000, 100_000, 10_000))


def call(method, path, token=None, body=None, allowed=()):
    headers = {"content-type": "application/json"}
    if token:
        headers["authorization"] = "Bearer " + token
    begun = time.perf_counter()
    connection.request(method, path, json.dumps(body) if body is not None else None, headers)
    answer = connection.getresponse()
    text = answer.read()
    took = (time.perf_counter() - begun) * 1000
    if answer.status >= 300 and answer.status not in allowed:
        sys.exit(f"{method} {path}: {answer.status} {text.decode()}")
    return (json.loads(text) if text else None), took


def show(name, times, total=""):
    first = times[0]
    times = sorted(times)
    p99 = times[min(len(times) - 1, len(times) * 99 // 100)]
    print(f"| {name} | {total} | {times[len(times) // 2]:.1f} | {p99:.1f} | {first:.1f} |", flush=True)


def login(username, password):
    body = {"username": username, "password": password}
    return call("POST", "/users/tokens/issue", body=body)[0]["access_token"]


def person(name):
    body = {"email": f"{name}@example.com", "credentials": {"username": name, "secret": "correct horse"}}
    call("POST", "/users", admin, body, allowed=(409,))
    token = login(name, "correct horse")
    return token, call("GET", "/users/profile", token)[0]["id"]


admin = call("POST", "/users/tokens/issue", body=ready["admin"])[0]["access_token"]
(token, _), (low, low_id), (one, one_id) = person("perf"), person("lower"), person("single")
print("| call | total | p50 ms | p99 ms | first ms |\n| --- | --- | --- | --- | --- |")
if fill:
    domain = call("POST", "/domains", token, {"name": "perf", "route": "perf"})[0]["id"]
    roots = max(1, GROUPS // 1000)
    groups = []
    for at in range(GROUPS):
        # 10 roots, 10 groups under each, and the others under those.
        parent = None if at < roots else groups[at % roots] if at < 11 * roots else groups[roots + at % (10 * roots)]
        body = {"name": f"group {at}"} | ({"parent_id": parent} if parent else {})
        groups.append(call("POST", f"/{domain}/groups", token, body)[0]["id"])
    for kind, count in (("channels", CHANNELS), ("clients", CLIENTS)):
        times = []
        for begin in range(0, count, PART):
            items = [
                {
                    "name": f"{kind[:-1]}-{at % 1000}-{at}",
                    "tags": [f"t{at % 1000}", f"half{at % 2}"],
                    "metadata": {"serial": at, "site": {"hall": at % 500}},
                    "parent_group_id": groups[at % len(groups)],
                }
                for at in range(begin, min(begin + PART, count))
            ]
            times.append(call("POST", f"/{domain}/{kind}/bulk", token, items)[1])
        show(f"bulk creation of 10 000 {kind}", times)
else:
    domain = call("GET", "/domains/perf", token)[0]["id"]

kinds = ("clients", "channels", "groups")
CLIENTS, CHANNELS, GROUPS = (call("GET", f"/{domain}/{kind}?limit=1", token)[0]["total"] for kind in kinds)
call("POST", f"/domains/{domain}/roles", token,
     {"role_name": "visitor", "optional_actions": ["read"], "optional_members": [low_id, one_id]}, (409,))
actions = ["read", "client_read", "channel_read", "subgroup_read", "subgroup_client_read", "subgroup_channel_read"]
group = call("GET", f"/{domain}/groups?order=name&dir=asc&limit=1", token)[0]["groups"][0]["id"]
call("POST", f"/{domain}/groups/{group}/roles", token,
     {"role_name": "lower", "optional_actions": actions, "optional_members": [low_id]}, (409,))
channel = call("GET", f"/{domain}/channels?order=name&limit=1", token)[0]["channels"][0]["id"]
call("POST", f"/{domain}/channels/{channel}/roles", token,
     {"role_name": "one", "optional_actions": ["read"], "optional_members": [one_id]}, (409,))

seed = random.Random(1)


def number(most):
    return seed.randrange(max(1, most))


def metadata(value):
    return "?metadata=" + urllib.parse.quote(json.dumps(value))


def measure(name, who, kind, query):
    times = []
    for _ in range(ROUNDS):
        answer, took = call("GET", f"/{domain}/{kind}{query()}", who)
        times.append(took)
    show(f"{kind}: {name}", times, answer["total"])


for kind, most in zip(kinds, (CLIENTS, CHANNELS, GROUPS)):
    measure("first page", token, kind, lambda: "")
    measure("page of 100", token, kind, lambda: "?limit=100")
    measure("any page", token, kind, lambda: f"?offset={number(most)}")
    measure("any page, by name", token, kind, lambda: f"?order=name&offset={number(most)}")
    measure("last page", token, kind, lambda: f"?offset={most - 10}")
    measure("one name", token, kind, lambda: f"?name={kind[:-1]}-{(at := number(most)) % 1000}-{at}" if kind != "groups" else f"?name=group {number(most)}".replace(" ", "%20"))
    measure("rare part of names", token, kind, lambda: f"?name=-{number(1000)}-")
    measure("part of all names", token, kind, lambda: f"?name={kind[:4]}&offset={number(most)}")
    if kind != "groups":
        measure("one tag in 1000", token, kind, lambda: f"?tags=t{number(1000)}")
        measure("one tag in 1000, any page", token, kind, lambda: f"?tags=t{number(1000)}&offset={number(most // 1000)}")
        measure("one tag in 2, any page", token, kind, lambda: f"?tags=half1&offset={number(most // 2)}")
        measure("two tags", token, kind, lambda: f"?tags=t{2 * number(500)}%2Bhalf0")
        measure("one value of metadata", token, kind, lambda: metadata({"serial": number(most)}))
        measure("a value of 1 in 500, any page", token, kind,
                lambda: metadata({"site": {"hall": number(500)}}) + f"&offset={number(most // 500)}")
    measure("role on a root group, first page", low, kind, lambda: "")
    measure("role on a root group, any page", low, kind, lambda: f"?offset={number(most // 10)}")
    measure("role on a root group, one name", low, kind, lambda: f"?name=-{number(1000)}-")
measure("role on one channel", one, "channels", lambda: "")
measure("nothing visible", one, "clients", lambda: "")
