// A page in Chromium against a broker of its own: MQTT.js over a WebSocket, channel sockets, raw and
// in envelopes, fetch and EventSource, each way; a page of another origin, which is refused; and the
// pages behind links in mails.
// Usage: node browser_page.mjs TURNPIKE CHROMIUM, with MQTT.js and playwright-core installed where
// node finds them.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { createInterface } from "node:readline";

import { mailPages } from "./mail_pages.mjs";

const require = createRequire(`${process.env.NODE_MODULES ?? process.cwd()}/`);
const { chromium } = require("playwright-core");
const [turnpike, browserPath] = process.argv.slice(2).map((path) => resolve(path));
const WAIT_MS = 30_000;
const folder = mkdtempSync(join(tmpdir(), "turnpike-browser-"));
const bundle = readFileSync(join(dirname(require.resolve("mqtt/package.json")), "dist/mqtt.min.js"));

// What runs in the page: everything it received waits until it is asked for.
const script = `
function inbox() {
  const came = [], waiting = [];
  const take = (item) => (waiting.length ? waiting.shift()(item) : came.push(item));
  const next = () => new Promise((resolve, reject) => {
    if (came.length) return resolve(came.shift());
    const late = setTimeout(() => reject(new Error("nothing came")), ${WAIT_MS});
    waiting.push((item) => { clearTimeout(late); resolve(item); });
  });
  return { take, next };
}
function socket(url, protocols) {
  const { take, next } = inbox();
  const socket = new WebSocket(url, protocols);
  socket.onmessage = ({ data }) => take(data);
  socket.next = next;
  return new Promise((resolve, reject) => {
    socket.onopen = () => resolve(socket);
    socket.onclose = ({ code }) => { take({ code }); reject(new Error("refused")); };
  });
}
function events(url) {
  const { take, next } = inbox();
  const events = new EventSource(url);
  events.onmessage = ({ data }) => take(data);
  events.next = next;
  return new Promise((resolve, reject) => {
    events.onopen = () => resolve(events);
    events.onerror = () => { events.close(); reject(new Error("refused")); };
  });
}
async function client(url, options) {
  const { take, next } = inbox();
  const client = await mqtt.connectAsync(url, { reconnectPeriod: 0, ...options });
  client.on("message", (topic, payload) => take([topic, payload.toString()]));
  client.nextMessage = next;
  return client;
}
`;

function serve() {
  const server = createServer((request, response) => {
    const files = {
      "/": ["text/html", `<script src="mqtt.min.js"></script><script>${script}</script>`],
      "/mqtt.min.js": ["text/javascript", bundle],
    };
    const found = files[request.url];
    if (!found) return response.writeHead(404).end();
    response.writeHead(200, { "content-type": found[0] }).end(found[1]);
  });
  return new Promise((resolve) =>
    server.listen(0, "127.0.0.1", () =>
      resolve({ server, origin: `http://127.0.0.1:${server.address().port}` }),
    ),
  );
}

const [own, foreign] = await Promise.all([serve(), serve()]);
const broker = spawn(
  turnpike,
  ["serve", "--json", "--mqtt-address", "127.0.0.1:0", "--api-address", "127.0.0.1:0"],
  {
    cwd: folder,
    env: {
      PATH: process.env.PATH,
      TURNPIKE_DATA_DIR: join(folder, "data"),
      TURNPIKE_SHARDS: "2",
      TURNPIKE_LISTENERS__WS__ORIGINS: own.origin,
      TURNPIKE_LISTENERS__HTTP__ORIGINS: own.origin,
      TURNPIKE_LISTENERS__HTTP__CORS_ORIGINS: own.origin,
      TURNPIKE_CONTROL__MAIL: `file:${join(folder, "mail")}`,
      TURNPIKE_CONTROL__SELF_REGISTRATION: "true",
    },
    stdio: ["ignore", "pipe", "inherit"],
  },
);
let browser;
try {
  const line = createInterface(broker.stdout)[Symbol.asyncIterator]();
  const ready = JSON.parse((await line.next()).value);
  const { listeners, demo } = ready;
  const [one, two] = demo.clients;
  const topic = `m/${demo.domain}/c/${demo.channel}/page`;
  const place = { topic, one, two, ws: `ws://${listeners.ws}`, http: `http://${listeners.http}` };

  browser = await chromium.launchPersistentContext(join(folder, "profile"), {
    executablePath: browserPath,
    headless: true,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
  const page = await browser.newPage();
  page.setDefaultTimeout(WAIT_MS);
  await page.goto(own.origin);

  for (const protocolVersion of [4, 5]) {
    const came = await page.evaluate(
      async ({ topic, one, two, ws, protocolVersion }) => {
        const login = ({ id, secret }) => ({ username: id, password: secret, protocolVersion });
        const first = await client(`${ws}/mqtt`, login(one));
        const second = await client(`${ws}/mqtt`, login(two));
        await first.subscribeAsync(topic, { qos: 1 });
        await second.subscribeAsync(topic, { qos: 1 });
        const query = `?authorization=${encodeURIComponent(one.secret)}`;
        const raw = await socket(`${ws}/${topic}${query}`);
        const json = await socket(`${ws}/${topic}${query}`, "turnpike.json.v1");
        const came = [];
        // MQTT to sockets and to MQTT.
        await first.publishAsync(topic, "by MQTT", { qos: 1 });
        came.push(await second.nextMessage(), await first.nextMessage());
        came.push(await raw.next(), JSON.parse(await json.next()));
        // Sockets to each other and to MQTT.
        raw.send("by a socket");
        came.push(await first.nextMessage(), JSON.parse(await json.next()));
        json.send(JSON.stringify({ payload: "by an envelope", id: 1 }));
        came.push(await first.nextMessage(), await raw.next(), JSON.parse(await json.next()));
        raw.close();
        json.close();
        await first.endAsync();
        await second.endAsync();
        return came;
      },
      { ...place, protocolVersion },
    );
    const [byMqtt, again, raw, json, bySocket, socketJson, byEnvelope, envelopeRaw, told] = came;
    assert.deepEqual(byMqtt, [topic, "by MQTT"]);
    assert.deepEqual(again, byMqtt);
    assert.equal(raw, "by MQTT");
    assert.deepEqual([json.topic, json.payload], [topic, "by MQTT"]);
    assert.deepEqual(bySocket, [topic, "by a socket"]);
    assert.deepEqual([socketJson.topic, socketJson.payload], [topic, "by a socket"]);
    assert.deepEqual(byEnvelope, [topic, "by an envelope"]);
    assert.equal(envelopeRaw, "by an envelope");
    assert.deepEqual(told, { id: 1, code: 0 });
  }

  const overHttp = await page.evaluate(async ({ topic, one, two, http }) => {
    const query = `authorization=${encodeURIComponent(two.secret)}`;
    const stream = await events(`${http}/${topic}?${query}`);
    // A header of its own makes the browser ask first.
    const answer = await fetch(`${http}/${topic}?qos=1`, {
      method: "POST",
      headers: { authorization: `Client ${one.secret}`, "idempotency-key": "page" },
      body: "by fetch",
    });
    const event = await stream.next();
    stream.close();
    const refused = await fetch(`${http}/${topic}`, { method: "POST", body: "x" });
    return { status: answer.status, event, refused: (await refused.json()).message };
  }, place);
  assert.equal(overHttp.status, 202);
  assert.equal(overHttp.event, "by fetch");
  assert.match(overHttp.refused, /credential is missing/);

  await page.goto(foreign.origin);
  const refused = await page.evaluate(async ({ topic, one, ws, http }) => {
    const query = `?authorization=${encodeURIComponent(one.secret)}`;
    const fails = (attempt) => attempt.then(() => false, () => true);
    return {
      mqtt: await fails(socket(`${ws}/mqtt`, "mqtt")),
      socket: await fails(socket(`${ws}/${topic}${query}`)),
      overHttp: await fails(socket(`${http.replace("http", "ws")}/${topic}${query}`)),
      events: await fails(events(`${http}/${topic}${query}`)),
      fetch: await fails(fetch(`${http}/${topic}${query}`, { method: "POST", body: "x" })),
    };
  }, place);
  for (const [what, failed] of Object.entries(refused)) assert.ok(failed, `${what} was let in`);

  const mails = await browser.newPage();
  mails.setDefaultTimeout(WAIT_MS);
  await mailPages(mails, `http://${listeners.api}`, ready.admin, join(folder, "mail"));
  console.log("browser: all passed");
} finally {
  await browser?.close();
  broker.kill("SIGTERM");
  await new Promise((resolve) => broker.once("exit", resolve));
  own.server.close();
  foreign.server.close();
  rmSync(folder, { recursive: true, force: true });
}
