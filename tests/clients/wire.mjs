// What programs in Node see of `halo serve` through fetch: whole answers, streams as they come, errors, and that an answer
// nobody waits for any more ends. Run by node.py.
import assert from "node:assert/strict";

const url = process.argv[2];
const user = [{ role: "user", content: "The old man" }];

async function post(path, body, more = {}) {
  return fetch(url + path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    ...more,
  });
}

async function* eventsOf(response) {
  assert.equal(response.status, 200);
  assert.match(response.headers.get("content-type"), /^text\/event-stream/);
  let rest = "";
  for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
    const events = (rest + piece).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.split("\n").find((line) => line.startsWith("data: "));
      if (data) yield data.slice(6);
    }
  }
  assert.equal(rest, "", "a stream ends behind an event");
}

async function figure(name) {
  const text = await (await fetch(url + "/metrics")).text();
  return Number(text.match(new RegExp(`^halo_${name}\\{.*\\} (\\S+)$`, "m"))?.[1] ?? 0);
}

async function until(what, holds) {
  for (let i = 0; i < 500; ++i) {
    if (await holds()) return;
    await new Promise((go) => setTimeout(go, 20));
  }
  assert.fail(what);
}

async function checkStreams() {
  const body = { model: "m", messages: user, max_tokens: 24, temperature: 0 };
  const whole = await (await post("/v1/chat/completions", body)).json();
  const more = { stream: true, stream_options: { include_usage: true } };
  let text = "";
  const events = [];
  for await (const event of eventsOf(await post("/v1/chat/completions", { ...body, ...more }))) {
    events.push(event);
    if (event !== "[DONE]") text += JSON.parse(event).choices[0]?.delta.content ?? "";
  }
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(events.at(-1), "[DONE]");
  assert.deepEqual(JSON.parse(events.at(-2)).choices, []);
  assert.equal(JSON.parse(events.at(-2)).usage.completion_tokens, whole.usage.completion_tokens);

  const responses = { input: "The old man", max_output_tokens: 24, temperature: 0, stream: true };
  let written = "";
  let last;
  for await (const event of eventsOf(await post("/v1/responses", responses))) {
    last = JSON.parse(event);
    if (last.type === "response.output_text.delta") written += last.delta;
  }
  assert.match(last.type, /^response\.(completed|incomplete)$/);
  assert.equal(written, text);
}

// Many at a time over the connections that fetch keeps open.
async function checkManyAtATime() {
  const body = { prompt: "It was", max_tokens: 8, temperature: 0 };
  const ask = async () => (await (await post("/v1/completions", body)).json()).choices[0].text;
  const alone = await ask();
  const all = await Promise.all(Array.from({ length: 24 }, ask));
  assert.deepEqual(new Set(all), new Set([alone]));
}

async function checkErrors() {
  const refused = async (status, body, path = "/v1/chat/completions") => {
    const response = await post(path, body);
    assert.equal(response.status, status);
    assert.match(response.headers.get("x-request-id"), /^req-/);
    return (await response.json()).error;
  };
  assert.equal((await refused(400, { messages: user, n: 17 })).param, "n");
  assert.equal((await refused(400, { messages: [{ role: "robot", content: "" }], stream: true })).param, "messages.0.role");
  assert.equal((await refused(400, { messages: user, max_tokens: 1e5 })).code, "context_length_exceeded");
  assert.equal((await refused(404, {}, "/nowhere")).code, "unknown_url");
  assert.equal((await fetch(url + "/v1/completions")).status, 405);
}

async function checkCancellation() {
  const before = await figure("cancelled_requests_total");
  const long = { prompt: "The", max_tokens: 900, ignore_eos: true };
  const kinds = 6;
  for (let i = 0; i < kinds; ++i) {
    // What runs below is then this one.
    await until("the one before goes on", async () => (await figure("num_requests_running")) === 0);
    const stop = new AbortController();
    const asked = post("/v1/completions", { ...long, stream: i % 2 === 0 }, { signal: stop.signal });
    if (i % 2 === 0) {
      const events = eventsOf(await asked);
      await events.next();
      if (i % 4 === 0) stop.abort();
      else await events.return(); // leaves the stream
      continue;
    }
    await until("nothing runs", async () => (await figure("num_requests_running")) > 0);
    stop.abort();
    await assert.rejects(asked, { name: "AbortError" });
  }
  await until("an answer that nobody reads goes on", async () => (await figure("num_requests_running")) === 0);
  assert.equal((await figure("cancelled_requests_total")) - before, kinds);
}

await checkStreams();
await checkManyAtATime();
await checkErrors();
await checkCancellation();
console.log(`node: ${process.version} is content`);
