"""aiomqtt against a running broker: a request answered over MQTT 5, and a burst in order.

Usage: aiomqtt_client.py READY_JSON
"""

import asyncio
import json
import sys

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

WAIT_S = 20


def client(ready, number, protocol):
    credentials = ready["demo"]["clients"][number]
    host, port = ready["listeners"]["mqtt"].rsplit(":", 1)
    return aiomqtt.Client(
        host,
        int(port),
        username=credentials["id"],
        password=credentials["secret"],
        protocol=protocol,
    )


async def request_and_response(ready, base):
    async with client(ready, 0, aiomqtt.ProtocolVersion.V5) as service:
        await service.subscribe(f"{base}/requests", qos=1)

        async def serve():
            async for message in service.messages:
                properties = Properties(PacketTypes.PUBLISH)
                properties.CorrelationData = message.properties.CorrelationData
                answer = message.payload.upper()
                await service.publish(
                    message.properties.ResponseTopic, answer, qos=1, properties=properties
                )
                return

        task = asyncio.create_task(serve())
        async with client(ready, 1, aiomqtt.ProtocolVersion.V5) as requester:
            await requester.subscribe(f"{base}/answers", qos=1)
            properties = Properties(PacketTypes.PUBLISH)
            properties.ResponseTopic = f"{base}/answers"
            properties.CorrelationData = b"7"
            await requester.publish(f"{base}/requests", b"ping", qos=1, properties=properties)
            async for message in requester.messages:
                assert message.payload == b"PING"
                assert message.properties.CorrelationData == b"7"
                break
        await task


async def burst(ready, base, protocol):
    async with client(ready, 0, protocol) as subscriber, client(ready, 1, protocol) as publisher:
        await subscriber.subscribe(f"{base}/+", qos=2)
        for number in range(200):
            await publisher.publish(f"{base}/burst", b"%d" % number, qos=number % 3)
        by_qos = {0: [], 1: [], 2: []}
        seen = 0
        async for message in subscriber.messages:
            by_qos[message.qos].append(int(message.payload))
            seen += 1
            if seen == 200:
                break
        for qos, numbers in by_qos.items():
            assert numbers == list(range(qos, 200, 3)), (qos, numbers)


async def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        ready = json.load(file)
    root = f"m/{ready['demo']['domain']}/c/{ready['demo']['channel']}/aiomqtt"
    await asyncio.wait_for(request_and_response(ready, root), WAIT_S)
    print("ok aiomqtt v5 request and response", flush=True)
    for protocol in (aiomqtt.ProtocolVersion.V311, aiomqtt.ProtocolVersion.V5):
        await asyncio.wait_for(burst(ready, root, protocol), WAIT_S)
        print(f"ok aiomqtt {protocol.name} burst", flush=True)


asyncio.run(main())
