// The published JavaScript SDK of Magistrala against a running server: every flow of the control API.
// Usage: node magistrala_sdk.mjs READY_JSON, with @absmach/magistrala-sdk installed where node finds it.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.NODE_MODULES ?? process.cwd()}/`);
const SDK = require("@absmach/magistrala-sdk").default;
const ready = JSON.parse(readFileSync(process.argv[2], "utf8"));
const url = `http://${ready.listeners.api}`;
const sdk = new SDK({
  usersUrl: url, clientsUrl: url, domainsUrl: url, groupsUrl: url, channelsUrl: url,
  authUrl: url, journalUrl: url, httpAdapterUrl: `http://${ready.listeners.http}`,
});
const unique = Date.now().toString(36);
const page = { offset: 0, limit: 10 };
const PASSWORD = "correct horse";

async function refused(promise, status) {
  const error = await promise.then(() => assert.fail("it succeeded"), (error) => error);
  assert.equal(error.status, status, JSON.stringify(error));
  assert.ok(error.error, "an error has a text");
}

async function person(name, admin) {
  const username = `${name}-${unique}`;
  const user = await sdk.Users.Create({
    first_name: name, last_name: "Tester", email: `${username}@example.com`,
    credentials: { username, secret: PASSWORD },
  }, admin);
  const tokens = await sdk.Users.CreateToken({ username, password: PASSWORD });
  return { ...user, token: tokens.access_token, refresh: tokens.refresh_token };
}

const { username, password } = ready.admin;
const admin = (await sdk.Users.CreateToken({ username, password })).access_token;
await refused(sdk.Users.CreateToken({ username, password: "wrong password" }), 401);

// Users.
const ann = await person("ann", admin);
const bob = await person("bob", admin);
const refreshed = await sdk.Users.RefreshToken(ann.refresh);
ann.token = refreshed.access_token;
assert.equal((await sdk.Users.UserProfile(ann.token)).id, ann.id);
assert.equal((await sdk.Users.User(ann.id, ann.token)).email, ann.email);
assert.equal((await sdk.Users.Update({ id: ann.id, first_name: "Anna" }, ann.token)).first_name, "Anna");
await sdk.Users.UpdateUserTags({ id: ann.id, tags: ["a"] }, ann.token);
await sdk.Users.UpdateEmail({ id: ann.id, email: `anna-${unique}@example.com` }, ann.token);
await sdk.Users.UpdateUsername({ id: ann.id, credentials: { username: `anna-${unique}` } }, ann.token);
await sdk.Users.UpdateProfilePicture({ id: ann.id, profile_picture: "https://x.example/p" }, ann.token);
await sdk.Users.UpdateUserPassword(PASSWORD, `${PASSWORD}!`, ann.token);
ann.token = (await sdk.Users.CreateToken({ username: `anna-${unique}`, password: `${PASSWORD}!` })).access_token;
assert.ok((await sdk.Users.Users(page, admin)).total >= 3);
assert.equal((await sdk.Users.SearchUsers({ ...page, username: bob.credentials.username }, ann.token)).users.length, 1);
await sdk.Users.UpdateUserRole({ id: bob.id, role: "admin" }, admin);
await sdk.Users.UpdateUserRole({ id: bob.id, role: "user" }, admin);
await sdk.Users.Disable(bob.id, admin);
await sdk.Users.Enable(bob.id, admin);
bob.token = (await sdk.Users.CreateToken({ username: bob.credentials.username, password: PASSWORD })).access_token;

// Domains.
const domain = await sdk.Domains.CreateDomain({ name: "Plant", route: `plant-${unique}` }, ann.token);
assert.equal(domain.status, "enabled");
await refused(sdk.Domains.CreateDomain({ name: "Plant", route: `plant-${unique}` }, ann.token), 409);
await sdk.Domains.UpdateDomain({ id: domain.id, name: "Plant 1" }, ann.token);
assert.equal((await sdk.Domains.Domain(domain.id, ann.token, true)).roles.length, 1);
assert.equal((await sdk.Domains.Domains(page, ann.token)).domains.length, 1);
assert.equal((await sdk.Domains.ListUserDomains(ann.id, page, ann.token)).domains.length, 1);
await sdk.Domains.DisableDomain(domain.id, ann.token);
await sdk.Domains.EnableDomain(domain.id, ann.token);
await sdk.Domains.FreezeDomain(domain.id, admin);
await sdk.Domains.EnableDomain(domain.id, admin);

// Roles of a domain, and an invitation to one.
assert.equal((await sdk.Domains.ListDomainActions(ann.token)).length, 42);
const crew = await sdk.Domains.CreateDomainRole(domain.id, "crew", ann.token, ["read"], []);
await sdk.Domains.SendInvitation(bob.id, domain.id, crew.id, ann.token);
assert.equal((await sdk.Domains.ListDomainInvitations(page, domain.id, ann.token)).invitations.length, 1);
assert.equal((await sdk.Domains.ListUserInvitations(page, bob.token)).invitations.length, 1);
assert.equal((await sdk.Domains.ViewInvitation(bob.id, domain.id, ann.token)).role_id, crew.id);
await sdk.Domains.RejectInvitation(domain.id, bob.token);
await sdk.Domains.SendInvitation(bob.id, domain.id, crew.id, ann.token, true);
await sdk.Domains.AcceptInvitation(domain.id, bob.token);
assert.equal((await sdk.Domains.ListDomainMembers(domain.id, page, ann.token)).members.length, 2);
const listed = await sdk.Domains.ListDomainRoleMembers(domain.id, crew.id, page, ann.token);
assert.deepEqual(listed.members, [bob.id]);
await sdk.Domains.DeleteInvitation(bob.id, domain.id, bob.token);

// The same calls exist for roles on every kind of object.
async function roles(api, kind, id, inDomain) {
  // Domain roles take no further domain; the others take it behind the object or the role's name.
  const at = inDomain ? [id, domain.id] : [id];
  const name = (verb, noun = "") => `${verb}${kind}${noun}`;
  const create = {
    Domain: () => api.CreateDomainRole(id, "staff", ann.token, ["read"], []),
    Group: () => api.CreateGroupRole(id, domain.id, "staff", ann.token, ["read"], []),
    Client: () => api.CreateClientRole(id, "staff", domain.id, ann.token, ["read"], []),
    Channel: () => api.CreateChannelRole(id, "staff", domain.id, ann.token, ["read"], []),
  };
  const role = await create[kind]();
  assert.ok((await api[`List${kind}Roles`](...at, page, ann.token)).roles.length >= 2);
  assert.equal((await api[name("View", "Role")](...at, role.id, ann.token)).name, "staff");
  await api[name("Update", "Role")](...at, role.id, { name: "people" }, ann.token);
  assert.deepEqual(await api[name("Add", "RoleActions")](...at, role.id, ["update"], ann.token), ["update"]);
  assert.equal((await api[name("List", "RoleActions")](...at, role.id, ann.token)).length, 2);
  await api[name("Delete", "RoleActions")](...at, role.id, ["update"], ann.token);
  await api[`DeleteAll${kind}RoleActions`](...at, role.id, ann.token);
  if (inDomain) {
    assert.deepEqual(await api[name("Add", "RoleMembers")](...at, role.id, [bob.id], ann.token), [bob.id]);
    assert.equal((await api[name("List", "RoleMembers")](...at, role.id, page, ann.token)).members.length, 1);
    await api[name("Delete", "RoleMembers")](...at, role.id, [bob.id], ann.token);
    await api[`DeleteAll${kind}RoleMembers`](...at, role.id, ann.token);
  }
  assert.ok((await api[`List${kind}Members`](...at, page, ann.token)).members.length >= 1);
  await api[name("Delete", "Role")](...at, role.id, ann.token);
}
await roles(sdk.Domains, "Domain", domain.id, false);

// Groups.
const group = async (name, parent_id) => sdk.Groups.CreateGroup({ name, parent_id }, domain.id, ann.token);
const top = await group("top");
const low = await group("low", top.id);
assert.equal((await sdk.Groups.ListGroupActions(domain.id, ann.token)).length, 65);
assert.equal((await sdk.Groups.Group(top.id, domain.id, ann.token, true)).roles.length, 2);
assert.equal((await sdk.Groups.Groups(page, domain.id, ann.token)).groups.length, 2);
await sdk.Groups.UpdateGroup({ id: top.id, name: "Top", description: "d" }, domain.id, ann.token);
await sdk.Groups.UpdateGroupTags({ id: top.id, tags: ["t"] }, domain.id, ann.token);
await sdk.Groups.DisableGroup(top.id, domain.id, ann.token);
await sdk.Groups.EnableGroup(top.id, domain.id, ann.token);
assert.equal((await sdk.Groups.RetrieveGroupHierarchy(top.id, domain.id, { level: 5, dir: -1, tree: false }, ann.token)).groups.length, 2);
assert.equal((await sdk.Groups.ListChildrenGroups(top.id, domain.id, page, ann.token)).groups.length, 1);
await sdk.Groups.RemoveParentGroup(low.id, domain.id, ann.token);
await sdk.Groups.AddParentGroup(low.id, domain.id, top.id, ann.token);
await sdk.Groups.RemoveChildrenGroups(top.id, domain.id, [low.id], ann.token);
await sdk.Groups.AddChildrenGroups(top.id, domain.id, [low.id], ann.token);
await sdk.Groups.RemoveAllChildrenGroups(top.id, domain.id, ann.token);
await roles(sdk.Groups, "Group", top.id, true);

// Clients.
const client = await sdk.Clients.CreateClient({ name: "pump", tags: ["wet"] }, domain.id, ann.token);
assert.ok(client.credentials.secret.length >= 36);
assert.equal((await sdk.Clients.CreateClients([{ name: "a" }, { name: "b" }], domain.id, ann.token)).clients.length, 2);
assert.equal((await sdk.Clients.ListClientActions(domain.id, ann.token)).length, 9);
assert.equal((await sdk.Clients.Clients(page, domain.id, ann.token)).clients.length, 3);
assert.equal((await sdk.Clients.Client(client.id, domain.id, ann.token, true)).roles.length, 2);
await sdk.Clients.UpdateClient({ id: client.id, name: "Pump", metadata: { hall: 2 } }, domain.id, ann.token);
await sdk.Clients.UpdateClientTags({ id: client.id, tags: ["dry"] }, domain.id, ann.token);
await sdk.Clients.UpdateClientSecret({ id: client.id, credentials: { secret: "other secret" } }, domain.id, ann.token);
await sdk.Clients.Disable(client.id, domain.id, ann.token);
await sdk.Clients.Enable(client.id, domain.id, ann.token);
await sdk.Clients.setClientParentGroup(domain.id, client.id, top.id, ann.token);
await sdk.Clients.DeleteClientParentGroup(domain.id, client.id, ann.token);
await roles(sdk.Clients, "Client", client.id, true);

// Channels, and what connects them with clients.
const channel = await sdk.Channels.CreateChannel({ name: "line" }, domain.id, ann.token);
assert.equal((await sdk.Channels.CreateChannels([{ name: "a" }], domain.id, ann.token)).channels.length, 1);
assert.equal((await sdk.Channels.ListChannelActions(domain.id, ann.token)).length, 11);
assert.equal((await sdk.Channels.Channels(page, domain.id, ann.token)).channels.length, 2);
assert.equal((await sdk.Channels.Channel(channel.id, domain.id, ann.token)).name, "line");
await sdk.Channels.UpdateChannelNameAndMetadata({ id: channel.id, name: "Line" }, domain.id, ann.token);
await sdk.Channels.UpdateChannelTags({ id: channel.id, tags: ["x"] }, domain.id, ann.token);
await sdk.Channels.DisableChannel(channel.id, domain.id, ann.token);
await sdk.Channels.EnableChannel(channel.id, domain.id, ann.token);
await sdk.Channels.SetChannelParentGroup(domain.id, channel.id, top.id, ann.token);
await sdk.Channels.DeleteChannelParentGroup(domain.id, channel.id, ann.token);
const both = ["publish", "subscribe"];
await sdk.Channels.Connect([client.id], [channel.id], both, domain.id, ann.token);
await refused(sdk.Channels.Connect([client.id], [channel.id], both, domain.id, ann.token), 409);
await sdk.Channels.Disconnect([client.id], [channel.id], both, domain.id, ann.token);
await sdk.Channels.ConnectClient([client.id], channel.id, both, domain.id, ann.token);
await sdk.Messages.Send(domain.id, channel.id, '{"v":1}', "other secret");
await sdk.Messages.Send(domain.id, `${channel.id}.line.4`, '{"v":2}', "other secret");
await refused(sdk.Messages.Send(domain.id, channel.id, '{"v":1}', "no secret"), 401);
await sdk.Channels.DisconnectClient([client.id], channel.id, both, domain.id, ann.token);
await refused(sdk.Messages.Send(domain.id, channel.id, '{"v":3}', "other secret"), 403);
await roles(sdk.Channels, "Channel", channel.id, true);
for (const list of ["ListUserGroups", "ListUserChannels"]) {
  assert.ok((await sdk.Users[list](domain.id, ann.id, page, ann.token)).total >= 2);
}
assert.equal((await sdk.Users.ListUserClients(ann.id, domain.id, page, ann.token)).total, 3);

// Personal access tokens.
const pat = await sdk.PATs.CreatePAT("ci", "20h", ann.token, "d");
assert.ok(pat.secret.startsWith("pat_"));
assert.equal((await sdk.PATs.ListPATS(page, ann.token)).pats.length, 1);
assert.equal((await sdk.PATs.ViewPAT(pat.id, ann.token)).name, "ci");
await sdk.PATs.UpdateName("cd", pat.id, ann.token);
await sdk.PATs.UpdateDescription("e", pat.id, ann.token);
await refused(sdk.Clients.Client(client.id, domain.id, pat.secret), 403);
await sdk.PATs.AddScope([{ domain_id: domain.id, entity_type: "clients", entity_id: "*", operation: "view" }], pat.id, ann.token);
assert.equal((await sdk.Clients.Client(client.id, domain.id, pat.secret)).id, client.id);
const scopes = await sdk.PATs.ListScopes(pat.id, page, ann.token);
await sdk.PATs.DeleteScopes(pat.id, [scopes.scopes[0].id], ann.token);
await sdk.PATs.DeleteAllScopes(pat.id, ann.token);
assert.ok((await sdk.PATs.ResetSecret("1h", pat.id, ann.token)).secret);
await sdk.PATs.RevokePAT(pat.id, ann.token);
await sdk.PATs.DeletePAT(pat.id, ann.token);
await sdk.PATs.DeleteAllPATs(ann.token);

// Journal and health.
assert.ok((await sdk.Journal.EntityJournals("client", client.id, domain.id, page, ann.token)).journals.length > 2);
assert.equal((await sdk.Journal.ClientTelemetry(client.id, domain.id, ann.token)).client_id, client.id);
assert.ok((await sdk.Journal.UserJournals(ann.id, page, ann.token)).journals.length > 2);
assert.equal((await sdk.Health.Health("users")).status, "pass");

// And all of it goes away again.
await sdk.Channels.DeleteChannel(channel.id, domain.id, ann.token);
await sdk.Clients.DeleteClient(client.id, domain.id, ann.token);
await sdk.Groups.DeleteGroup(top.id, domain.id, ann.token);
await refused(sdk.Clients.Client(client.id, domain.id, ann.token), 404);
await refused(sdk.Clients.Client(client.id, domain.id, bob.token), 403);
await sdk.Users.DeleteUser(bob.id, admin);
await refused(sdk.Users.UserProfile(bob.token), 401);
console.log("magistrala-sdk: all flows passed");
