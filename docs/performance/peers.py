#!/usr/bin/env python3
"""Measures Turnpike beside mosquitto, nats-server and rumqttd, interleaved, on this machine.

peers.py measure [--short] [--rounds N] [--seconds S] [--only w1,w4] [--peers mosquitto,...]
    installs what is missing, measures, and writes docs/performance/peers.json and the table
peers.py write
    writes the table of docs/performance.md from docs/performance/peers.json

Debian's mosquitto and nats-server come from apt, rumqttd 0.20 from cargo (without its lock file) into
$PEERS_DIR or ~/.cache/turnpike-peers. Each broker runs pinned to core 0, the load generator to
core 1. Within a round each load meets all brokers one after the other; ratios are taken within a
round against the best of the peers, and their medians over the rounds.

Turnpike's clients log in, each as its own client with a right on its own channel, in a domain that
each run makes for itself; the others serve anonymous clients, which is less work.
"""

import argparse
import datetime
import json
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RAW = HERE / "peers.json"
PAGE = ROOT / "docs" / "performance.md"
STORE = Path(os.environ.get("PEERS_DIR", Path.home() / ".cache/turnpike-peers"))
TURNPIKE = os.environ.get("TURNPIKE", str(ROOT / "target/release/turnpike"))
RUMQTTD = "0.20.0"
PEERS = ["mosquitto", "nats-server", "rumqttd"]
# A topic as long as those of Turnpike's channels, for the others.
PREFIX = "m/0190a0b0-1111-7111-8111-111111111111/c/0190a0b0-1111-7111-8111-222222222222"

# Name: text, arguments, bars as (figure, sign, ratio to the best peer).
FAST = [("rate", ">=", 2.5), ("cpu", "<=", 0.35)]
LOADS = {
    "w1": ("pairs 10 → 10, QoS 0, as fast as it goes",
           ["pairs", "--pairs", "10", "--burst", "32", "--window", "1024"], FAST),
    "w2": ("fan-in 50 → 1, QoS 0",
           ["fan-in", "--publishers", "50", "--burst", "16", "--window", "128"], FAST),
    "w3": ("fan-out 1 → 500, QoS 0",
           ["fan-out", "--subscribers", "500", "--burst", "8", "--window", "32"],
           [("rate", ">=", 1.5), ("cpu", "<=", 0.45)]),
    "w4": ("pairs 10 → 10, QoS 1, 100 in flight",
           ["pairs", "--pairs", "10", "--qos", "1", "--burst", "10", "--window", "100"],
           [("rate", ">=", 2), ("cpu", "<=", 0.45)]),
    "w5": ("pairs 10 → 10, QoS 2, 100 in flight",
           ["pairs", "--pairs", "10", "--qos", "2", "--burst", "10", "--window", "100"],
           [("rate", ">=", 2), ("cpu", "<=", 0.5)]),
    "w6": ("pairs 10 → 10, QoS 0, 4 KiB",
           ["pairs", "--pairs", "10", "--payload", "4096", "--burst", "8", "--window", "64"],
           [("rate", ">=", 1.5), ("cpu", "<=", 0.6)]),
    "w7": ("idle connection with one subscription",
           ["connections", "--connections", "2000", "--hold", "1", "--keep-alive", "0"],
           [("bytes", "<=", 640)]),
    "w8": ("connect, subscribe, disconnect",
           ["churn", "--clients", "1000", "--together", "64"],
           [("rate", ">=", 1.5), ("cpu", "<=", 0.7)]),
    "w9 QoS 0": ("paced 20 000/s, QoS 0",
                 ["pairs", "--pairs", "10", "--rate", "20000"],
                 [("cpu", "<=", 0.6), ("p99", "<=", 1)]),
    "w9 QoS 1": ("paced 20 000/s, QoS 1",
                 ["pairs", "--pairs", "10", "--rate", "20000", "--qos", "1"],
                 [("cpu", "<=", 0.6), ("p99", "<=", 1)]),
}
# What Turnpike is measured with besides: against its own plain run.
EXTRA = {
    "wildcards": ("fan-out 1 → 500, 10 filters with wildcards each", "w3",
                  LOADS["w3"][1] + ["--filters", "10"]),
    "MQTT 5": ("pairs 10 → 10, MQTT 5 with 2 User Properties", "w1",
               LOADS["w1"][1] + ["--mqtt", "5", "--properties", "2"]),
    "group": ("shared subscription of 50, 10 publishers", "w1",
              ["shared", "--publishers", "10", "--members", "50", "--burst", "32",
               "--window", "1024"]),
}
EXTRA_BAR = 1.3
# Turnpike holds more in w7: what identities and rights leave behind when they are asked for is
# megabytes, whatever the number of connections.
MANY = {"--connections": "100000", "--together": "2048"}
MANY_SHARDS = {"TURNPIKE_OWN_DESCRIPTORS": "true", "TURNPIKE_SHARDS": "16"}
# QoS 2 is not spoken by nats-server 2.9; rumqttd stops answering before it holds 2000 connections.
LEFT_OUT = {("w5", "nats-server"), ("w7", "rumqttd")}


def run(command, **options):
    return subprocess.run(command, check=True, **options)


def install(peers):
    wanted = [name for name in ("mosquitto", "nats-server") if name in peers and not where(name)]
    if wanted:
        run(["apt-get", "update", "-qq"])
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *wanted], env=env)
    if "rumqttd" in peers and not where("rumqttd"):
        STORE.mkdir(parents=True, exist_ok=True)
        run(["cargo", "install", "--quiet", "rumqttd", "--version", RUMQTTD,
             "--root", str(STORE / "rumqttd"), "--target-dir", str(STORE / "target")])
        shutil.rmtree(STORE / "target", ignore_errors=True)


def where(name):
    if name == "rumqttd":
        own = STORE / "rumqttd/bin/rumqttd"
        return str(own) if own.exists() else None
    return shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")


class Broker:
    """One running broker."""

    def __init__(self, name, work, settings=None, core="0", demo=False):
        self.name, self.work = name, Path(work) / name
        self.work.mkdir()
        self.port = {"turnpike": 2883, "mosquitto": 2884, "nats-server": 2886, "rumqttd": 2887}[name]
        command, environment = getattr(self, name.replace("-server", ""))()
        if demo and "--no-demo" in command:
            command.remove("--no-demo")
        self.command = [*(["taskset", "-c", core] if core else []), *command]
        self.environment = {**os.environ, **environment, **(settings or {})}
        self.start("out")

    def start(self, out):
        self.process = subprocess.Popen(
            self.command, env=self.environment, cwd=self.work,
            stdout=open(self.work / out, "wb"), stderr=open(self.work / "err", "ab"))
        self.wait(out)

    def turnpike(self):
        limits = {"TURNPIKE_LIMITS__RECEIVE_MAXIMUM": "100", "TURNPIKE_LIMITS__MAX_INFLIGHT_OUT": "100",
                  "TURNPIKE_LISTENERS__WS__ENABLED": "false", "TURNPIKE_LISTENERS__HTTP__ENABLED": "false"}
        return [TURNPIKE, "serve", "--data-dir", "data", "--json", "--no-demo", "--mqtt-address",
                f"127.0.0.1:{self.port}", "--api-address", "127.0.0.1:2900"], limits

    def mosquitto(self):
        (self.work / "conf").write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_dest none\n"
            "set_tcp_nodelay true\nmax_inflight_messages 100\nmax_queued_messages 0\n")
        return [where("mosquitto"), "-c", "conf"], {}

    def nats(self):
        (self.work / "conf").write_text(
            f'server_name: peer\nlisten: "127.0.0.1:2896"\njetstream {{ store_dir: "{self.work}/js" }}\n'
            f'mqtt {{ host: "127.0.0.1", port: {self.port}, max_ack_pending: 100 }}\n')
        return [where("nats-server"), "-c", "conf"], {}

    def rumqttd(self):
        (self.work / "conf.toml").write_text(
            "id = 0\n[router]\nid = 0\nmax_connections = 20000\nmax_outgoing_packet_count = 200\n"
            "max_segment_size = 104857600\nmax_segment_count = 10\n"
            f'[v4.1]\nname = "v4-1"\nlisten = "127.0.0.1:{self.port}"\nnext_connection_delay_ms = 0\n'
            "[v4.1.connections]\nconnection_timeout_ms = 60000\nmax_payload_size = 1048576\n"
            "max_inflight_count = 100\ndynamic_filters = true\n")
        return [where("rumqttd"), "-q", "-c", "conf.toml"], {}

    def wait(self, out):
        import socket
        for _ in range(100):
            if self.process.poll() is not None:
                raise SystemExit(f"{self.name} ended: {(self.work / 'err').read_text()[-2000:]}")
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                # Turnpike says who may connect a moment after it listens.
                if self.name != "turnpike" or (self.work / out).read_text().endswith("\n"):
                    return
            except OSError:
                pass
            time.sleep(0.1)
        raise SystemExit(f"{self.name} does not listen")

    def target(self):
        if self.name == "turnpike":
            return ["--credentials", str(self.work / "out"), "--provision"]
        return ["--address", f"127.0.0.1:{self.port}", "--topic-prefix", PREFIX]

    def known_clients(self, arguments):
        """Makes clients, starts anew and has them connect and stay: what is known of a client comes
        in with its first connection, so those that come beside them show what a connection costs."""
        clients, held = self.work / "clients", list(arguments)
        load = ["taskset", "-c", "1", TURNPIKE, "loadtest"]
        run([*load, *arguments, *self.target(), "--save-clients", str(clients), "--quiet"],
            capture_output=True)
        self.stop()
        self.start("again")
        count = arguments[arguments.index("--connections") + 1]
        target = ["--address", f"127.0.0.1:{self.port}", "--clients-file", str(clients)]
        held[held.index("--hold") + 1] = "120"
        holder = subprocess.Popen([*load, *held, *target, "--quiet"], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        for _ in range(1200):
            with urllib.request.urlopen("http://127.0.0.1:2900/metrics", timeout=10) as answer:
                found = re.search(r"^turnpike_subscriptions (\d+)", answer.read().decode(), re.M)
            if found and int(found.group(1)) >= int(count):
                time.sleep(15)  # What was needed for a moment only is given back by then.
                return holder, [*target, "--beside", count]
            if holder.poll() is not None:
                break
            time.sleep(0.1)
        holder.kill()
        raise SystemExit("the first connections were not made")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def measure_one(broker, load, arguments, seconds):
    result = broker.work / "result.json"
    result.unlink(missing_ok=True)
    target, holder = broker.target(), None
    if load == "w7" and broker.name == "turnpike":
        arguments = list(arguments)
        for flag, value in MANY.items():
            if flag in arguments:
                arguments[arguments.index(flag) + 1] = value
            else:
                arguments += [flag, value]
        holder, target = broker.known_clients(arguments)
    try:
        return measured(broker, result, arguments, target, seconds)
    finally:
        if holder:
            holder.kill()
            holder.wait()


def measured(broker, result, arguments, target, seconds):
    command = ["taskset", "-c", "1", TURNPIKE, "loadtest", *arguments, *target, "--pid",
               str(broker.process.pid), "--quiet", "--json", str(result)]
    if arguments[0] != "connections" or "--rate" in arguments:
        command += ["--duration", str(seconds)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    except subprocess.TimeoutExpired:
        return {"error": "it took longer than 20 minutes"}
    if not result.exists() or not result.read_text():
        return {"error": done.stderr.strip()[-500:]}
    report = json.loads(result.read_text())
    kept = {}
    for name in ("deliveries_per_s", "connections_per_s", "rss_bytes_per_connection",
                 "cpu_us_per_connection", "own_cores", "verdict", "published", "delivered", "failed"):
        if report.get(name) is not None:
            kept[name] = report[name]
    if report.get("broker"):
        kept["cpu_us_per_delivery"] = report["broker"]["cpu_us_per_delivery"]
        kept["broker_cores"] = report["broker"]["cores"]
    latency, traffic = report.get("latency"), report.get("traffic")
    if traffic:
        latency = traffic["latency"]
        kept["delivered"] = traffic["delivered"]
        kept["deliveries_per_s"] = traffic["delivered"] / traffic["seconds"]
        if traffic["broker_cores"] and traffic["delivered"]:
            kept["cpu_us_per_delivery"] = traffic["broker_cores"] * 1e6 / kept["deliveries_per_s"]
    if latency:
        kept["p50_us"], kept["p99_us"] = latency["p50_us"], latency["p99_us"]
    if done.returncode:
        kept["error"] = done.stderr.strip()[-500:]
    return kept


def measure(arguments):
    peers = [name for name in PEERS if name in arguments.peers.split(",")]
    install(peers)
    if not os.access(TURNPIKE, os.X_OK):
        run(["cargo", "build", "--release", "--locked"], cwd=ROOT)
    loads = {name: load for name, load in LOADS.items()
             if not arguments.only or name.split()[0] in arguments.only.split(",")}
    found = []
    before = json.loads(RAW.read_text())["runs"] if RAW.exists() and arguments.only else []
    again = {*loads, *(extra for extra, (_, base, _) in EXTRA.items() if base in loads)}
    kept = [run for run in before if run["load"] not in again]
    for number in range(1, arguments.rounds + 1):
        for at, (name, (_, command, _)) in enumerate(loads.items()):
            names = ["turnpike", *peers]
            # Who is first changes.
            shift = (at + number) % len(names)
            for subject in names[shift:] + names[:shift]:
                if (name, subject) in LEFT_OUT:
                    continue
                many = name == "w7" and subject == "turnpike"
                if many and number > 1:
                    continue
                # A broker of its own for each run: what an earlier one left in memory is not there.
                with tempfile.TemporaryDirectory() as work:
                    broker = Broker(subject, work, MANY_SHARDS if many else None)
                    try:
                        result = measure_one(broker, name, command, arguments.seconds)
                        extras = EXTRA.items() if subject == "turnpike" else []
                        found.append({"round": number, "load": name, "subject": subject, **result})
                        print(number, name, subject, figures(result), flush=True)
                        for extra, (_, base, more) in extras:
                            if base == name:
                                result = measure_one(broker, extra, more, arguments.seconds)
                                found.append({"round": number, "load": extra, "subject": subject, **result})
                                print(number, extra, subject, figures(result), flush=True)
                    finally:
                        broker.stop()
        # After each round: a run that is ended early has its whole rounds.
        RAW.write_text(json.dumps({"machine": machine(arguments), "runs": kept + found}, indent=1) + "\n")
    write()


def figures(result):
    parts = [f"{key} {value:.4g}" for key, value in result.items() if isinstance(value, (int, float))]
    return "  ".join(parts) + ("  ERROR " + result["error"] if "error" in result else "")


def machine(arguments):
    def said(*command):
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except OSError:
            return "unknown"
        return (done.stdout or done.stderr).strip().split("\n")[0]

    cpu = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    return {
        "date": datetime.date.today().isoformat(),
        "commit": said("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
        "cpu": cpu.group(1) if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "load": os.getloadavg()[0],
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "versions": {"mosquitto": said(where("mosquitto") or "mosquitto", "-h"),
                     "nats-server": said("nats-server", "--version"), "rumqttd": RUMQTTD},
        "command": f"docs/performance/{Path(sys.argv[0]).name} " + " ".join(sys.argv[1:]),
    }


def value(run, figure):
    if figure == "rate":
        return run.get("deliveries_per_s") or run.get("connections_per_s")
    if figure == "cpu":
        return run.get("cpu_us_per_delivery") or run.get("cpu_us_per_connection")
    if figure == "p99":
        return run.get("p99_us")
    return run.get("rss_bytes_per_connection")


WORDS = {"rate": "per second", "cpu": "CPU µs each", "p99": "p99 µs", "bytes": "bytes each"}


def number(amount):
    if amount is None:
        return "–"
    if amount >= 1000:
        return f"{amount:,.0f}".replace(",", " ")
    return f"{amount:.3g}"


def write():
    raw = json.loads(RAW.read_text())
    runs, at = raw["runs"], raw["machine"]
    names = [name for name in PEERS if any(run["subject"] == name for run in runs)]
    by = {}
    for run_ in runs:
        by.setdefault(run_["load"], {}).setdefault(run_["round"], {})[run_["subject"]] = run_
    rows = []
    for load, (text, _, bars) in LOADS.items():
        rounds = by.get(load, {}).values()
        for figure, sign, bar in bars:
            def median(subject):
                found = [value(one[subject], figure) for one in rounds if subject in one]
                found = [amount for amount in found if amount is not None]
                return statistics.median(found) if found else None

            best = max if sign == ">=" else min
            ratios = []
            for one in rounds:
                others = ["mosquitto"] if figure == "p99" else names
                peers = [value(one[name], figure) for name in others
                         if name in one and "error" not in one[name]]
                peers = [amount for amount in peers if amount]
                ours = value(one.get("turnpike", {}), figure)
                if ours is not None and (peers or figure == "bytes"):
                    ratios.append(ours if figure == "bytes" else ours / best(peers))
            if not ratios:
                continue
            ratio = statistics.median(ratios)
            holds = ratio >= bar if sign == ">=" else ratio <= bar
            unit = "" if figure == "bytes" else "x"
            rows.append([
                load, text, WORDS[figure], *[number(median(name)) for name in names],
                number(median("turnpike")), f"{'≥' if sign == '>=' else '≤'} {bar:g}{unit}",
                f"**{ratio:.0f}**" if figure == "bytes" else f"**{ratio:.2f}x**",
                "holds" if holds else "**missed**",
            ])
    lines = [
        f"{at['date']}, commit {at['commit']}; {at['cpu']}, {at['cores']} cores, kernel {at['kernel']}, loopback; "
        f"{at['versions']['mosquitto']}; {at['versions']['nats-server']}; rumqttd {at['versions']['rumqttd']}; "
        f"{at['rounds']} interleaved rounds of {at['seconds']} s; load of the machine at the end {at['load']:.1f}; `{at['command']}`.",
        "",
        *table(["", "load", "what", *names, "turnpike", "bar", "ratio", ""], rows),
    ]
    extra = []
    for load, (text, base, _) in EXTRA.items():
        ratios = []
        for number_, one in by.get(load, {}).items():
            plain = by.get(base, {}).get(number_, {}).get("turnpike")
            if plain and value(one["turnpike"], "cpu") and value(plain, "cpu"):
                ratios.append(value(one["turnpike"], "cpu") / value(plain, "cpu"))
        if ratios:
            ratio = statistics.median(ratios)
            extra.append([text, LOADS[base][0], f"≤ {EXTRA_BAR}x", f"**{ratio:.2f}x**",
                          "holds" if ratio <= EXTRA_BAR else "**missed**"])
    if extra:
        lines += ["", "CPU for each delivery of Turnpike, against its own plain run in the same round:", "",
                  *table(["load", "against", "bar", "ratio", ""], extra)]
    faults = sorted({f"{run['subject']} in {run['load']}: {run['error'].splitlines()[-1]}"
                     for run in runs if "error" in run})
    if faults:
        lines += ["", "Runs with a fault, which no ratio is taken against:", "", *[f"- {fault}" for fault in faults]]
    put("peers", lines)


def put(name, lines):
    """Puts lines between the marks of this name in the page."""
    page = PAGE.read_text()
    before, rest = page.split(f"<!-- {name} -->")
    behind = rest.split(f"<!-- /{name} -->")[1]
    text = "\n".join(lines)
    PAGE.write_text(f"{before}<!-- {name} -->\n{text}\n<!-- /{name} -->{behind}")


def table(heads, rows):
    lines = ["| " + " | ".join(heads) + " |", "| " + " | ".join("---" for _ in heads) + " |"]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["measure", "write"])
    parser.add_argument("--short", action="store_true", help="1 round of 1 second")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--only", default="", help="loads, with commas between them")
    parser.add_argument("--peers", default=",".join(PEERS))
    arguments = parser.parse_args()
    if arguments.short:
        arguments.rounds, arguments.seconds = 1, 1
    if arguments.what == "measure":
        measure(arguments)
    else:
        write()


if __name__ == "__main__":
    main()
