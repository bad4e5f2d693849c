#!/usr/bin/env python3
"""From what measure.sh measured to the tables of docs/performance.md.

tables.py collect FOLDER ROUNDS SECONDS   gathers the results of a run into docs/performance/*.json
tables.py write                           writes the tables between the marks of docs/performance.md
"""

import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent / "performance.md"

LOADS = {
    "pairs": "100 pairs, one message in flight each",
    "pairs-16": "100 pairs, bursts of 16",
    "fan-in": "100 publishers, 1 subscriber, one message in flight each",
    "fan-out": "1 publisher, 500 subscribers, one message at a time",
    "fan-out-8": "1 publisher, 500 subscribers, bursts of 8",
}
SUBJECTS = ["mosquitto", "turnpike", "relay"]

# Bar, load, what is compared, with whom, the bar itself: ("<=" or ">=", number).
BARS = [
    ("P1", "pairs", "cpu", "mosquitto", ("<=", 0.60)),
    ("P1", "pairs", "rate", "mosquitto", (">=", 1.5)),
    ("P2", "pairs-16", "rate", "mosquitto", (">=", 15)),
    ("P2", "pairs-16", "cpu", "mosquitto", ("<=", 0.06)),
    ("P3", "fan-in", "rate", "mosquitto", (">=", 2.2)),
    ("P3", "fan-in", "cpu", "mosquitto", ("<=", 0.42)),
    ("P4", "fan-out", "rate", "mosquitto", (">=", 4)),
    ("P5", "fan-out-8", "rate", "mosquitto", (">=", 20)),
    ("P6", "pairs", "cpu", "relay", ("<=", 1.20)),
    ("P6", "pairs-16", "cpu", "relay", ("<=", 1.20)),
    ("P6", "fan-in", "cpu", "relay", ("<=", 1.20)),
    ("P6", "fan-out", "cpu", "relay", ("<=", 1.20)),
]
CALLS = {"pairs": 2.2, "pairs-16": 0.20, "fan-in": 1.5, "fan-out": 1.05}
WHAT = {"cpu": "CPU per delivery", "rate": "deliveries per second"}


def figure(report, what):
    if what == "cpu":
        return report["broker"]["cpu_us_per_delivery"]
    return report["deliveries_per_s"]


def calls_in(path):
    for line in path.read_text().splitlines():
        if line.endswith("total"):
            numbers = re.findall(r"\d+(?:\.\d+)?", line)
            # % time, seconds, usecs/call, calls, [errors]
            return int(numbers[3])
    raise SystemExit(f"{path}: no total")


def collect(folder, rounds, seconds):
    folder = Path(folder)
    for load in LOADS:
        found = []
        for number in range(1, rounds + 1):
            for subject in SUBJECTS:
                path = folder / f"{load}.{subject}.{number}.json"
                report = json.loads(path.read_text())
                found.append({"round": number, "subject": subject, "report": report})
        (HERE / f"{load}.json").write_text(json.dumps(found, indent=1) + "\n")
    found = []
    for load in CALLS:
        for subject in ["mosquitto", "turnpike"]:
            runs = []
            for path in folder.glob(f"{load}.{subject}.*.calls"):
                report = json.loads(path.with_suffix(".calls.json").read_text())
                runs.append({"deliveries": report["delivered"], "calls": calls_in(path)})
            runs.sort(key=lambda run: run["deliveries"])
            found.append({"load": load, "subject": subject, "runs": runs})
    (HERE / "calls.json").write_text(json.dumps(found, indent=1) + "\n")
    cpu = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    version = subprocess.run(["mosquitto", "-h"], capture_output=True, text=True).stdout
    machine = {
        "date": datetime.date.today().isoformat(),
        "commit": subprocess.run(
            ["git", "describe", "--always", "--dirty"], capture_output=True, text=True
        ).stdout.strip(),
        "cpu": cpu.group(1) if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "mosquitto": version.split("\n")[0].replace("mosquitto version ", ""),
        "rounds": rounds,
        "seconds": seconds,
    }
    (HERE / "machine.json").write_text(json.dumps(machine, indent=1) + "\n")


def rounds_of(load):
    rounds = {}
    for one in json.loads((HERE / f"{load}.json").read_text()):
        rounds.setdefault(one["round"], {})[one["subject"]] = one["report"]
    return rounds


def table(heads, rows):
    lines = ["| " + " | ".join(heads) + " |", "| " + " | ".join("---" for _ in heads) + " |"]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def number(value):
    if value >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.2f}"


def bars():
    rows = []
    for name, load, what, other, (sign, bar) in BARS:
        ratios = [
            figure(one["turnpike"], what) / figure(one[other], what)
            for one in rounds_of(load).values()
        ]
        median = statistics.median(ratios)
        floor = "–"
        if other != "relay":
            relays = [
                figure(one["relay"], what) / figure(one[other], what)
                for one in rounds_of(load).values()
            ]
            floor = f"{statistics.median(relays):.2f}x"
        holds = median <= bar if sign == "<=" else median >= bar
        rows.append(
            [
                name,
                LOADS[load],
                f"{WHAT[what]}, against {'a bare relay' if other == 'relay' else other}",
                f"{'≤' if sign == '<=' else '≥'} {bar:g}x",
                f"**{median:.2f}x**",
                f"{min(ratios):.2f}–{max(ratios):.2f}",
                floor,
                "holds" if holds else "**missed**",
            ]
        )
    return table(["", "load", "what", "bar", "median", "rounds", "a bare relay", ""], rows)


def absolutes():
    rows = []
    for load, text in LOADS.items():
        rounds = rounds_of(load).values()
        for subject in SUBJECTS:
            reports = [one[subject] for one in rounds]
            median = lambda take: statistics.median(take(report) for report in reports)
            latency = "–"
            if all(report["latency"] for report in reports):
                p50 = median(lambda report: report["latency"]["p50_us"])
                p99 = median(lambda report: report["latency"]["p99_us"])
                latency = f"{p50:.0f} / {p99:.0f}"
            rows.append(
                [
                    text if subject == SUBJECTS[0] else "",
                    subject,
                    number(median(lambda report: report["deliveries_per_s"])),
                    number(median(lambda report: report["broker"]["cpu_us_per_delivery"])),
                    number(median(lambda report: report["broker"]["user_us_per_delivery"])),
                    number(median(lambda report: report["broker"]["cores"])),
                    number(median(lambda report: report["own_cpu_us_per_delivery"])),
                    latency,
                ]
            )
    heads = [
        "load",
        "",
        "deliveries/s",
        "CPU µs each",
        "of it user space",
        "cores used",
        "load generator µs",
        "latency µs p50 / p99",
    ]
    return table(heads, rows)


def calls():
    found = {}
    for one in json.loads((HERE / "calls.json").read_text()):
        short, long = one["runs"][0], one["runs"][-1]
        each = (long["calls"] - short["calls"]) / (long["deliveries"] - short["deliveries"])
        found[one["load"], one["subject"]] = each
    rows = []
    for load, bar in CALLS.items():
        each = found[load, "turnpike"]
        holds = "holds" if each <= bar else "**missed**"
        other = f"{found[load, 'mosquitto']:.2f}"
        rows.append(["P7", LOADS[load], f"≤ {bar:g}", f"**{each:.2f}**", other, holds])
    return table(["", "load", "bar", "turnpike", "mosquitto", ""], rows)


def write():
    machine = json.loads((HERE / "machine.json").read_text())
    parts = {
        "machine": [
            f"{machine['date']}, commit {machine['commit']}; {machine['cpu']}, "
            f"{machine['cores']} cores, kernel {machine['kernel']}, loopback; "
            f"mosquitto {machine['mosquitto']}; "
            f"{machine['rounds']} interleaved rounds of {machine['seconds']} s."
        ],
        "bars": bars(),
        "calls": calls(),
        "absolutes": absolutes(),
    }
    page = PAGE.read_text()
    for name, lines in parts.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, rest = page.split(begin)
        behind = rest.split(end)[1]
        page = before + begin + "\n" + "\n".join(lines) + "\n" + end + behind
    PAGE.write_text(page)


if __name__ == "__main__":
    if sys.argv[1:2] == ["collect"]:
        collect(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
    elif sys.argv[1:2] == ["write"]:
        write()
    else:
        raise SystemExit(__doc__)
