// The life of an instance, from Node: node client.js HOST:PORT ACCOUNT
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import path from "node:path";

import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const ROOT = path.resolve(import.meta.dirname, "../../..");
// Every call has a deadline: without one, a client waits for ever. A boot takes seconds.
const CALL_MS = 30_000;
const BOOT_MS = 60_000;

// No code is generated: the protos are read as they are. Fields keep their names, enums are strings, and 64-bit
// numbers are strings too, as JavaScript's own are exact only up to 2^53.
const definition = loadSync(
  ["gureum/compute/v1/compute_service.proto", "gureum/security/v1/security_service.proto", "google/rpc/status.proto", "google/rpc/error_details.proto"],
  { includeDirs: [path.join(ROOT, "proto"), path.join(ROOT, "third_party/proto")], keepCase: true, enums: String, longs: String, defaults: true, oneofs: true },
);
const { gureum } = grpc.loadPackageDefinition(definition);

const say = (what, text) => console.log(`  ${what.padEnd(10)} ${text}`);
const deadline = (ms) => ({ deadline: Date.now() + ms });

/** The services of a region as one account sees them. */
class Region {
  constructor(endpoint, account) {
    const credentials = grpc.credentials.createInsecure();
    this.compute = new gureum.compute.v1.ComputeService(endpoint, credentials);
    this.security = new gureum.security.v1.SecurityService(endpoint, credentials);
    // The account is metadata of every call, never a field. Two accounts never see each other.
    this.scope = new grpc.Metadata();
    this.scope.set("gureum-account", account);
  }

  close() {
    this.compute.close();
    this.security.close();
  }

  /** One call as a promise: grpc-js itself answers by callback. */
  call(service, method, request) {
    return new Promise((resolve, reject) => {
      service[method](request, this.scope, deadline(CALL_MS), (error, answer) => (error ? reject(error) : resolve(answer)));
    });
  }

  /**
   * Watches until the instance is in the state `goal`; answers the place at which that was told.
   *
   * Without `after` the stream begins with everything as it is now, so a change that came before the watch is not
   * missed; with the place of an earlier answer it goes on from there.
   */
  async follow(id, goal, after) {
    const stream = this.compute.Watch({ after_sequence: after }, this.scope, deadline(BOOT_MS));
    try {
      for await (const { event } of stream) {
        // Other resources change too, and now and then the stream only says how far it has come.
        if (event?.instance?.instance_id !== id) continue;
        say("watched", `${id} is ${event.instance.state}`);
        if (event.instance.state === goal) return event.metadata.sequence;
      }
    } finally {
      // Leaving the loop does not end the call, and what ends it is told as an error.
      stream.on("error", () => {});
      stream.cancel();
    }
    throw new Error(`the watch ended before ${id} was ${goal}`);
  }
}

/** Waits for a call that must be refused; answers its code, EC2's reason, and the fields that are wrong. */
async function refusal(call) {
  const error = await call.then(() => assert.fail("the call passed, and should have been refused"), (error) => error);
  // The details of an error travel as a google.rpc.Status, in which each is wrapped in an Any.
  const [bytes] = error.metadata?.get("grpc-status-details-bin") ?? [];
  if (!bytes) throw error;
  const refused = { code: error.code, reason: "", fields: [] };
  for (const { type_url, value } of definition["google.rpc.Status"].deserialize(bytes).details) {
    const type = type_url.split("/").pop();
    if (type === "google.rpc.ErrorInfo") refused.reason = definition[type].deserialize(value).reason;
    if (type === "google.rpc.BadRequest") refused.fields = definition[type].deserialize(value).field_violations.map(({ field }) => field);
  }
  say("refused", `${grpc.status[error.code]} ${refused.reason}: ${error.details}`);
  return refused;
}

async function live(region) {
  const { compute, security } = region;
  // A client token makes a call safe to repeat: the same token gives the same answer, never a second instance.
  const name = `node-${randomUUID()}`;
  const client_token = name;

  await region.call(security, "CreateKeyPair", { client_token, key_name: name, key_type: "KEY_TYPE_ED25519" });
  const { security_group: group } = await region.call(security, "CreateSecurityGroup", { client_token, group_name: name, description: "ssh" });
  const ip_permissions = [{ ip_protocol: "tcp", from_port: 22, to_port: 22, ip_ranges: [{ cidr: "0.0.0.0/0" }] }];
  const { security_group_rules: rules } = await region.call(security, "AuthorizeSecurityGroupIngress", { client_token, group_id: group.group_id, ip_permissions });
  say("created", `key pair ${name}, ${group.group_id} with ${rules[0].security_group_rule_id}`);

  const filters = [{ name: "name", values: ["al2023-ami-*"] }, { name: "architecture", values: ["x86_64"] }];
  const { images } = await region.call(compute, "DescribeImages", { owners: ["amazon"], filters });
  // The newest of them.
  const [image] = images.sort((a, b) => Number(b.creation_time.seconds) - Number(a.creation_time.seconds));
  say("chose", `${image.image_id} ${image.name}`);

  const tags = [{ key: "Name", value: name }];
  const spec = {
    image_id: image.image_id,
    instance_type: "t3.micro",
    key_name: name,
    security_group_ids: [group.group_id],
    tag_specifications: [{ resource_type: "instance", tags }],
  };
  const launch = { client_token, spec, min_count: 1, max_count: 1 };
  const id = (await region.call(compute, "RunInstances", launch)).instances[0].instance_id;
  const again = (await region.call(compute, "RunInstances", launch)).instances[0].instance_id;
  assert.equal(again, id, "the same token launched twice");
  say("launched", id);
  const place = await region.follow(id, "INSTANCE_STATE_RUNNING");

  const { instances: byId } = await region.call(compute, "DescribeInstances", { instance_ids: [id] });
  const { instances: byTag } = await region.call(compute, "DescribeInstances", { filters: [{ name: "tag:Name", values: [name] }] });
  for (const found of [byId, byTag]) assert.deepEqual(found.map((it) => it.instance_id), [id]);
  assert.deepEqual({ tags: byId[0].tags, key_name: byId[0].key_name }, { tags, key_name: name });
  say("found", `${id} by id and by tag: ${byId[0].instance_type}, ${byId[0].private_ip_address}, ${byId[0].placement.availability_zone}`);

  const missing = await refusal(region.call(compute, "DescribeInstances", { instance_ids: ["i-0123456789abcdef0"] }));
  assert.deepEqual([missing.code, missing.reason], [grpc.status.NOT_FOUND, "InvalidInstanceID.NotFound"]);
  // Every field that is wrong is named at once, not one after the other.
  const wrong = await refusal(region.call(compute, "RunInstances", { ...launch, client_token: "x".repeat(65), max_count: 1001 }));
  assert.equal(wrong.code, grpc.status.INVALID_ARGUMENT);
  for (const field of ["client_token", "max_count"]) assert.ok(wrong.fields.includes(field), `${field} is not among ${wrong.fields}`);

  await region.call(compute, "TerminateInstances", { client_token, instance_ids: [id] });
  await region.follow(id, "INSTANCE_STATE_TERMINATED", place);
  await region.call(security, "DeleteSecurityGroup", { client_token, group_id: group.group_id });
  await region.call(security, "DeleteKeyPair", { client_token, key_name: name });
  say("cleaned up", `${group.group_id} and the key pair`);
}

const [endpoint, account, ...rest] = process.argv.slice(2);
if (!account || rest.length > 0) {
  console.error("usage: node client.js HOST:PORT ACCOUNT");
  process.exit(2);
}
const region = new Region(endpoint, account);
try {
  await live(region);
} finally {
  region.close();
}
