#!/usr/bin/env python3
"""Measures what it costs that a message crosses from one shard to another (bar P8).

crossing.py measure [--rounds N] [--seconds S]
    starts Turnpike with two shards; ten pairs, each client with a right on the channel of its pair.
    A session's shard follows from its Client Identifier, so each client is given one that puts it
    where it is wanted: all pairs apart, or each pair together. Writes crossing.json and the table.
crossing.py write
    writes the table of docs/performance.md from crossing.json
"""

import argparse
import json
import re
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

import peers

RAW = peers.HERE / "crossing.json"
PAIRS = 10
SHAPES = {
    "bursts": ["--burst", "32", "--window", "1024"],
    "one message in flight each": [],
}


def packet(kind, *parts):
    body = b"".join(parts)
    length, rest = b"", len(body)
    while True:
        rest, low = divmod(rest, 128)
        length += bytes([low | (128 if rest else 0)])
        if not rest:
            return bytes([kind]) + length + body


def text(value):
    data = value.encode()
    return len(data).to_bytes(2, "big") + data


def connections():
    """How many connections each shard has."""
    with urllib.request.urlopen("http://127.0.0.1:2900/metrics", timeout=10) as answer:
        found = re.findall(r'^turnpike_shard_connections\{shard="\d+"\} (\d+)', answer.read().decode(), re.M)
    return [int(count) for count in found]


def settled(wanted):
    for _ in range(500):
        now = connections()
        if sum(now) == wanted:
            return now
        time.sleep(0.01)
    raise SystemExit(f"the broker tells of {now} connections, {wanted} are expected")


def shard_of(port, login, client_id):
    """Connects and looks where the connection is."""
    with socket.create_connection(("127.0.0.1", port), 5) as wire:
        wire.sendall(packet(0x10, text("MQTT"), b"\x04\xc2\x00\x00", text(client_id), text(login["id"]),
                            text(login["secret"])))
        if wire.recv(4)[3:] != b"\x00":
            raise SystemExit("the broker refuses a client that it made")
        at = settled(1).index(1)
        wire.sendall(b"\xe0\x00")
    settled(0)
    return at


def place(broker, file, wanted):
    """Writes a file of clients whose identifiers put client `n` on shard `wanted(n)`."""
    lines = (broker.work / "clients").read_text().splitlines()
    count = json.loads(lines[0])["clients"]
    for number in range(count):
        login = json.loads(lines[1 + number])
        tries = (f"at-{number}-{attempt}" for attempt in range(64))
        login["client_id"] = next(name for name in tries
                                  if shard_of(broker.port, login, name) == wanted(number))
        lines[1 + number] = json.dumps(login)
    file.write_text("\n".join(lines) + "\n")


def load(broker, shape, clients, seconds):
    result = broker.work / "result.json"
    command = [peers.TURNPIKE, "loadtest", "pairs", "--pairs", str(PAIRS), *SHAPES[shape], "--address",
               f"127.0.0.1:{broker.port}", *clients, "--pid", str(broker.process.pid), "--quiet", "--json",
               str(result), "--duration", str(seconds)]
    subprocess.run(command, check=True, capture_output=True)
    report = json.loads(result.read_text())
    return {"per_s": report["deliveries_per_s"], "cpu_us": report["broker"]["cpu_us_per_delivery"]}


def measure(arguments):
    runs = []
    with tempfile.TemporaryDirectory() as work:
        broker = peers.Broker("turnpike", work, {"TURNPIKE_SHARDS": "2"}, core=None)
        try:
            load(broker, "bursts", [*broker.target(), "--save-clients", str(broker.work / "clients")], 0.1)
            # Subscribers come first, so pair n is clients n and n + PAIRS.
            apart, together = broker.work / "apart", broker.work / "together"
            place(broker, apart, lambda number: (number + number // PAIRS) % 2)
            place(broker, together, lambda number: number % PAIRS % 2)
            for number in range(1, arguments.rounds + 1):
                for shape in SHAPES:
                    files = {"crossing": apart, "together": together}
                    for name in sorted(files, reverse=number % 2 == 0):
                        found = load(broker, shape, ["--clients-file", str(files[name])], arguments.seconds)
                        runs.append({"round": number, "shape": shape, "pairs": name, **found})
                        print(runs[-1], flush=True)
        finally:
            broker.stop()
    RAW.write_text(json.dumps({"machine": peers.machine(arguments), "runs": runs}, indent=1) + "\n")
    write()


def write():
    raw = json.loads(RAW.read_text())
    at, rows = raw["machine"], []
    for shape in SHAPES:
        rounds = {}
        for run in raw["runs"]:
            if run["shape"] == shape:
                rounds.setdefault(run["round"], {})[run["pairs"]] = run
        for figure, what, bar in [("per_s", "per second", 0.8), ("cpu_us", "CPU µs each", None)]:
            median = {name: statistics.median(one[name][figure] for one in rounds.values())
                      for name in ("together", "crossing")}
            ratios = [one["crossing"][figure] / one["together"][figure] for one in rounds.values()]
            ratio = statistics.median(ratios)
            rows.append([f"{PAIRS} pairs, {shape}", what, peers.number(median["together"]),
                         peers.number(median["crossing"]), f"≥ {bar}x" if bar else "",
                         f"**{ratio:.2f}x**", f"{min(ratios):.2f}–{max(ratios):.2f}",
                         ("holds" if ratio >= bar else "**missed**") if bar else ""])
    peers.put("crossing", [
        f"{at['date']}, commit {at['commit']}; {at['cpu']}, {at['cores']} cores; {at['rounds']} rounds of "
        f"{at['seconds']} s; load of the machine at the end {at['load']:.1f}; "
        f"`{at['command']}`.", "",
        *peers.table(["load", "what", "no pair crosses", "every pair crosses", "bar", "ratio", "rounds", ""], rows)])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["measure", "write"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    arguments = parser.parse_args()
    measure(arguments) if arguments.what == "measure" else write()


if __name__ == "__main__":
    main()
