// The server's API, as this page needs it.

async function failure(answer) {
  let message = `${answer.status} ${answer.statusText}`;
  try {
    message = (await answer.json()).error.message;
  } catch {
    // not ours: the status says it
  }
  const error = new Error(message);
  error.status = answer.status;
  return error;
}

export class Api {
  constructor() {
    this.key = "";
  }

  headers() {
    const out = { "Content-Type": "application/json" };
    if (this.key) out.Authorization = `Bearer ${this.key}`;
    return out;
  }

  async get(path) {
    const answer = await fetch(path, { headers: this.headers() });
    if (!answer.ok) throw await failure(answer);
    return answer;
  }

  // The figures of /metrics that have no label but the model's: {halo_connections: 1, ...}
  async metrics() {
    const text = await (await this.get("/metrics")).text();
    return Object.fromEntries(
      [...text.matchAll(/^(halo_\w+)\{model_name="(?:[^"\\]|\\.)*"\} (\S+)$/gm)].map(([, name, value]) => [name, Number(value)]));
  }

  // The events of a stream, parsed, until its end or until `signal` aborts.
  async *stream(path, body, signal) {
    const answer = await fetch(path, {
      method: "POST",
      headers: this.headers(),
      body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true }, return_progress: true }),
      signal,
    });
    if (!answer.ok) throw await failure(answer);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      text += value;
      for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
        const event = text.slice(0, end);
        if (!event.startsWith("data: ")) continue; // a ping
        if (event === "data: [DONE]") return;
        const data = JSON.parse(event.slice(6));
        if (data.error) throw new Error(data.error.message);
        yield data;
      }
    }
  }
}
