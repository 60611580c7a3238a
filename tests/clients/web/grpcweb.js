// gRPC-web in as many lines as it needs: it runs in a browser and in Node, wherever there is fetch.

/** A call that was refused. */
export class Refusal extends Error {
  /** `details` are the bytes of a google.rpc.Status, or none. */
  constructor(code, message, details) {
    super(message);
    this.code = code;
    this.details = details;
  }
}

/** Yields the answers of a call as bytes: one of a unary call, any number of a stream. */
export async function* call(endpoint, method, request, { metadata = {}, signal } = {}) {
  const headers = { "content-type": "application/grpc-web+proto", "x-grpc-web": "1", ...metadata };
  const answer = await fetch(`${endpoint}/${method}`, { method: "POST", headers, body: frame(request), signal });
  if (!answer.ok) throw new Refusal(2, `HTTP ${answer.status}`);
  // A refusal without a body has its trailers among the headers.
  if (answer.headers.has("grpc-status")) return finish(answer.headers);
  let rest = new Uint8Array();
  const reader = answer.body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) throw new Refusal(14, "the answer ended before its trailers");
      rest = joined(rest, value);
      for (let next; (next = unframe(rest)); rest = next.rest) {
        // The last frame is marked, and holds the trailers as text.
        if (next.flags & 0x80) return finish(new Headers(lines(next.bytes)));
        yield next.bytes;
      }
    }
  } finally {
    // Whoever leaves the loop early ends the call.
    await reader.cancel().catch(() => {});
  }
}

function finish(trailers) {
  const code = Number(trailers.get("grpc-status"));
  if (code === 0) return;
  const details = trailers.get("grpc-status-details-bin");
  throw new Refusal(code, decodeURIComponent(trailers.get("grpc-message") ?? ""), details && bytesOf(details));
}

const lines = (bytes) => new TextDecoder().decode(bytes).trim().split("\r\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1)]);

const bytesOf = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));

/** A flag, four bytes of length, the message. */
function frame(message) {
  const framed = new Uint8Array(5 + message.length);
  new DataView(framed.buffer).setUint32(1, message.length);
  framed.set(message, 5);
  return framed;
}

function unframe(bytes) {
  if (bytes.length < 5) return null;
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(1);
  if (bytes.length < 5 + length) return null;
  return { flags: bytes[0], bytes: bytes.subarray(5, 5 + length), rest: bytes.subarray(5 + length) };
}

function joined(one, other) {
  const both = new Uint8Array(one.length + other.length);
  both.set(one);
  both.set(other, one.length);
  return both;
}
