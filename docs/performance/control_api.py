#!/usr/bin/env python3
"""Times the control API at full size: one domain with 1 000 000 clients, 100 000 channels, 10 000 groups
and 2 000 000 rights.

control_api.py measure [--database sqlite,postgres] [--share S] [--keep DIR]
    starts Turnpike on each database, fills it, times every kind of list, and writes
    docs/performance/control_api-DATABASE.json and the tables
control_api.py more --keep DIR [--database sqlite,postgres]
    makes 10 000 clients more, twelve times, in a domain that was kept
control_api.py write
    writes the tables of docs/performance.md from those files

--share 0.1 makes a domain of a tenth. With --keep what was made stays in DIR, and is measured there at once
the next time. PostgreSQL (Debian: postgresql) runs as a private server in that folder, on a Unix socket.
The binary is $TURNPIKE or target/release/turnpike.

Each kind of list is asked for 200 times, with another value each time where it takes one: the first answers
are cold. Their p99 is the second slowest. The CPU time is that of the whole server (not of PostgreSQL)
while it answers, which other work on the machine changes little.
"""

import argparse
import datetime
import glob
import http.client
import json
import os
import platform
import pwd
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PAGE = ROOT / "docs" / "performance.md"
TURNPIKE = os.environ.get("TURNPIKE", str(ROOT / "target/release/turnpike"))
DATABASES = {"sqlite": "SQLite", "postgres": "PostgreSQL"}
PART, ROUNDS, BAR_MS = 10_000, 200, 50
SIZES = {"clients": 1_000_000, "channels": 100_000, "groups": 10_000}
ACTIONS = ["read", "client_read", "channel_read", "subgroup_read", "subgroup_client_read", "subgroup_channel_read"]


def number(seed, most):
    return seed.randrange(max(1, most))


class Postgres:
    """A private server; it refuses to run as root, so then as whoever Debian made for it."""

    def __init__(self, folder):
        self.folder = folder
        programs = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
        if not programs and not shutil.which("initdb"):
            sys.exit("PostgreSQL is not installed (Debian: postgresql)")
        self.programs = Path(programs[-1]) if programs else Path(shutil.which("initdb")).parent
        self.owner = pwd.getpwnam("postgres") if os.getuid() == 0 else None
        if not (folder / "data").exists():
            folder.mkdir(parents=True, exist_ok=True)
            if self.owner:
                os.chown(folder, self.owner.pw_uid, self.owner.pw_gid)
            self.run("initdb", "--no-sync", "--auth=trust", "--username=turnpike", "--encoding=UTF8",
                     "--no-locale", "--pgdata", str(folder / "data"))
        self.run("pg_ctl", "--pgdata", str(folder / "data"), "--log", str(folder / "log"), "--wait", "--options",
                 f"-c listen_addresses= -c unix_socket_directories={folder} -c shared_buffers=512MB", "start")
        self.version = self.run("postgres", "--version")

    def run(self, program, *arguments):
        whose = {"user": self.owner.pw_uid, "group": self.owner.pw_gid} if self.owner else {}
        done = subprocess.run([self.programs / program, *arguments], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True, cwd="/", check=False, **whose)
        if done.returncode:
            sys.exit(f"{program} ended with {done.returncode}")
        return done.stdout.strip()

    def url(self):
        return f"postgres://turnpike@{str(self.folder).replace('/', '%2F')}/postgres"

    def stop(self):
        self.run("pg_ctl", "--pgdata", str(self.folder / "data"), "--wait", "--mode=fast", "stop")


class Turnpike:
    """A running server with its control API."""

    def __init__(self, folder, url):
        # What the first start says of its administrator is said once.
        self.ready = folder / "ready.json"
        first = not self.ready.exists()
        said = folder / ("ready.json" if first else "again.json")
        environment = {**os.environ, **({"TURNPIKE_CONTROL__DATABASE_URL": url} if url else {})}
        with open(said, "wb") as out, open(folder / "err", "ab") as err:
            self.process = subprocess.Popen(
                [TURNPIKE, "serve", "--data-dir", folder / "data", "--json", "--no-demo", "--mqtt-address",
                 "127.0.0.1:0", "--api-address", "127.0.0.1:0"], env=environment, stdout=out, stderr=err)
        while not said.read_text().endswith("\n"):
            if self.process.poll() is not None:
                sys.exit(f"turnpike ended: {(folder / 'err').read_text()[-2000:]}")
            time.sleep(0.05)
        self.login = json.loads(self.ready.read_text())["admin"]
        self.connection = http.client.HTTPConnection(json.loads(said.read_text())["listeners"]["api"])

    def cpu(self):
        """CPU time of all threads in milliseconds, told to the nanosecond."""
        spent = 0
        for thread in glob.glob(f"/proc/{self.process.pid}/task/*/schedstat"):
            try:
                spent += int(Path(thread).read_text().split()[0])
            except OSError:
                pass  # It has ended meanwhile.
        return spent / 1e6

    def call(self, method, path, token=None, body=None, allowed=()):
        headers = {"content-type": "application/json"}
        if token:
            headers["authorization"] = "Bearer " + token
        text = json.dumps(body) if body is not None else None
        begun = time.perf_counter()
        self.connection.request(method, path, text, headers)
        answer = self.connection.getresponse()
        text = answer.read()
        took = (time.perf_counter() - begun) * 1000
        if answer.status >= 300 and answer.status not in allowed:
            sys.exit(f"{method} {path}: {answer.status} {text.decode()}")
        return (json.loads(text) if text else None), took

    def token(self, login):
        return self.call("POST", "/users/tokens/issue", body=login)[0]["access_token"]

    def person(self, name):
        login = {"username": name, "password": "correct horse"}
        body = {"email": f"{name}@example.com", "credentials": {"username": name, "secret": "correct horse"}}
        self.call("POST", "/users", self.token(self.login), body, allowed=(409,))
        token = self.token(login)
        return token, self.call("GET", "/users/profile", token)[0]["id"]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def objects(kind, numbers, groups):
    """What is made of a kind, by number."""
    return [
        {
            "name": f"{kind[:-1]}-{at % 1000}-{at}",
            "tags": [f"t{at % 1000}", f"half{at % 2}"],
            "metadata": {"serial": at, "site": {"hall": at % 500}},
            "parent_group_id": groups[at % len(groups)],
        }
        for at in numbers
    ]


def fill(server, share, found):
    """Makes the domain; what each kind of bulk call took goes into `found`."""
    sizes = {kind: round(count * share) for kind, count in SIZES.items()}
    token, _ = server.person("perf")
    begun = time.perf_counter()
    domain = server.call("POST", "/domains", token, {"name": "perf", "route": "perf"})[0]["id"]
    count = sizes["groups"]
    roots = max(1, count // 1000)
    groups = []
    for at in range(count):
        # 10 roots, 10 groups under each, and the others under those.
        parent = None if at < roots else groups[at % roots] if at < 11 * roots else groups[roots + at % (10 * roots)]
        body = {"name": f"group {at}"} | ({"parent_id": parent} if parent else {})
        groups.append(server.call("POST", f"/{domain}/groups", token, body)[0]["id"])
    ids = {}
    for kind in ("channels", "clients"):
        times, ids[kind] = [], []
        token = server.token({"username": "perf", "password": "correct horse"})
        for begin in range(0, sizes[kind], PART):
            items = objects(kind, range(begin, min(begin + PART, sizes[kind])), groups)
            made, took = server.call("POST", f"/{domain}/{kind}/bulk", token, items)
            times.append(took)
            ids[kind] += [item["id"] for item in made[kind]]
            print(f"{kind}: {len(ids[kind])} of {sizes[kind]}, {took:.0f} ms", flush=True)
        found.append(summary(f"10 000 {kind} in one call", times, sizes[kind]))
    for word in ("subscribe", "publish"):
        times = []
        token = server.token({"username": "perf", "password": "correct horse"})
        for begin in range(0, sizes["clients"], PART):
            clients = ids["clients"][begin : begin + PART]
            channels = [ids["channels"][(begin + at) % len(ids["channels"])] for at in range(len(clients))]
            body = {"client_ids": clients, "channel_ids": channels, "types": [word], "pairwise": True}
            times.append(server.call("POST", f"/{domain}/channels/connect", token, body)[1])
        print(f"{word}: {times[-1]:.0f} ms at the end", flush=True)
        found.append(summary(f"10 000 rights to {word} in one call", times, sizes["clients"]))
    found.append({"call": "all of it", "seconds": time.perf_counter() - begun})


def more(arguments, database):
    """Makes 10 000 clients more, twelve times, in a domain that was kept: it is larger then."""
    postgres = Postgres(Path(arguments.keep) / database / "server") if database == "postgres" else None
    server = Turnpike(Path(arguments.keep) / database, postgres and postgres.url())
    token, _ = server.person("perf")
    domain = server.call("GET", "/domains/perf", token)[0]["id"]
    groups = [group["id"] for group in server.call("GET", f"/{domain}/groups?limit=100", token)[0]["groups"]]
    total = server.call("GET", f"/{domain}/clients?limit=1", token)[0]["total"]
    times, spent = [], []
    for begin in range(total, total + 12 * PART, PART):
        items, before = objects("clients", range(begin, begin + PART), groups), server.cpu()
        times.append(server.call("POST", f"/{domain}/clients/bulk", token, items)[1])
        spent.append(server.cpu() - before)
    for what, found in [("ms", times), ("CPU ms", spent)]:
        print(f"10 000 clients more than {total}, {what}: {min(found):.0f} to {max(found):.0f}, "
              f"median {statistics.median(found):.0f}")
    server.stop()
    if postgres:
        postgres.stop()


def summary(call, times, total):
    ordered = sorted(times)
    return {"call": call, "total": total, "p50": statistics.median(times), "first": times[0], "last": times[-1], "slowest": ordered[-1],
            "p99": ordered[min(len(times) - 1, len(times) * 99 // 100)]}


def lists(server, found):
    """Times every kind of list."""
    (token, _), (low, low_id), (one, one_id) = (server.person(name) for name in ("perf", "lower", "single"))
    call, seed = server.call, random.Random(1)
    domain = call("GET", "/domains/perf", token)[0]["id"]
    sizes = {kind: call("GET", f"/{domain}/{kind}?limit=1", token)[0]["total"] for kind in SIZES}
    call("POST", f"/domains/{domain}/roles", token,
         {"role_name": "visitor", "optional_actions": ["read"], "optional_members": [low_id, one_id]}, (409,))
    group = call("GET", f"/{domain}/groups?order=name&dir=asc&limit=1", token)[0]["groups"][0]["id"]
    call("POST", f"/{domain}/groups/{group}/roles", token,
         {"role_name": "lower", "optional_actions": ACTIONS, "optional_members": [low_id]}, (409,))
    channel = call("GET", f"/{domain}/channels?order=name&limit=1", token)[0]["channels"][0]["id"]
    call("POST", f"/{domain}/channels/{channel}/roles", token,
         {"role_name": "one", "optional_actions": ["read"], "optional_members": [one_id]}, (409,))

    def metadata(value):
        return "?metadata=" + urllib.parse.quote(json.dumps(value))

    def measure(name, who, kind, query):
        times, spent = [], []
        for _ in range(ROUNDS):
            before = server.cpu()
            answer, took = call("GET", f"/{domain}/{kind}{query()}", who)
            times.append(took)
            spent.append(server.cpu() - before)
        cpu = summary("", spent, 0)
        found.append(summary(f"{kind}: {name}", times, answer["total"]) | {"cpu_p50": cpu["p50"], "cpu_p99": cpu["p99"]})
        print("{call}: p50 {p50:.1f}, p99 {p99:.1f}, first {first:.1f} ms, CPU {cpu_p50:.1f}, {cpu_p99:.1f} ms"
              .format(**found[-1]), flush=True)

    for kind, most in sizes.items():
        any_of = lambda count: number(seed, count)

        def one_name():
            at = any_of(most)
            return f"?name=group%20{at}" if kind == "groups" else f"?name={kind[:-1]}-{at % 1000}-{at}"

        measure("first page", token, kind, lambda: "")
        measure("page of 100", token, kind, lambda: "?limit=100")
        measure("any page", token, kind, lambda: f"?offset={any_of(most)}")
        measure("any page, by name", token, kind, lambda: f"?order=name&offset={any_of(most)}")
        measure("last page", token, kind, lambda: f"?offset={most - 10}")
        measure("one name", token, kind, one_name)
        measure("rare part of names", token, kind, lambda: f"?name=-{any_of(1000)}-")
        measure("part of all names", token, kind, lambda: f"?name={kind[:4]}&offset={any_of(most)}")
        if kind != "groups":
            measure("one tag in 1000", token, kind, lambda: f"?tags=t{any_of(1000)}")
            measure("one tag in 1000, any page", token, kind,
                    lambda: f"?tags=t{any_of(1000)}&offset={any_of(most // 1000)}")
            measure("one tag in 2, any page", token, kind, lambda: f"?tags=half1&offset={any_of(most // 2)}")
            measure("two tags", token, kind, lambda: f"?tags=t{2 * any_of(500)}%2Bhalf0")
            measure("one value of metadata", token, kind, lambda: metadata({"serial": any_of(most)}))
            measure("a value of 1 in 500, any page", token, kind,
                    lambda: metadata({"site": {"hall": any_of(500)}}) + f"&offset={any_of(most // 500)}")
        measure("role on a root group, first page", low, kind, lambda: "")
        measure("role on a root group, any page", low, kind, lambda: f"?offset={any_of(most // 10)}")
        measure("role on a root group, one name", low, kind, lambda: f"?name=-{any_of(1000)}-")
    measure("role on one channel", one, "channels", lambda: "")
    measure("nothing visible", one, "clients", lambda: "")
    return sizes


def machine(arguments):
    cpu = [line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo", encoding="ascii") if line.startswith("model name")]
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False)
    return {"date": datetime.date.today().isoformat(), "commit": commit.stdout.strip(), "cpu": cpu[0], "cores": len(cpu),
            "kernel": platform.release(), "command": f"docs/performance/control_api.py measure --share {arguments.share:g}"}


def measure(arguments, database):
    temporary = None if arguments.keep else tempfile.TemporaryDirectory()
    folder = Path(arguments.keep or temporary.name) / database
    folder.mkdir(parents=True, exist_ok=True)
    os.chmod(folder.parent, 0o755)
    postgres = Postgres(folder / "server") if database == "postgres" else None
    server = Turnpike(folder, postgres and postgres.url())
    raw = {"machine": machine(arguments), "database": postgres.version if postgres else "SQLite", "fill": [], "lists": []}
    filled = folder / "filled.json"
    if filled.exists():
        raw["fill"] = json.loads(filled.read_text())
    else:
        fill(server, arguments.share, raw["fill"])
        filled.write_text(json.dumps(raw["fill"]))
    raw["sizes"] = lists(server, raw["lists"])
    raw["load"] = os.getloadavg()[0]
    server.stop()
    if postgres:
        postgres.stop()
    (HERE / f"control_api-{database}.json").write_text(json.dumps(raw, indent=1) + "\n")


def write():
    lines = []
    for database, title in DATABASES.items():
        source = HERE / f"control_api-{database}.json"
        if not source.exists():
            continue
        raw = json.loads(source.read_text())
        at, sizes = raw["machine"], raw["sizes"]
        missed = sum(row["p99"] >= BAR_MS for row in raw["lists"])
        count = lambda value: f"{value:,}".replace(",", " ")
        lines += [
            f"### {title}", "",
            f"{at['date']}, commit {at['commit']}; {at['cpu']}, {at['cores']} cores, kernel {at['kernel']}; {raw['database']}; "
            f"{', '.join(f'{count(size)} {kind}' for kind, size in sizes.items())}; one connection, load of the machine "
            f"at the end {raw['load']:.1f}; `{at['command']}`.", "",
            "| making | total | p50 ms | p99 ms | first ms | last ms |", "| --- | --- | --- | --- | --- | --- |",
            *["| {call} | {0} | {p50:.0f} | {p99:.0f} | {first:.0f} | {last:.0f} |".format(count(row["total"]), **row)
              for row in raw["fill"] if "p50" in row],
            *["| {call} | {seconds:.0f} s | | | | |".format(**row) for row in raw["fill"] if "seconds" in row], "",
            f"{len(raw['lists']) - missed} of {len(raw['lists'])} kinds of list are below {BAR_MS} ms at p99.", "",
            "| list | total | p50 ms | p99 ms | slowest ms | first ms | CPU p50 ms | CPU p99 ms |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
            *["| {call} | {0} | {p50:.1f} | {1} | {2:.1f} | {first:.1f} | {cpu_p50:.1f} | {cpu_p99:.1f} |".format(
                count(row["total"]), f"**{row['p99']:.1f}**" if row["p99"] >= BAR_MS else f"{row['p99']:.1f}",
                row.get("slowest", row["p99"]), **row)
              for row in raw["lists"]], "",
        ]
    page = PAGE.read_text()
    before, rest = page.split("<!-- control-api -->")
    behind = rest.split("<!-- /control-api -->")[1]
    PAGE.write_text(before + "<!-- control-api -->\n" + "\n".join(lines) + "<!-- /control-api -->" + behind)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["measure", "more", "write"])
    parser.add_argument("--database", default=",".join(DATABASES), help="which, with commas between them")
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--keep", metavar="DIR")
    arguments = parser.parse_args()
    if arguments.what == "more" and not arguments.keep:
        parser.error("more needs --keep DIR, with a domain that was measured")
    if arguments.what != "write":
        for database in arguments.database.split(","):
            if database not in DATABASES:
                parser.error(f"no database {database!r}; expected {' or '.join(DATABASES)}")
            {"measure": measure, "more": more}[arguments.what](arguments, database)
    if arguments.what != "more":
        write()


if __name__ == "__main__":
    main()
