#!/usr/bin/env python3
"""Measures Turnpike's MQTT doors beside mosquitto's: TCP, TLS, WebSocket.

doors.py measure [--short] [--rounds N] [--seconds S] [--only tls,ws]
    installs mosquitto if it is missing, measures, and writes docs/performance/doors.json and the table
doors.py write
    writes the table of docs/performance.md from docs/performance/doors.json

Each broker runs pinned to core 0, the load generator to core 1. Within a round each door meets both
brokers one after the other, and who is first changes; ratios are taken within a round, and their
medians over the rounds. Both have the same certificate of P-256 and speak TLS 1.3.

Turnpike's clients log in, each as its own client with a right on its own channel; mosquitto's are
anonymous, which is less work.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path

from peers import (PAGE, PREFIX, ROOT, TURNPIKE, Broker, figures, install, machine, measure_one,
                   number, run, table, where)

RAW = Path(__file__).resolve().parent / "doors.json"
SUBJECTS = ["turnpike", "mosquitto"]

# Name: text, scheme of the address, and the port behind that of the broker.
DOORS = {
    "tcp": ("TCP", "mqtt", 0),
    "tls": ("TLS 1.3", "mqtts", 10),
    "ws": ("WebSocket", "ws", 20),
}
LOADS = {
    "saturated": ("pairs 10 → 10, QoS 0, as fast as it goes",
                  ["pairs", "--pairs", "10", "--burst", "32", "--window", "1024"]),
    "single": ("pairs 10 → 10, QoS 0, one message in flight each",
               ["pairs", "--pairs", "10", "--burst", "1", "--window", "1"]),
}
# Saturated TLS and WebSocket have a bar; the rest is told.
BARS = {("tls", "saturated"): 2, ("ws", "saturated"): 2}


class Doors(Broker):
    """A broker with all doors. (Debian's mosquitto opens no WebSockets in TLS.)"""

    def __init__(self, name, work):
        certificate(Path(work))
        super().__init__(name, work)

    def port_of(self, door):
        return self.port + DOORS[door][2]

    def turnpike(self):
        command, settings = super().turnpike()
        for listener, door in [("MQTTS", "tls"), ("WS", "ws")]:
            key = f"TURNPIKE_LISTENERS__{listener}__"
            settings[key + "ADDRESS"] = f"127.0.0.1:{self.port_of(door)}"
            if door == "tls":
                settings[key + "CERTIFICATE"] = str(self.work.parent / "server.pem")
                settings[key + "KEY"] = str(self.work.parent / "server.key")
                settings[key + "MIN_VERSION"] = "1.3"
        settings["TURNPIKE_LISTENERS__WS__ENABLED"] = "true"
        settings["TURNPIKE_SHARDS"] = "1"
        return command, settings

    def mosquitto(self):
        command, settings = super().mosquitto()
        conf = (self.work / "conf").read_text()
        conf += (f"listener {self.port_of('tls')} 127.0.0.1\ntls_version tlsv1.3\n"
                 f"certfile {self.work.parent}/server.pem\nkeyfile {self.work.parent}/server.key\n"
                 f"listener {self.port_of('ws')} 127.0.0.1\nprotocol websockets\n")
        (self.work / "conf").write_text(conf)
        return command, settings

    def wait(self, out):
        """Until each door is open: mosquitto opens them one after the other."""
        own = self.port
        for door in DOORS:
            self.port = own + DOORS[door][2]
            super().wait(out)
        self.port = own

    def target_of(self, door):
        address = ["--address", f"{DOORS[door][1]}://127.0.0.1:{self.port_of(door)}", "--tls-insecure"]
        if self.name == "turnpike":
            return [*address, "--credentials", str(self.work / "out"), "--provision"]
        return [*address, "--topic-prefix", PREFIX]


def certificate(folder):
    if not (folder / "server.pem").exists():
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
             "-keyout", str(folder / "server.key"), "-out", str(folder / "server.pem")],
            check=True, capture_output=True)
        # mosquitto gives up its rights before it reads them.
        os.chmod(folder, 0o755)
        os.chmod(folder / "server.key", 0o644)


def measure(arguments):
    install(["mosquitto"])
    if not os.access(TURNPIKE, os.X_OK):
        run(["cargo", "build", "--release", "--locked"], cwd=ROOT)
    doors = [door for door in DOORS if not arguments.only or door in arguments.only.split(",")]
    found = []
    for round_ in range(1, arguments.rounds + 1):
        for at, door in enumerate(doors):
            for load, (_, command) in LOADS.items():
                shift = (at + round_) % 2
                for subject in SUBJECTS[shift:] + SUBJECTS[:shift]:
                    with tempfile.TemporaryDirectory() as work:
                        broker = Doors(subject, work)
                        try:
                            broker.target = lambda: broker.target_of(door)
                            result = measure_one(broker, load, command, arguments.seconds)
                        finally:
                            broker.stop()
                    found.append({"round": round_, "door": door, "load": load, "subject": subject, **result})
                    print(round_, door, load, subject, figures(result), flush=True)
        RAW.write_text(json.dumps({"machine": machine(arguments), "runs": found}, indent=1) + "\n")
    write()


def write():
    raw = json.loads(RAW.read_text())
    runs, at = raw["runs"], raw["machine"]
    rows = []
    for load, (text, _) in LOADS.items():
        for door, (name, _, _) in DOORS.items():
            rounds = {}
            for one in runs:
                if (one["door"], one["load"]) == (door, load) and "error" not in one:
                    rounds.setdefault(one["round"], {})[one["subject"]] = one
            both = [one for one in rounds.values() if len(one) == len(SUBJECTS)]
            if not both:
                continue

            def median(subject, figure):
                return statistics.median(one[subject][figure] for one in both)

            def ratio(figure):
                return statistics.median(one["turnpike"][figure] / one["mosquitto"][figure] for one in both)

            rate, cpu, bar = ratio("deliveries_per_s"), ratio("cpu_us_per_delivery"), BARS.get((door, load))
            verdict = "" if bar is None else f"≥ {bar}x " + ("holds" if rate >= bar else "**missed**")
            rows.append([
                text, name,
                *[number(median(subject, "deliveries_per_s")) for subject in SUBJECTS], f"**{rate:.2f}x**",
                *[number(median(subject, "cpu_us_per_delivery")) for subject in SUBJECTS], f"**{cpu:.2f}x**",
                verdict,
            ])
    lines = [
        f"{at['date']}, commit {at['commit']}; {at['cpu']}, {at['cores']} cores, kernel {at['kernel']}, loopback; "
        f"{at['versions']['mosquitto']}; {at['rounds']} interleaved rounds of {at['seconds']} s; load of the "
        f"machine at the end {at['load']:.1f}; `{at['command']}`.",
        "",
        *table(["load", "door", "turnpike /s", "mosquitto /s", "ratio", "turnpike CPU µs", "mosquitto CPU µs",
                "ratio", "bar"], rows),
    ]
    faults = sorted({f"{run_['subject']}, {run_['door']}, {run_['load']}: {run_['error'].splitlines()[-1]}"
                     for run_ in runs if run_.get("error")})
    if faults:
        lines += ["", "Runs with a fault, which no ratio is taken against:", "", *[f"- {fault}" for fault in faults]]
    page = PAGE.read_text()
    before, rest = page.split("<!-- doors -->")
    behind = rest.split("<!-- /doors -->")[1]
    PAGE.write_text(before + "<!-- doors -->\n" + "\n".join(lines) + "\n<!-- /doors -->" + behind)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["measure", "write"])
    parser.add_argument("--short", action="store_true", help="1 round of 1 second")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--only", default="", help="doors, with commas between them")
    arguments = parser.parse_args()
    if arguments.short:
        arguments.rounds, arguments.seconds = 1, 1
    if arguments.what == "measure":
        measure(arguments)
    else:
        write()


if __name__ == "__main__":
    main()
