// MQTT.js against a running broker: both versions, every QoS, retained, will, aliases, resume.
// Usage: node mqttjs_client.mjs READY_JSON [LISTENER [CA [FOLDER]]], with MQTT.js installed where node
// finds it; LISTENER is mqtt, mqtts, ws or wss, and CA signed the certificate of mqtts and wss. With
// FOLDER a client shows ID.pem and ID.key from there, and no password.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.NODE_MODULES ?? process.cwd()}/`);
const mqtt = require("mqtt");
const ready = JSON.parse(readFileSync(process.argv[2], "utf8"));
const root = `m/${ready.demo.domain}/c/${ready.demo.channel}/mqttjs`;
const WAIT_MS = 20_000;
const listener = process.argv[3] ?? "mqtt";
const path = listener.startsWith("ws") ? "/mqtt" : "";
const trust = process.argv[4] ? { ca: readFileSync(process.argv[4]) } : {};
const folder = process.argv[5];
const by = folder ? `${listener} by certificate` : listener;

function login({ id, secret }) {
  if (!folder) return { username: id, password: secret };
  const [cert, key] = ["pem", "key"].map((end) => readFileSync(`${folder}/${id}.${end}`));
  return { cert, key };
}

function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no ${what} within ${WAIT_MS} ms`)), WAIT_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

async function connect(number, protocolVersion, options = {}) {
  const client = mqtt.connect(`${listener}://${ready.listeners[listener]}${path}`, {
    ...trust,
    ...login(ready.demo.clients[number]),
    protocolVersion,
    reconnectPeriod: 0,
    ...options,
  });
  client.inbox = [];
  client.waiting = [];
  client.on("message", (topic, payload, packet) => {
    const message = { topic, payload, packet };
    const next = client.waiting.shift();
    if (next) next(message);
    else client.inbox.push(message);
  });
  client.next = () =>
    within(
      client.inbox.length
        ? Promise.resolve(client.inbox.shift())
        : new Promise((resolve) => client.waiting.push(resolve)),
      "message",
    );
  client.connack = await within(
    new Promise((resolve, reject) => {
      client.once("connect", resolve);
      client.once("error", reject);
    }),
    "CONNACK",
  );
  return client;
}

for (const version of [4, 5]) {
  const base = `${root}/${version}`;
  const subscriber = await connect(0, version);
  const publisher = await connect(1, version);
  await subscriber.subscribeAsync(`${base}/#`, { qos: 2 });
  for (const qos of [0, 1, 2]) {
    for (let n = 0; n < 20; n += 1) await publisher.publishAsync(`${base}/q`, `${n}`, { qos });
    for (let n = 0; n < 20; n += 1) {
      const { payload, packet } = await subscriber.next();
      assert.equal(payload.toString(), `${n}`);
      assert.equal(packet.qos, qos);
    }
  }
  const large = Buffer.alloc(200_000, "x");
  await publisher.publishAsync(`${base}/large`, large, { qos: 1 });
  assert.ok((await subscriber.next()).payload.equals(large));
  await publisher.publishAsync(`${base}/kept`, "kept", { qos: 1, retain: true });
  assert.equal((await subscriber.next()).packet.retain, false);
  const late = await connect(0, version);
  await late.subscribeAsync(`${base}/kept`);
  assert.equal((await late.next()).packet.retain, true);
  await publisher.publishAsync(`${base}/kept`, "", { qos: 1, retain: true });
  await subscriber.next();
  await late.endAsync();

  const dying = await connect(1, version, {
    will: { topic: `${base}/will`, payload: "gone", qos: 1, retain: false },
  });
  dying.stream.destroy();
  assert.equal((await subscriber.next()).payload.toString(), "gone");

  const name = `mqttjs-${process.pid}-${version}`;
  const kept = { clientId: name, clean: false, properties: { sessionExpiryInterval: 300 } };
  const first = await connect(0, version, kept);
  await first.subscribeAsync(`${base}/away`, { qos: 1 });
  await first.endAsync();
  await publisher.publishAsync(`${base}/away`, "while away", { qos: 1 });
  const again = await connect(0, version, { ...kept });
  assert.equal(again.connack.sessionPresent, true);
  assert.equal((await again.next()).payload.toString(), "while away");
  await again.endAsync();
  await subscriber.endAsync();
  await publisher.endAsync();
  console.log(`ok MQTT.js ${by} version ${version}`);
}

const aliasing = await connect(1, 5, { autoAssignTopicAlias: true });
const resolving = await connect(0, 5, { properties: { topicAliasMaximum: 8 } });
await resolving.subscribeAsync(`${root}/alias/#`, { qos: 1, properties: { subscriptionIdentifier: 9 } });
for (let n = 0; n < 10; n += 1) {
  await aliasing.publishAsync(`${root}/alias/${n % 2}`, `${n}`, {
    qos: 1,
    properties: { userProperties: { n: `${n}` }, contentType: "text/plain" },
  });
  const { topic, payload, packet } = await resolving.next();
  assert.equal(topic, `${root}/alias/${n % 2}`);
  assert.equal(payload.toString(), `${n}`);
  assert.equal(packet.properties.subscriptionIdentifier, 9);
  assert.equal(packet.properties.userProperties.n, `${n}`);
}
await aliasing.endAsync();
await resolving.endAsync();
console.log(`ok MQTT.js ${by} topic aliases both ways`);
