// What a person does who clicks the links in mails, in a browser: resets a password, verifies an
// address, accepts an invitation with an account and without one.
import assert from "node:assert/strict";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";

// `mail` is the folder into which the control API at `api` writes its mails.
export async function mailPages(page, api, admin, mail) {
  const call = async (status, method, path, body, token) => {
    const headers = { "content-type": "application/json" };
    if (token) headers.authorization = `Bearer ${token}`;
    const answer = await fetch(api + path, { method, headers, body: body && JSON.stringify(body) });
    const text = await answer.text();
    assert.equal(answer.status, status, `${method} ${path}: ${text}`);
    return text ? JSON.parse(text) : null;
  };
  const login = async (username, password) =>
    (await call(201, "POST", "/users/tokens/issue", { username, password })).access_token;
  // The link in the next mail to an address, at the API of this test.
  const seen = new Set();
  const link = async (to) => {
    for (let tries = 0; tries < 200; tries++) {
      const files = existsSync(mail) ? readdirSync(mail) : [];
      for (const file of files.filter((name) => name.endsWith(".eml") && !seen.has(name))) {
        const text = readFileSync(join(mail, file), "utf8");
        const found = text.match(/http:\/\/127\.0\.0\.1:9000(\S+)/);
        if (!text.includes(`To: ${to}\r\n`) || !found) continue;
        seen.add(file);
        assert.match(found[1], /#token=[\w-]{43}$/, "the token is in the fragment");
        return api + found[1];
      }
      await setTimeout(50);
    }
    assert.fail(`no mail to ${to}`);
  };
  const faults = [];
  page.on("pageerror", (error) => faults.push(error.message));
  page.on("console", (message) => message.type() === "error" && faults.push(message.text()));
  const requests = [];
  page.on("request", (request) => requests.push(request));
  const open = async (to) => {
    const url = await link(to);
    await page.goto("about:blank");
    await page.goto(url);
    assert.equal(await page.evaluate(() => location.hash), "", "the token is in the address no more");
    return url.split("token=")[1];
  };
  const said = (text) => page.getByRole("status").filter({ hasText: text }).waitFor();
  const person = (name, more = {}) => ({
    first_name: name, last_name: "Tester", email: `${name}@pages.example`,
    credentials: { username: `page-${name}`, secret: "correct horse" }, ...more,
  });
  const root = await login(admin.username, admin.password);
  const tokens = [];

  await call(201, "POST", "/users", person("ann"), root);
  await call(201, "POST", "/password/reset-request", { email: "ann@pages.example" });
  tokens.push(await open("ann@pages.example"));
  await page.getByLabel("New password").fill("battery staple");
  await page.getByLabel("Once more").fill("battery");
  await page.getByRole("button").click();
  await said("confirm_password differs");
  await page.getByLabel("Once more").fill("battery staple");
  await page.getByRole("button").click();
  await said("Your password is set");
  const ann = await login("page-ann", "battery staple");

  await call(200, "POST", "/users/send-verification", undefined, ann);
  tokens.push(await open("ann@pages.example"));
  const verified = async () => "verified_at" in (await call(200, "GET", "/users/profile", undefined, ann));
  assert.ok(!(await verified()), "opening the page changes nothing");
  await page.getByRole("button").click();
  await said("is verified");
  assert.ok(await verified());

  const domain = await call(201, "POST", "/domains", { name: "Plant <b>4</b>", route: "pages" }, ann);
  const invitations = `/domains/${domain.id}/invitations`;
  const role = await call(201, "POST", `/domains/${domain.id}/roles`,
    { role_name: "crew", optional_actions: ["read"] }, ann);
  const invite = (name) => call(201, "POST", invitations,
    { invitee_email: `${name}@pages.example`, role_id: role.id }, ann);
  await call(201, "POST", "/users", person("bob"), root);
  for (const [name, answer] of [["bob", "Reject"], ["bob", "Accept"]]) {
    await invite(name);
    tokens.push(await open(`${name}@pages.example`));
    const form = page.locator("form").filter({ hasText: "I have an account" });
    await form.getByLabel("User name").fill(`page-${name}`);
    await form.getByLabel("Password").fill("wrong");
    await form.getByRole("button", { name: answer }).click();
    await said("wrong user name or password");
    await form.getByLabel("Password").fill("correct horse");
    await form.getByRole("button", { name: answer }).click();
    await said(`The invitation is ${answer.toLowerCase()}ed.`);
  }
  // Another domain invites the same address, which nobody is asked about.
  const other = await call(201, "POST", "/domains", { name: "Other", route: "other-pages" }, ann);
  const others = await call(201, "POST", `/domains/${other.id}/roles`,
    { role_name: "crew", optional_actions: ["read"] }, ann);
  await call(201, "POST", `/domains/${other.id}/invitations`,
    { invitee_email: "cyd@pages.example", role_id: others.id }, ann);
  tokens.push((await link("cyd@pages.example")).split("token=")[1]);
  await invite("cyd");
  tokens.push(await open("cyd@pages.example"));
  const form = page.locator("form").filter({ hasText: "I am new" });
  for (const [label, value] of [["First name", "Cyd"], ["Last name", "Tester"],
    ["E-mail address", "cyd@pages.example"], ["User name", "page-cyd"], ["Password", "correct horse"]]) {
    await form.getByLabel(label).fill(value);
  }
  await form.getByRole("button").click();
  await said("a member of Plant <b>4</b>.");
  const members = await call(200, "GET", `/domains/${domain.id}/roles/${role.id}/members`, undefined, ann);
  assert.equal(members.members.length, 2);
  const cyd = await login("page-cyd", "correct horse");
  const { invitations: pending } = await call(200, "GET", "/invitations?state=pending", undefined, cyd);
  assert.deepEqual(pending.map((one) => one.domain_id), [other.id], "one domain's is accepted alone");

  // An answer that is an error is told in the console as well, and nothing else is.
  const refused = /^Failed to load resource: the server responded with a status of 4/;
  assert.deepEqual(faults.filter((fault) => !refused.test(fault)), []);
  for (const request of requests) {
    const headers = await request.allHeaders();
    assert.ok(!("referer" in headers), `${request.url()} has a Referer`);
    const shown = request.url().split("#")[0] + JSON.stringify(headers);
    assert.ok(!tokens.some((token) => shown.includes(token)), `${request.url()} has a token`);
  }
}
