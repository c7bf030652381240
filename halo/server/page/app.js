// The conversation: what is shown, kept and asked.
import { Api } from "/page/api.js";
import { markdown } from "/page/markdown.js";

const at = (id) => document.getElementById(id);
const api = new Api();
const FIELDS = ["system", "temperature", "top_p", "top_k", "max_tokens", "seed", "key", "theme"];
const DEFAULTS = { temperature: "0.7", top_p: "1", top_k: "0", max_tokens: "0", theme: "auto" };

let turns = []; // {role: "user" | "assistant" | "document", text, thoughts, figures, total}
let files = []; // {name, text}, to go with the next message
let model = null;
let running = null; // AbortController of the answer that grows

function notice(text) {
  at("notice").textContent = text;
  at("notice").hidden = !text;
}

function keep() {
  const settings = Object.fromEntries(FIELDS.filter((f) => f !== "key").map((f) => [f, at(f).value]));
  try {
    localStorage.setItem("halo", JSON.stringify({ turns, settings }));
  } catch {
    // a conversation too long to keep is gone after a reload
  }
  sessionStorage.setItem("halo-key", at("key").value);
}

function restore() {
  let kept = {};
  try {
    kept = JSON.parse(localStorage.getItem("halo")) ?? {};
  } catch {
    // what is there is not ours
  }
  turns = kept.turns ?? [];
  for (const field of FIELDS) at(field).value = kept.settings?.[field] ?? DEFAULTS[field] ?? "";
  at("key").value = sessionStorage.getItem("halo-key") ?? "";
  heed();
}

// What settings change at once.
function heed() {
  api.key = at("key").value;
  const theme = at("theme").value;
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

function button(text, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.addEventListener("click", act);
  return made;
}

function tools(turn, index) {
  const row = document.createElement("div");
  row.className = "tools";
  if (!running && turn.role === "user") row.append(button("Edit", () => edit(index)));
  if (!running && turn.role === "assistant" && index === turns.length - 1)
    row.append(button("Again", () => again(index)));
  if (!running && turn.role === "document") row.append(button("Continue", () => answer()));
  const figures = document.createElement("span");
  figures.className = "figures";
  figures.textContent = turn.figures ?? "";
  row.append(figures);
  return row;
}

function draw_turn(turn, index) {
  const made = document.createElement("article");
  made.className = `turn ${turn.role}`;
  if (turn.thoughts) {
    const thoughts = document.createElement("details");
    thoughts.className = "thoughts";
    thoughts.open = !turn.text;
    const summary = document.createElement("summary");
    summary.textContent = "Thoughts";
    thoughts.append(summary, turn.thoughts);
    made.append(thoughts);
  }
  const body = document.createElement("div");
  body.className = "body";
  if (turn.role === "assistant") body.append(markdown(turn.text));
  else body.textContent = turn.text;
  made.append(body, tools(turn, index));
  return made;
}

function draw() {
  at("talk").replaceChildren(...turns.map(draw_turn));
  scroll(true);
}

let drawing = false;
// The last turn, at most once a frame.
function draw_last() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    const index = turns.length - 1;
    if (index >= 0) at("talk").lastChild?.replaceWith(draw_turn(turns[index], index));
    scroll(false);
  });
}

// Follows the end, unless the reader has gone up.
function scroll(always) {
  const talk = at("talk");
  const below = talk.scrollHeight - talk.scrollTop - talk.clientHeight;
  if (always || below < 120) talk.scrollTop = talk.scrollHeight;
}

// Tokens of the conversation as of the last answer that came to its end.
function total() {
  return turns.findLast((turn) => turn.total)?.total ?? 0;
}

function show_context(tokens) {
  const most = model?.max_model_len ?? 0;
  at("context").value = most ? Math.min(1, tokens / most) : 0;
  at("context-text").textContent = most ? `${tokens.toLocaleString()} of ${most.toLocaleString()}` : "";
}

// What the server's memory holds, as long as an answer is under way and once behind it.
async function show_memory() {
  for (let last = false; !last;) {
    last = !running;
    try {
      const figures = await api.metrics();
      for (const [id, used, all] of [
        ["states", figures.halo_recurrent_state_slots_used, figures.halo_recurrent_state_slots],
        ["keys", figures.halo_kv_cache_usage_perc, 1]]) {
        at(id).value = all ? used / all : 0;
        at(id).title = `${Math.round(100 * at(id).value)}% in use`;
      }
    } catch {
      return; // the answer says what is wrong
    }
    if (!last) await new Promise((later) => setTimeout(later, 1000));
  }
}

function figures_of(usage, timings) {
  const cached = usage.prompt_tokens_details.cached_tokens;
  const reason = usage.prompt_tokens_details.cache_miss_reason;
  const reused = cached ? `${cached.toLocaleString()} reused` : reason ? `none reused: ${reason}` : "none reused";
  const rate = timings?.predicted_per_second ?? 0;
  at("rate").textContent = rate ? `${rate.toFixed(1)} tokens/s` : "";
  return `${usage.prompt_tokens.toLocaleString()} tokens read, ${reused}; ${usage.completion_tokens.toLocaleString()} written`;
}

function parameters() {
  const out = { model: model?.id, temperature: Number(at("temperature").value), top_p: Number(at("top_p").value) };
  const top_k = Number(at("top_k").value), most = Number(at("max_tokens").value);
  if (top_k > 0) out.top_k = top_k;
  if (most > 0) out.max_tokens = most;
  if (at("seed").value !== "") out.seed = Number(at("seed").value);
  return out;
}

function set_running(controller) {
  running = controller;
  at("stop").hidden = !controller;
  at("send").disabled = !!controller;
  if (!controller) {
    at("reading").hidden = true;
    at("reading-text").textContent = "";
  }
}

function take_event(event, turn) {
  if (event.prompt_progress) {
    const { processed, total } = event.prompt_progress;
    at("reading").hidden = processed >= total;
    at("reading").value = total ? processed / total : 0;
    at("reading-text").textContent = processed < total ? `reading ${processed.toLocaleString()} of ${total.toLocaleString()}` : "";
  }
  const choice = event.choices?.[0];
  if (choice) {
    turn.text += choice.delta?.content ?? choice.text ?? "";
    turn.thoughts = (turn.thoughts ?? "") + (choice.delta?.reasoning_content ?? "");
    if (choice.finish_reason === "length") turn.cut = true;
  }
  if (event.usage) {
    turn.figures = figures_of(event.usage, event.timings) + (turn.cut ? "; cut off at the limit" : "");
    turn.total = event.usage.total_tokens;
    show_context(turn.total);
  }
}

// Asks for what follows the turns that there are.
async function answer() {
  const chats = model.meta.chat;
  let path = "/v1/completions", body = parameters(), turn;
  if (chats) {
    path = "/v1/chat/completions";
    const system = at("system").value.trim();
    body.messages = turns.map(({ role, text }) => ({ role, content: text }));
    if (system) body.messages.unshift({ role: "system", content: system });
    turn = { role: "assistant", text: "" };
    turns.push(turn);
  } else {
    turn = turns[turns.length - 1];
    body.prompt = turn.text;
    body.max_tokens ??= 256;
    turn.cut = false;
  }
  notice("");
  set_running(new AbortController());
  show_memory();
  draw();
  try {
    for await (const event of api.stream(path, body, running.signal)) {
      take_event(event, turn);
      draw_last();
    }
  } catch (error) {
    if (error.name === "AbortError") turn.figures = "stopped";
    else fail(error);
  }
  set_running(null);
  if (chats && !turn.text && !turn.thoughts) turns.pop();
  draw();
  keep();
  at("words").focus();
}

function fail(error) {
  notice(error.status === 401 ? "This server wants a key: give it in the settings." : error.message);
  if (error.status === 401) open_settings(true);
}

function send() {
  const words = at("words").value;
  const parts = files.map((file) => `File ${file.name}:\n\n${file.text}`);
  if (words.trim()) parts.push(words);
  if (!parts.length || running || !model) return;
  at("words").value = "";
  files = [];
  draw_files();
  const text = parts.join("\n\n");
  if (model.meta.chat) turns.push({ role: "user", text });
  else if (turns.length) turns[0].text += text;
  else turns.push({ role: "document", text });
  answer();
}

// Takes a message back into the box; what came after it goes, what came before is not read again.
function edit(index) {
  at("words").value = turns[index].text;
  turns.length = index;
  draw();
  show_context(total());
  keep();
  at("words").focus();
}

function again(index) {
  turns.length = index;
  answer();
}

function draw_files() {
  at("files").replaceChildren(...files.map((file, index) => {
    const item = document.createElement("li");
    item.append(`${file.name}, ${file.text.length.toLocaleString()} characters `,
      button("Remove", () => { files.splice(index, 1); draw_files(); }));
    return item;
  }));
}

async function take_files(list) {
  for (const file of list) {
    const text = await file.text();
    if (text.includes("\u0000")) notice(`${file.name} is no text.`);
    else files.push({ name: file.name, text });
  }
  draw_files();
}

function open_settings(open) {
  at("settings").hidden = !open;
  at("open-settings").setAttribute("aria-expanded", String(open));
}

async function connect() {
  try {
    model = (await (await api.get("/v1/models")).json()).data[0];
  } catch (error) {
    return fail(error);
  }
  at("model").textContent = model.id;
  document.title = model.id;
  show_context(total());
  show_memory();
  if (!model.meta.chat)
    at("words").placeholder = "This model has no chat template: it goes on with the text that you write here.";
  notice("");
}

at("ask").addEventListener("submit", (event) => { event.preventDefault(); send(); });
at("settings").addEventListener("submit", (event) => event.preventDefault());
at("words").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
at("stop").addEventListener("click", () => running?.abort());
at("new").addEventListener("click", () => {
  running?.abort();
  turns = [];
  files = [];
  draw_files();
  draw();
  show_context(0);
  keep();
});
at("open-settings").addEventListener("click", () => open_settings(at("settings").hidden));
for (const field of FIELDS) {
  at(field).addEventListener("change", () => {
    heed();
    keep();
    if (field === "key") connect();
  });
}
document.addEventListener("keydown", (event) => { if (event.key === "Escape") running?.abort(); });
document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("drop"); });
document.addEventListener("dragleave", () => document.body.classList.remove("drop"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("drop");
  take_files(event.dataTransfer.files);
});

restore();
draw();
connect();
