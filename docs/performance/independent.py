#!/usr/bin/env python3
"""Compares what two load generators say of the same brokers: `turnpike loadtest`, and mosquitto's
clients, which share no code with it.

independent.py measure [--rounds N] [--messages N] [--pairs N]
    measures, and writes docs/performance/independent.json and the table
independent.py write
    writes the table of docs/performance.md from independent.json

Each pair is a mosquitto_pub that reads lines and a mosquitto_sub that counts them; the load tool
makes the same pairs. What is compared is the broker's CPU time for each delivery of Turnpike against
that of mosquitto's broker, within a round: the two generators have to agree on that ratio.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time

import peers

RAW = peers.HERE / "independent.json"
PAYLOAD = "x" * 64
SUBJECTS = ["turnpike", "mosquitto"]
# Name: QoS of all messages, and what a publisher waits for: seconds between two messages, or the
# acknowledgement of the twentieth before, which is what mosquitto_pub does. (Without either its
# messages at QoS 0 would overrun the subscriber, and be dropped.)
SHAPES = {"QoS 0, by the clock": (0, 0.001), "QoS 1, 20 in flight": (1, None),
          "QoS 2, 20 in flight": (2, None)}
# The two have to agree within this.
AGREE = 0.2


def ticks(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def by_load_tool(broker, shape, pairs, messages):
    qos, pause = SHAPES[shape]
    arguments = ["pairs", "--pairs", str(pairs), "--qos", str(qos), "--burst", "1",
                 "--messages", str(pairs * messages)]
    arguments += ["--rate", str(pairs / pause)] if pause else ["--window", "20"]
    result = broker.work / "result.json"
    subprocess.run(["taskset", "-c", "1", peers.TURNPIKE, "loadtest", *arguments, *broker.target(),
                    "--pid", str(broker.process.pid), "--quiet", "--json", str(result)],
                   check=True, capture_output=True, timeout=300)
    return json.loads(result.read_text())["broker"]["cpu_us_per_delivery"]


def by_mosquitto(broker, shape, pairs, messages):
    qos, pause = SHAPES[shape]
    login, topic = [], peers.PREFIX
    if broker.name == "turnpike":
        demo = json.loads((broker.work / "out").read_text())["demo"]
        topic = f"m/{demo['domain']}/c/{demo['channel']}"
        clients = demo["clients"]
        login = [["-u", client["id"], "-P", client["secret"]] for client in clients]
    reader, writer = login or ([], [])
    common = ["-h", "127.0.0.1", "-p", str(broker.port), "-q", str(qos)]
    lines = broker.work / "lines"
    lines.write_text((PAYLOAD + "\n") * messages)
    ready = [broker.work / f"ready{number}" for number in range(pairs)]
    readers = [subprocess.Popen(
        ["stdbuf", "-oL", "taskset", "-c", "1", "mosquitto_sub", *common, *reader, "-t", f"{topic}/{number}", "-C",
         str(messages), "-F", "%l", "-d"], stdout=open(ready[number], "w"))
        for number in range(pairs)]
    for file in ready:
        while "SUBACK" not in file.read_text():
            time.sleep(0.02)
    before = ticks(broker.process.pid)
    said = ["-m", PAYLOAD, "--repeat", str(messages), "--repeat-delay", str(pause)] if pause else ["-l"]
    writers = [subprocess.Popen(
        ["taskset", "-c", "1", "mosquitto_pub", *common, *writer, "-t", f"{topic}/{number}", *said],
        stdin=open(lines), stdout=subprocess.DEVNULL) for number in range(pairs)]
    for process in [*writers, *readers]:
        if process.wait(timeout=300):
            raise SystemExit(f"{process.args[3]} failed")
    return (ticks(broker.process.pid) - before) * 1e6 / (pairs * messages)


def measure(arguments):
    peers.install(["mosquitto"])
    found = []
    for number in range(1, arguments.rounds + 1):
        for shape in SHAPES:
            for way, load in (("loadtest", by_load_tool), ("mosquitto's clients", by_mosquitto)):
                for subject in SUBJECTS:
                    with tempfile.TemporaryDirectory() as work:
                        broker = peers.Broker(subject, work, demo=True)
                        try:
                            cpu = load(broker, shape, arguments.pairs, arguments.messages)
                        finally:
                            broker.stop()
                    found.append({"round": number, "shape": shape, "generator": way,
                                  "subject": subject, "cpu_us_per_delivery": cpu})
                    print(number, shape, way, subject, f"{cpu:.3g}", flush=True)
    arguments.seconds = 0
    machine = {**peers.machine(arguments), "command": f"docs/performance/independent.py measure "
               f"--rounds {arguments.rounds} --messages {arguments.messages} --pairs {arguments.pairs}"}
    RAW.write_text(json.dumps({"machine": machine, "runs": found}, indent=1) + "\n")
    write()


def write():
    raw = json.loads(RAW.read_text())
    at, runs = raw["machine"], raw["runs"]
    cpu = {(run["round"], run["shape"], run["generator"], run["subject"]): run["cpu_us_per_delivery"]
           for run in runs}
    rows = []
    for shape in SHAPES:
        medians = {}
        for way in ("loadtest", "mosquitto's clients"):
            rounds = sorted({run["round"] for run in runs})
            ratios = [cpu[one, shape, way, "turnpike"] / cpu[one, shape, way, "mosquitto"]
                      for one in rounds]
            medians[way] = statistics.median(ratios)
        ours, theirs = medians["loadtest"], medians["mosquitto's clients"]
        apart = abs(ours / theirs - 1)
        rows.append([shape, f"{ours:.2f}x", f"{theirs:.2f}x", f"**{apart:.0%}**",
                     "agree" if apart <= AGREE else "**do not agree**"])
    peers.put("independent", [
        f"{at['date']}, commit {at['commit']}; {at['cpu']}, {at['cores']} cores; {at['rounds']} rounds; "
        f"load of the machine at the end {at['load']:.1f}; `{at['command']}`.",
        "",
        *peers.table(["pairs", "CPU each against mosquitto's broker, by `loadtest`",
                      "by mosquitto's clients", "apart", f"within {AGREE:.0%}"], rows),
    ])


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["measure", "write"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=20000, help="of each pair")
    parser.add_argument("--pairs", type=int, default=10)
    arguments = parser.parse_args()
    if arguments.what == "measure":
        measure(arguments)
    else:
        write()


if __name__ == "__main__":
    main()
