#!/usr/bin/env python3
"""How cost grows: messages a second and CPU for each against one quantity at a time.

growth.py measure [--short] [--rounds N] [--seconds S] [--only payload,...] [--peers mosquitto,...]
    measures, and writes docs/performance/growth.json, the tables and the plots
growth.py write
    writes the tables of docs/performance.md and docs/performance/growth-*.svg from growth.json

Brokers, pinning and provisioning are those of peers.py; peers stand beside where the quantity means
something to them.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import peers

RAW = peers.HERE / "growth.json"


def pairs(count, window=64):
    return ["pairs", "--pairs", str(count), "--burst", "16", "--window", str(window)]


def payload(size):
    window = max(2, min(64, (1 << 20) // size))
    return ["pairs", "--pairs", "10", "--payload", str(size), "--burst", str(max(1, window // 4)),
            "--window", str(window)]


def channels(count):
    each = min(10, count)
    return ["pairs", "--pairs", str(each), "--topics", str(count), "--burst", "16", "--window", "64"]


def held(count):
    return ["connections", "--connections", str(count), "--hold", "1", "--keep-alive", "0", "--together",
            "2048", "--rate", "10000"]


def own_tables(count):
    """Descriptors of its own for each shard, which count as many connections as all of them."""
    own = {"TURNPIKE_OWN_DESCRIPTORS": "true", "TURNPIKE_SHARDS": str(min(60, count // 15000 + 1)),
           "TURNPIKE_LIMITS__MAX_CONNECTIONS": "1200000", "TURNPIKE_LIMITS__AUTH_TIMEOUT": "60s"}
    return own if count > 10000 else None


# Up to which value peers stand beside.
ALWAYS, NEVER = float("inf"), -1

# Name: text, unit, values, those of a short run, arguments of a load, up to which value peers stand
# beside, settings of Turnpike.
SERIES = {
    "payload": ("size of a payload", "bytes", [16, 64, 256, 1024, 4096, 16384, 65536, 262144],
                [16, 1024, 65536], payload, ALWAYS, None),
    "connections": ("pairs of connections", "pairs", [1, 10, 100, 1000, 5000], [1, 100, 1000],
                    pairs, ALWAYS, None),
    "held": ("connections held, each with its own channel; 10 000 messages a second to any of them",
             "connections", [10, 100, 1000, 10000, 100000, 1000000], [10, 1000], held, NEVER, own_tables),
    "subscribers": ("subscribers of a message", "subscribers", [1, 10, 100, 1000, 10000, 30000, 100000],
                    [1, 100, 1000],
                    lambda count: ["fan-out", "--subscribers", str(count), "--burst", "8", "--window", "32"],
                    10000, own_tables),
    "channels": ("channels in use, 10 pairs", "channels", [1, 10, 100, 1000, 10000], [1, 100, 1000],
                 channels, NEVER, {"TURNPIKE_LIMITS__MAX_SUBSCRIPTIONS_PER_CLIENT": "10000"}),
    "filters": ("filters of each subscriber of a channel", "filters", [0, 1, 4, 16, 64, 256],
                [0, 16, 64],
                lambda count: ["fan-out", "--subscribers", "100", "--filters", str(count), "--burst", "8",
                               "--window", "32"],
                NEVER, None),
    "shards": ("shards, 100 pairs", "shards", [1, 2], [1, 2], lambda count: pairs(100), NEVER,
               lambda count: {"TURNPIKE_SHARDS": str(count)}),
}


def measure(arguments):
    names = [name for name in peers.PEERS if name in arguments.peers.split(",")]
    peers.install(names)
    found = []
    only = arguments.only.split(",") if arguments.only else list(SERIES)
    for number in range(1, arguments.rounds + 1):
        for series in only:
            _, _, values, short, load, beside, settings = SERIES[series]
            for value in short if arguments.short else values:
                for subject in ["turnpike", *(names if value <= beside else [])]:
                    own = settings(value) if callable(settings) else settings
                    with tempfile.TemporaryDirectory() as work:
                        core = None if series == "shards" or (own or {}).get("TURNPIKE_OWN_DESCRIPTORS") else "0"
                        broker = peers.Broker(subject, work, own if subject == "turnpike" else None, core)
                        try:
                            result = peers.measure_one(broker, series, load(value), arguments.seconds)
                        finally:
                            broker.stop()
                    found.append({"round": number, "series": series, "value": value,
                                  "subject": subject, **result})
                    print(number, series, value, subject, peers.figures(result)[:160], flush=True)
    before = json.loads(RAW.read_text())["runs"] if RAW.exists() and arguments.only else []
    kept = [run for run in before if run["series"] not in only]
    RAW.write_text(json.dumps({"machine": peers.machine(arguments), "runs": kept + found}, indent=1) + "\n")
    write()


# What is drawn where the rate is given: its key and its name.
DRAWN = {"held": ("cpu_us_per_delivery", "CPU µs of a message")}
USUAL = ("deliveries_per_s", "deliveries per second")
COLOURS = {"turnpike": "#0a6", "mosquitto": "#c33", "nats-server": "#36c", "rumqttd": "#b80"}


def plot(series, unit, figure, lines):
    """Both axes are logarithmic."""
    import math

    width, height, left, top, right, bottom = 560, 280, 80, 20, 110, 36
    points = [point for line in lines.values() for point in line]
    xs = [math.log10(max(x, 0.5)) for x, _ in points]
    ys = [math.log10(y) for _, y in points]
    low_x, high_x = min(xs), max(max(xs), min(xs) + 0.1)
    low_y, high_y = math.floor(min(ys)), math.ceil(max(ys) + 1e-9)
    x = lambda value: left + (math.log10(max(value, 0.5)) - low_x) / (high_x - low_x) * (width - left - right)
    y = lambda value: height - bottom - (math.log10(value) - low_y) / (high_y - low_y) * (height - top - bottom)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
           'font-family="sans-serif" font-size="11">',
           f'<rect width="{width}" height="{height}" fill="#fff"/>',
           f'<text x="{left}" y="13">{figure} by {unit}</text>']
    for power in range(low_y, high_y + 1):
        at = y(10**power)
        out.append(f'<line x1="{left}" x2="{width - right}" y1="{at:.1f}" y2="{at:.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{left - 6}" y="{at + 4:.1f}" text-anchor="end">{10**power:,}</text>'.replace(",", " "))
    for value in sorted({point[0] for point in points}):
        out.append(f'<text x="{x(value):.1f}" y="{height - 18}" text-anchor="middle">{value}</text>')
    out.append(f'<text x="{(left + width - right) / 2}" y="{height - 4}" text-anchor="middle">{unit}</text>')
    for place, (name, line) in enumerate(lines.items()):
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in line)
        out.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"/>')
        out.append(f'<text x="{width - right + 8}" y="{top + 16 * place + 10}" fill="{COLOURS[name]}">{name}</text>')
    (peers.HERE / f"growth-{series}.svg").write_text("\n".join(out) + "\n</svg>\n")


def write():
    raw = json.loads(RAW.read_text())
    at = raw["machine"]
    lines = [f"{at['date']}, commit {at['commit']}; {at['cpu']}, {at['cores']} cores, kernel {at['kernel']}, loopback; "
             f"{at['rounds']} rounds of {at['seconds']} s; load of the machine at the end {at['load']:.1f}; "
             f"`{at['command']}`.", ""]
    for series, (text, unit, *_) in SERIES.items():
        runs = [run for run in raw["runs"] if run["series"] == series and "error" not in run
                and run.get("delivered")]
        if not runs:
            continue
        subjects = [name for name in ["turnpike", *peers.PEERS] if any(run["subject"] == name for run in runs)]
        drawn = {name: [] for name in subjects}
        key_drawn, figure = DRAWN.get(series, USUAL)
        rows = []
        for value in sorted({run["value"] for run in runs}):
            row = [f"{value}"]
            for name in subjects:
                same = [run for run in runs if run["value"] == value and run["subject"] == name]
                if same:
                    median = {key: statistics.median(run[key] for run in same)
                              for key in ("deliveries_per_s", "cpu_us_per_delivery")}
                    row += [peers.number(median["deliveries_per_s"]), f"{median['cpu_us_per_delivery']:.3g}"]
                    if median[key_drawn] > 0:
                        drawn[name].append((value, median[key_drawn]))
                else:
                    row += ["–", "–"]
            rows.append(row)
        heads = [unit]
        for name in subjects:
            heads += [f"{name} per second", "CPU µs each"]
        lines += [f"### By {text}", "", *peers.table(heads, rows), ""]
        plot(series, unit, figure, {name: line for name, line in drawn.items() if line})
        lines += [f"![{figure} by {text}](performance/growth-{series}.svg)", ""]
    peers.put("growth", "\n".join(lines).rstrip().split("\n"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["measure", "write"])
    parser.add_argument("--short", action="store_true", help="1 round of half a second, few values")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--only", default="", help="series, with commas between them")
    parser.add_argument("--peers", default=",".join(peers.PEERS))
    arguments = parser.parse_args()
    if arguments.short:
        arguments.rounds, arguments.seconds = 1, 0.5
    if arguments.what == "measure":
        measure(arguments)
    else:
        write()


if __name__ == "__main__":
    main()
