// The WebSocket of the platform, as browsers have it, or that of MQTT.js where it has none, on
// channel sockets: raw and in envelopes. Usage: node websocket_client.mjs READY_JSON
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.NODE_MODULES ?? process.cwd()}/`);
const WebSocket = globalThis.WebSocket ?? require("ws");

const ready = JSON.parse(readFileSync(process.argv[2], "utf8"));
const [first, second] = ready.demo.clients;
const path = `/m/${ready.demo.domain}/c/${ready.demo.channel}/socket`;
const WAIT_MS = 20_000;

function open(listener, query, protocols = []) {
  const url = `ws://${ready.listeners[listener]}${path}${query}`;
  const socket = new WebSocket(url, protocols);
  socket.binaryType = "arraybuffer";
  const inbox = [];
  const waiting = [];
  const take = (event) => {
    const next = waiting.shift();
    if (next) next(event);
    else inbox.push(event);
  };
  socket.onmessage = ({ data }) => take(data);
  socket.onclose = ({ code }) => take({ code });
  socket.next = () =>
    inbox.length
      ? Promise.resolve(inbox.shift())
      : new Promise((resolve, reject) => {
          const timer = setTimeout(() => reject(new Error("nothing came")), WAIT_MS);
          waiting.push((event) => {
            clearTimeout(timer);
            resolve(event);
          });
        });
  return new Promise((resolve, reject) => {
    socket.onopen = () => resolve(socket);
    socket.onerror = () => reject(new Error(`${url.replace(/\?.*/, "")} did not open`));
  });
}

const secret = (client) => `?authorization=${encodeURIComponent(`Client ${client.secret}`)}`;
for (const listener of ["ws", "http"]) {
  const one = await open(listener, secret(first));
  const two = await open(listener, secret(second));
  one.send("text");
  assert.equal(await two.next(), "text");
  two.send(new Uint8Array([0, 255]));
  assert.deepEqual(new Uint8Array(await one.next()), new Uint8Array([0, 255]));
  one.send("x".repeat(300_000));
  assert.equal((await two.next()).length, 300_000);
  const envelopes = await open(listener, secret(first), ["turnpike.json.v1"]);
  assert.equal(envelopes.protocol, "turnpike.json.v1");
  envelopes.send(JSON.stringify({ payload: { t: 21 }, id: 1 }));
  assert.deepEqual(JSON.parse(await envelopes.next()), { id: 1, code: 0 });
  assert.equal(await two.next(), '{"t":21}');
  two.send("back");
  const { topic, payload } = JSON.parse(await envelopes.next());
  assert.equal(topic, path.slice(1));
  assert.equal(payload, "back");
  one.close(1000);
  assert.equal((await one.next()).code ?? 1000, 1000);
  two.close();
  envelopes.close();
  await assert.rejects(open(listener, "?authorization=wrong"));
  console.log(`ok WebSocket ${listener} channel sockets`);
}
process.exit(0);
