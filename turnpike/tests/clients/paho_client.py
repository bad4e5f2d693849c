"""paho-mqtt against a running broker: both protocol versions, every QoS.

Usage: paho_client.py READY_JSON [LISTENER [CA [FOLDER]]], where READY_JSON holds what `turnpike serve
--json` printed, LISTENER is mqtt, mqtts, ws or wss, and CA signed the certificate of mqtts and wss.
With FOLDER a client shows ID.pem and ID.key from there, and no password.
Waits on events only; exits non-zero with the first promise that does not hold.
"""

import json
import queue
import sys
import uuid

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

WAIT_S = 20
LISTENER = sys.argv[2] if len(sys.argv) > 2 else "mqtt"
CA = sys.argv[3] if len(sys.argv) > 3 else None
FOLDER = sys.argv[4] if len(sys.argv) > 4 else None


class Client:
    """A client whose callbacks feed queues."""

    def __init__(self, ready, version, number=0, client_id=None, clean=True, expiry=0, will=None):
        credentials = ready["demo"]["clients"][number]
        host, port = ready["listeners"][LISTENER].rsplit(":", 1)
        self.version = version
        transport = "websockets" if LISTENER in ("ws", "wss") else "tcp"
        arguments = {"transport": transport, "client_id": client_id or f"paho-{uuid.uuid4().hex[:12]}", "protocol": version}
        if version != mqtt.MQTTv5:
            arguments["clean_session"] = clean
        self.mqtt = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, **arguments)
        if LISTENER in ("mqtts", "wss"):
            shown = FOLDER and f"{FOLDER}/{credentials['id']}"
            self.mqtt.tls_set(CA, shown and f"{shown}.pem", shown and f"{shown}.key")
        if not FOLDER:
            self.mqtt.username_pw_set(credentials["id"], credentials["secret"])
        self.messages = queue.Queue()
        self.connected = queue.Queue()
        self.subscribed = queue.Queue()
        self.published = queue.Queue()
        self.disconnected = queue.Queue()
        self.mqtt.on_connect = lambda c, u, flags, code, p: self.connected.put((flags, code, p))
        self.mqtt.on_message = lambda c, u, message: self.messages.put(message)
        self.mqtt.on_subscribe = lambda c, u, mid, codes, p: self.subscribed.put(codes)
        self.mqtt.on_publish = lambda c, u, mid, code, p: self.published.put(code)
        self.mqtt.on_disconnect = lambda c, u, flags, code, p: self.disconnected.put(code)
        if will:
            self.mqtt.will_set(*will)
        properties = None
        if version == mqtt.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = expiry
        extra = {"clean_start": clean, "properties": properties} if version == mqtt.MQTTv5 else {}
        self.mqtt.connect(host, int(port), keepalive=30, **extra)
        self.mqtt.loop_start()
        self.flags, self.code, self.properties = self.connected.get(timeout=WAIT_S)
        assert not self.code.is_failure, self.code

    def subscribe(self, topic, qos=0, options=None):
        if options is not None:
            self.mqtt.subscribe(topic, options=options)
        else:
            self.mqtt.subscribe(topic, qos)
        codes = self.subscribed.get(timeout=WAIT_S)
        assert not any(code.is_failure for code in codes), codes

    def publish(self, topic, payload, qos=0, retain=False, properties=None):
        self.mqtt.publish(topic, payload, qos, retain, properties=properties).wait_for_publish(WAIT_S)

    def expect(self, payload):
        message = self.messages.get(timeout=WAIT_S)
        assert message.payload == payload, (message.payload[:40], payload[:40])
        return message

    def close(self):
        self.mqtt.disconnect()
        self.disconnected.get(timeout=WAIT_S)
        self.mqtt.loop_stop()

    def kill(self):
        """Ends the connection without DISCONNECT."""
        self.mqtt._sock_close()
        self.mqtt.loop_stop()


def round_trips(ready, version, base):
    subscriber = Client(ready, version)
    publisher = Client(ready, version, number=1)
    subscriber.subscribe(f"{base}/#", 2)
    for qos in (0, 1, 2):
        for number in range(20):
            publisher.publish(f"{base}/q{qos}", b"%d" % number, qos)
        for number in range(20):
            message = subscriber.expect(b"%d" % number)
            assert message.qos == qos and message.topic == f"{base}/q{qos}"
    large = bytes(range(256)) * 800
    for qos in (0, 1, 2):
        publisher.publish(f"{base}/large", large, qos)
        subscriber.expect(large)
    subscriber.close()
    publisher.close()


def retained(ready, version, base):
    publisher = Client(ready, version)
    publisher.publish(f"{base}/kept", b"still here", 1, retain=True)
    late = Client(ready, version, number=1)
    late.subscribe(f"{base}/+", 1)
    assert late.expect(b"still here").retain
    publisher.publish(f"{base}/kept", b"", 1, retain=True)
    assert late.expect(b"").payload == b""
    late.close()
    later = Client(ready, version, number=1)
    later.subscribe(f"{base}/+", 1)
    publisher.publish(f"{base}/live", b"live", 1)
    assert not later.expect(b"live").retain
    later.close()
    publisher.close()


def will(ready, version, base):
    watcher = Client(ready, version)
    watcher.subscribe(f"{base}/will", 1)
    dying = Client(ready, version, number=1, will=(f"{base}/will", b"gone", 1, False))
    dying.kill()
    watcher.expect(b"gone")
    polite = Client(ready, version, number=1, will=(f"{base}/will", b"never", 1, False))
    polite.close()
    watcher.publish(f"{base}/will", b"marker", 1)
    watcher.expect(b"marker")
    watcher.close()


def resume(ready, version, base):
    name = f"resume-{uuid.uuid4().hex[:8]}"
    first = Client(ready, version, client_id=name, clean=False, expiry=300)
    first.subscribe(f"{base}/#", 2)
    first.close()
    publisher = Client(ready, version, number=1)
    for qos in (1, 2):
        for number in range(10):
            publisher.publish(f"{base}/{qos}", b"%d" % number, qos)
    again = Client(ready, version, client_id=name, clean=False, expiry=300)
    assert again.flags.session_present
    for qos in (1, 2):
        for number in range(10):
            assert again.expect(b"%d" % number).qos == qos
    again.close()
    fresh = Client(ready, version, client_id=name, clean=True)
    assert not fresh.flags.session_present
    fresh.close()
    publisher.close()


def shared(ready, version, base):
    members = [Client(ready, version, number=at % 2) for at in range(3)]
    for member in members:
        member.subscribe(f"$share/workers/{base}/#", 1)
    publisher = Client(ready, version)
    for number in range(60):
        publisher.publish(f"{base}/job", b"%d" % number, 1)
    publisher.close()
    got = []
    while len(got) < 60:
        before = len(got)
        for member in members:
            while not member.messages.empty():
                got.append(int(member.messages.get().payload))
        if len(got) == before:
            # Nothing new: wait for the next one on whichever member gets it.
            try:
                got.append(int(members[before % 3].messages.get(timeout=0.2).payload))
            except queue.Empty:
                assert all(member.mqtt.is_connected() for member in members)
    assert sorted(got) == list(range(60)), "each message reaches one member"
    for member in members:
        member.close()


def version5(ready, base):
    subscriber = Client(ready, mqtt.MQTTv5)
    publisher = Client(ready, mqtt.MQTTv5, number=1)
    subscriber.subscribe(f"{base}/#", options=SubscribeOptions(qos=1))
    properties = Properties(PacketTypes.PUBLISH)
    properties.PayloadFormatIndicator = 1
    properties.ContentType = "text/plain"
    properties.ResponseTopic = f"{base}/answers"
    properties.CorrelationData = b"\x00\x01"
    properties.UserProperty = [("b", "2"), ("a", "1"), ("b", "3")]
    properties.MessageExpiryInterval = 100
    publisher.publish(f"{base}/p", b"text", 1, properties=properties)
    got = subscriber.expect(b"text").properties
    assert got.PayloadFormatIndicator == 1 and got.ContentType == "text/plain"
    assert got.ResponseTopic == f"{base}/answers" and got.CorrelationData == b"\x00\x01"
    assert got.UserProperty == [("b", "2"), ("a", "1"), ("b", "3")]
    assert 90 <= got.MessageExpiryInterval <= 100
    assert publisher.properties.TopicAliasMaximum > 0
    alias = Properties(PacketTypes.PUBLISH)
    alias.TopicAlias = 3
    publisher.publish(f"{base}/aliased", b"one", 1, properties=alias)
    publisher.publish("", b"two", 1, properties=alias)
    assert subscriber.expect(b"one").topic == f"{base}/aliased"
    assert subscriber.expect(b"two").topic == f"{base}/aliased"
    own = SubscribeOptions(qos=1, noLocal=True)
    publisher.subscribe(f"{base}/#", options=own)
    publisher.publish(f"{base}/mine", b"mine", 1)
    subscriber.expect(b"mine")
    subscriber.publish(f"{base}/yours", b"yours", 1)
    publisher.expect(b"yours")
    subscriber.close()
    publisher.close()


def main():
    by = f"{LISTENER} by certificate" if FOLDER else LISTENER
    with open(sys.argv[1], encoding="utf-8") as file:
        ready = json.load(file)
    demo = ready["demo"]
    root = f"m/{demo['domain']}/c/{demo['channel']}"
    for version, name in ((mqtt.MQTTv311, "v311"), (mqtt.MQTTv5, "v5")):
        for check in (round_trips, retained, will, resume, shared):
            check(ready, version, f"{root}/{name}/{check.__name__}")
            print(f"ok paho {by} {name} {check.__name__}", flush=True)
    version5(ready, f"{root}/properties")
    print(f"ok paho {by} v5 properties", flush=True)


main()
