// What a web page does, from Node: node client.js HOST:PORT ACCOUNT
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import path from "node:path";

import { loadSync } from "@grpc/proto-loader";

import { Refusal, call } from "./grpcweb.js";

const ROOT = path.resolve(import.meta.dirname, "../../..");
const definition = loadSync(
  ["gureum/compute/v1/compute_service.proto", "gureum/gateway/v1/gateway_service.proto", "gureum/security/v1/security_service.proto", "google/rpc/status.proto", "google/rpc/error_details.proto"],
  { includeDirs: [path.join(ROOT, "proto"), path.join(ROOT, "third_party/proto")], keepCase: true, enums: String, longs: String, defaults: true, oneofs: true },
);

const CALL_MS = 30_000;
const ORIGIN = "http://localhost:3000";
const say = (what, text) => console.log(`  ${what.padEnd(10)} ${text}`);

/** A region as a page of one account sees it. */
class Page {
  constructor(endpoint, account) {
    this.endpoint = `http://${endpoint}`;
    // A browser adds the origin by itself.
    this.metadata = { "gureum-account": account, origin: ORIGIN };
  }

  /** The answers of a call, each decoded. */
  async *stream(service, method, request, signal = AbortSignal.timeout(CALL_MS)) {
    const { requestSerialize, responseDeserialize } = definition[service][method];
    for await (const bytes of call(this.endpoint, `${service}/${method}`, requestSerialize(request), { metadata: this.metadata, signal })) {
      yield responseDeserialize(Buffer.from(bytes));
    }
  }

  async call(service, method, request) {
    for await (const answer of this.stream(service, method, request)) return answer;
    throw new Error(`${method} gave no answer`);
  }

  /** What a call without parameters answers to a page that speaks base64: its first message's bytes as text. */
  async text(service, method) {
    const kind = "application/grpc-web-text";
    const headers = { ...this.metadata, "content-type": kind, accept: kind };
    const nothing = Buffer.alloc(5).toString("base64");
    const answer = await fetch(`${this.endpoint}/${service}/${method}`, { method: "POST", headers, body: nothing, signal: AbortSignal.timeout(CALL_MS) });
    assert.ok(answer.headers.get("content-type").startsWith(kind));
    const frames = Buffer.from(await answer.text(), "base64");
    assert.equal(frames[0], 0, "a message comes first, and no refusal");
    return frames.subarray(5, 5 + frames.readUInt32BE(1)).toString("latin1");
  }

  /** What the browser asks before the call: may a page of this origin? */
  preflight(origin) {
    const headers = { origin, "access-control-request-method": "POST", "access-control-request-headers": "content-type,gureum-account,x-grpc-web" };
    return fetch(`${this.endpoint}/gureum.compute.v1.ComputeService/DescribeInstances`, { method: "OPTIONS", headers });
  }
}

/** Waits for a call that must be refused; answers its code, EC2's reason, and the fields that are wrong. */
async function refusal(call) {
  const error = await call.then(() => assert.fail("the call passed, and should have been refused"), (error) => error);
  if (!(error instanceof Refusal) || !error.details) throw error;
  const refused = { code: error.code, reason: "", fields: [] };
  for (const { type_url, value } of definition["google.rpc.Status"].deserialize(Buffer.from(error.details)).details) {
    const type = type_url.split("/").pop();
    if (type === "google.rpc.ErrorInfo") refused.reason = definition[type].deserialize(value).reason;
    if (type === "google.rpc.BadRequest") refused.fields = definition[type].deserialize(value).field_violations.map(({ field }) => field);
  }
  say("refused", `${refused.code} ${refused.reason}: ${error.message}`);
  return refused;
}

async function visit(page) {
  const [compute, events, security] = ["gureum.compute.v1.ComputeService", "gureum.gateway.v1.EventService", "gureum.security.v1.SecurityService"];
  const asked = await page.preflight(ORIGIN);
  assert.equal(asked.headers.get("access-control-allow-origin"), ORIGIN);
  for (const header of ["content-type", "gureum-account", "x-grpc-web"]) assert.ok(asked.headers.get("access-control-allow-headers").includes(header), header);
  const foreign = await page.preflight("https://elsewhere.example");
  assert.equal(foreign.headers.get("access-control-allow-origin"), null, "any page may call a region on its reader's machine");
  say("preflight", `${ORIGIN} may call, https://elsewhere.example may not`);

  const name = `web-${randomUUID()}`;
  const { security_group: group } = await page.call(security, "CreateSecurityGroup", { client_token: name, group_name: name, description: "web" });
  say("created", group.group_id);

  assert.ok((await page.text(security, "DescribeSecurityGroups")).includes(group.group_id));
  say("in text", "base64 both ways");

  // The stream begins with what happened before it: the group is in it, whenever it was opened.
  const leave = new AbortController();
  for await (const { event } of page.stream(events, "Subscribe", { after_place: 0 }, leave.signal)) {
    if (event?.subject !== group.group_id) continue;
    assert.equal(event.type, "gureum.security.v1.SecurityGroupCreated");
    say("watched", `${event.type} at place ${event.place}`);
    break;
  }

  const missing = await refusal(page.call(compute, "DescribeInstances", { instance_ids: ["i-0123456789abcdef0"] }));
  assert.deepEqual([missing.code, missing.reason], [5, "InvalidInstanceID.NotFound"]);
  const wrong = await refusal(page.call(compute, "RunInstances", { client_token: "x".repeat(65), min_count: 1, max_count: 1001 }));
  assert.equal(wrong.code, 3);
  for (const field of ["client_token", "max_count"]) assert.ok(wrong.fields.includes(field), `${field} is not among ${wrong.fields}`);

  await page.call(security, "DeleteSecurityGroup", { client_token: name, group_id: group.group_id });
  say("cleaned up", group.group_id);
}

const [endpoint, account, ...rest] = process.argv.slice(2);
if (!account || rest.length > 0) {
  console.error("usage: node client.js HOST:PORT ACCOUNT");
  process.exit(2);
}
await visit(new Page(endpoint, account));
