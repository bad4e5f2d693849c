#!/usr/bin/env python3
"""What a storm of TLS handshakes costs those who are connected.

Usage: handshakes.py TURNPIKE [OTHER…] [--shards N] [--rounds N]

Ten pairs publish 2000 messages a second over TCP by the clock; for half of the time two threads send
ClientHellos in groups of 64 to the TLS listener and read the answers. Prints latencies without and
with the storm, and answered hellos per second, for each binary in turn. With one shard the broker is
pinned to core 0 and the load to core 1.
"""

import argparse
import json
import os
import re
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.request


def hello():
    """The first flight of a client of TLS 1.3."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        context.wrap_bio(incoming, outgoing).do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


class Storm:
    def __init__(self, address):
        self.address, self.answered, self.over = address, 0, False
        self.hello = hello()
        self.threads = [threading.Thread(target=self.run) for _ in range(2)]
        for thread in self.threads:
            thread.start()

    def run(self):
        while not self.over:
            group = []
            for _ in range(64):
                try:
                    one = socket.create_connection(self.address, 2)
                    one.sendall(self.hello)
                    group.append(one)
                except OSError:
                    pass
            for one in group:
                try:
                    one.settimeout(2)
                    self.answered += bool(one.recv(4096))
                except OSError:
                    pass
                one.close()

    def stop(self):
        self.over = True
        for thread in self.threads:
            thread.join()


def measure(turnpike, shards):
    with tempfile.TemporaryDirectory() as work:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-days", "2", "-subj", "/CN=localhost", "-keyout", f"{work}/key.pem", "-out", f"{work}/chain.pem"],
            check=True, capture_output=True)
        environment = dict(os.environ, TURNPIKE_DATA_DIR=f"{work}/data", TURNPIKE_SHARDS=str(shards),
                           TURNPIKE_LISTENERS__MQTTS__CERTIFICATE=f"{work}/chain.pem",
                           TURNPIKE_LISTENERS__MQTTS__KEY=f"{work}/key.pem")
        pinned = ["taskset", "-c", "0"] if shards == 1 else []
        broker = subprocess.Popen(
            [*pinned, turnpike, "serve", "--json", "--mqtt-address", "127.0.0.1:0", "--api-address", "127.0.0.1:0"],
            env=environment, stdout=open(f"{work}/out", "wb"), stderr=subprocess.DEVNULL)
        try:
            while not open(f"{work}/out", encoding="utf-8").read().endswith("\n"):
                time.sleep(0.05)
            ready = json.load(open(f"{work}/out", encoding="utf-8"))

            def latency():
                subprocess.run(
                    ["taskset", "-c", "1", turnpike, "loadtest", "pairs", "--pairs", "10", "--rate", "2000",
                     "--duration", "4", "--credentials", f"{work}/out", "--provision", "--quiet",
                     "--json", f"{work}/result.json"], capture_output=True, check=False)
                found = json.load(open(f"{work}/result.json", encoding="utf-8"))["latency"]
                return f"p50 {found['p50_us'] / 1000:.2f} ms, p99 {found['p99_us'] / 1000:.1f} ms"

            quiet = latency()
            host, port = ready["listeners"]["mqtts"].rsplit(":", 1)
            storm = Storm((host, int(port)))
            before, began = storm.answered, time.monotonic()
            loud = latency()
            rate = (storm.answered - before) / (time.monotonic() - began)
            storm.stop()
            metrics = urllib.request.urlopen(f"http://{ready['listeners']['api']}/metrics").read().decode()
            elsewhere = re.search(r"^turnpike_handshake_steps_elsewhere_total (\d+)", metrics, re.M)
            elsewhere = elsewhere.group(1) if elsewhere else "none"
            print(f"{turnpike}: alone {quiet}; beside the storm {loud}; {rate:.0f} hellos/s, "
                  f"{elsewhere} steps outside the shards", flush=True)
        finally:
            broker.terminate()
            broker.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("turnpike", nargs="+")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    for _ in range(arguments.rounds):
        for turnpike in arguments.turnpike:
            measure(os.path.abspath(turnpike), arguments.shards)


if __name__ == "__main__":
    main()
