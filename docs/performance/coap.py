#!/usr/bin/env python3
"""CoAP publish rate and CPU beside libcoap's example server, in one run with one client.

Usage: coap.py TURNPIKE [ROUNDS]; needs coap-server-notls (Debian: libcoap3-bin).

Confirmable PUTs of 16 bytes from 8 endpoints with 8 unanswered each; the servers in turn, 5 seconds
a round. Both have one thread. Turnpike judges each message and routes it (nobody subscribes), the
example server stores it. Prints requests per second, CPU of the server for each request, and the
ratios of their medians.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time

SECONDS = 5
ENDPOINTS = 8
WINDOW = 8
PORT = 35683


def option(before, number, value):
    delta, length = number - before, len(value)
    out = b""
    nibbles = []
    for field in (delta, length):
        if field < 13:
            nibbles.append(field)
        else:
            nibbles.append(13)
            out += bytes([field - 13])
    return bytes([nibbles[0] << 4 | nibbles[1]]) + out + value


def request(path, query):
    """Everything behind the Message ID."""
    out, before = b"", 0
    for level in path.split("/"):
        out += option(before, 11, level.encode())
        before = 11
    for pair in filter(None, [query]):
        out += option(before, 15, pair.encode())
        before = 15
    return out + b"\xff" + b"0123456789abcdef"


def cpu(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(address, tail, pid):
    peers = []
    for _ in range(ENDPOINTS):
        peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        peer.connect(address)
        peer.settimeout(5)
        peers.append(peer)
    number = int.from_bytes(os.urandom(2), "big")
    head = b"\x40\x03"

    def send(peer):
        nonlocal number
        number = (number + 1) & 0xFFFF
        peer.send(head + number.to_bytes(2, "big") + tail)

    send(peers[0])
    first = peers[0].recv(64)
    assert first[1] >> 5 == 2, f"refused: {first!r}"
    for peer in peers:
        for _ in range(WINDOW):
            send(peer)
    used, began, count = cpu(pid), time.monotonic(), 0
    while time.monotonic() - began < SECONDS:
        for peer in peers:
            for _ in range(WINDOW):
                answer = peer.recv(64)
                assert answer[1] >> 5 == 2, f"refused: {answer!r}"
                send(peer)
        count += ENDPOINTS * WINDOW
    took, used = time.monotonic() - began, cpu(pid) - used
    return count / took, used / count * 1e6


def main(turnpike, rounds):
    with tempfile.TemporaryDirectory() as folder:
        environment = dict(os.environ, TURNPIKE_DATA_DIR=folder, TURNPIKE_SHARDS="1")
        command = [turnpike, "serve", "--json", "--mqtt-address", "127.0.0.1:0",
                   "--api-address", "127.0.0.1:0"]
        ours = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
        command = ["coap-server-notls", "-A", "127.0.0.1", "-p", str(PORT)]
        theirs = subprocess.Popen(command)
        try:
            ready = json.loads(ours.stdout.readline())
            demo = ready["demo"]
            host, port = ready["listeners"]["coap"].rsplit(":", 1)
            path = f"m/{demo['domain']}/c/{demo['channel']}/t"
            query = f"auth={demo['clients'][0]['secret']}"
            servers = {
                "turnpike": ((host, int(port)), request(path, query), ours.pid),
                "libcoap": (("127.0.0.1", PORT), request("example_data", ""), theirs.pid),
            }
            time.sleep(1)
            found = {name: [] for name in servers}
            for _ in range(rounds):
                for name, server in servers.items():
                    found[name].append(run(*server))
                    rate, each = found[name][-1]
                    print(f"{name:9} {rate:9.0f} requests/s {each:6.2f} us CPU each")
            medians = {name: [statistics.median(column) for column in zip(*rows)]
                       for name, rows in found.items()}
            print("rate: {:.2f}x, CPU for each: {:.2f}x".format(
                medians["turnpike"][0] / medians["libcoap"][0],
                medians["turnpike"][1] / medians["libcoap"][1]))
        finally:
            ours.terminate()
            theirs.terminate()


main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5)
