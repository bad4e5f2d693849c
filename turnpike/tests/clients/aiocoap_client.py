"""aiocoap against a running broker: publish, read back, observe across protocols, blocks.

Usage: aiocoap_client.py READY_JSON
"""

import asyncio
import json
import os
import sys

import aiocoap
from aiocoap import GET, POST, PUT, Code, Message
from paho.mqtt import client as paho

WAIT_S = 20


def mqtt(ready, number, on_message):
    """A connected paho client; messages go to on_message in its thread."""
    credentials = ready["demo"]["clients"][number]
    host, port = ready["listeners"]["mqtt"].rsplit(":", 1)
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.username_pw_set(credentials["id"], credentials["secret"])
    client.on_message = on_message
    client.connect(host, int(port))
    client.loop_start()
    return client


async def ask(context, code, uri, **more):
    request = Message(code=code, uri=uri, **more)
    return await asyncio.wait_for(context.request(request).response, WAIT_S)


async def main(ready):
    demo = ready["demo"]
    base = f"m/{demo['domain']}/c/{demo['channel']}/aiocoap"
    secret = demo["clients"][0]["secret"]

    def uri(subtopic, query=""):
        return f"coap://{ready['listeners']['coap']}/{base}/{subtopic}?auth={secret}{query}"

    loop = asyncio.get_running_loop()
    heard = asyncio.Queue()
    subscribed = asyncio.Event()

    def on_message(_client, _userdata, message):
        loop.call_soon_threadsafe(heard.put_nowait, (message.topic, message.payload))

    client = mqtt(ready, 1, on_message)
    client.on_subscribe = lambda *_: loop.call_soon_threadsafe(subscribed.set)
    client.subscribe(f"{base}/#", qos=1)
    await asyncio.wait_for(subscribed.wait(), WAIT_S)
    context = await aiocoap.Context.create_client_context()

    # Published, heard over MQTT, read back.
    answer = await ask(context, POST, uri("t", "&retain=true"), payload=b"21.5", content_format=0)
    assert answer.code == Code.CHANGED, answer.code
    topic, payload = await asyncio.wait_for(heard.get(), WAIT_S)
    assert (topic, payload) == (f"{base}/t", b"21.5"), (topic, payload)
    answer = await ask(context, GET, uri("t"))
    assert (answer.code, answer.payload) == (Code.CONTENT, b"21.5"), answer
    assert answer.opt.content_format == 0
    assert (await ask(context, GET, uri("none"))).code == Code.NOT_FOUND
    wrong = uri("t").replace(secret, "wrong")
    assert (await ask(context, POST, wrong, payload=b"x")).code == Code.UNAUTHORIZED

    # 20 000 bytes both ways.
    body = os.urandom(20_000)
    answer = await ask(context, PUT, uri("big", "&retain=true"), payload=body)
    assert answer.code == Code.CHANGED, answer.code
    topic, payload = await asyncio.wait_for(heard.get(), WAIT_S)
    assert topic == f"{base}/big" and payload == body
    assert (await ask(context, GET, uri("big"))).payload == body

    # Observed: what is retained, then what MQTT and CoAP publish, then no more.
    request = context.request(Message(code=GET, uri=uri("seen"), observe=0))
    first = await asyncio.wait_for(request.response, WAIT_S)
    assert first.code == Code.CONTENT and first.payload == b"", first
    notifications = aiter(request.observation)

    async def seen():
        return (await asyncio.wait_for(anext(notifications), WAIT_S)).payload

    for number in range(40):
        payload = str(number).encode()
        if number % 2:
            client.publish(f"{base}/seen", payload, qos=1).wait_for_publish(WAIT_S)
        else:
            await ask(context, POST, uri("seen"), payload=payload)
        assert await seen() == payload
    client.publish(f"{base}/seen", body, qos=1).wait_for_publish(WAIT_S)
    assert await seen() == body, "a notification in blocks"
    request.observation.cancel()
    links = await ask(context, GET, f"coap://{ready['listeners']['coap']}/.well-known/core")
    assert b"</m>" in links.payload
    await context.shutdown()
    client.loop_stop()
    print("aiocoap: ok")


with open(sys.argv[1], encoding="utf-8") as file:
    asyncio.run(main(json.load(file)))
