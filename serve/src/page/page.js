// The page: a conversation kept here, asked through the same API that everybody uses. Text is only ever set as text.
"use strict";

const TEXTS = {
  en: {
    skip: "Skip to the question", new: "New chat", settings: "Settings", dark: "Dark", light: "Light", system: "System prompt",
    temperature: "Temperature", topP: "Top p", topK: "Top k", penalty: "Repetition penalty", maxTokens: "Most tokens", seed: "Seed",
    stopText: "Stop text", key: "API key", defaults: "What is empty is the server's default.", conversation: "Conversation",
    empty: "Ask something, with or without images. Drop them here, paste them, or choose files.", chosen: "Chosen images",
    editing: "Editing an earlier question.", cancel: "Cancel", attach: "Images", question: "Question", hint: "Ask about an image…",
    send: "Send", stop: "Stop", keys: "Enter sends, Shift+Enter breaks the line, Escape stops.", you: "You", answer: "Model",
    edit: "Edit and resend", copy: "Copy", curl: "Copy as curl", again: "Ask again", copied: "Copied", remove: "Remove", seen: "what the model sees",
    notCopied: "The browser does not let this page copy.", lost: "The server cannot be reached.", cut: "The answer broke off.",
    count: (n, first, rate, cached) => `${n} tokens, the first after ${first} s, then ${rate} a second; ${cached} of the prompt were known`,
    stopped: "stopped", cutShort: "cut at the most tokens", done: "The answer is complete.", other: "中文", noImage: (name) => `${name} is no image that can be used`,
  },
  zh: {
    skip: "跳到输入框", new: "新对话", settings: "设置", dark: "深色", light: "浅色", system: "系统提示词",
    temperature: "温度", topP: "Top p", topK: "Top k", penalty: "重复惩罚", maxTokens: "最多词元数", seed: "随机种子",
    stopText: "停止文本", key: "API 密钥", defaults: "留空则使用服务器的默认值。", conversation: "对话",
    empty: "提一个问题，可以附图：拖到这里、粘贴，或选择文件。", chosen: "已选图片",
    editing: "正在修改之前的问题。", cancel: "取消", attach: "图片", question: "问题", hint: "问一问图片……",
    send: "发送", stop: "停止", keys: "Enter 发送，Shift+Enter 换行，Esc 停止。", you: "你", answer: "模型",
    edit: "修改并重发", copy: "复制", curl: "复制为 curl", again: "重新回答", copied: "已复制", remove: "移除", seen: "模型看到的画面",
    notCopied: "浏览器不允许本页复制。", lost: "无法连接服务器。", cut: "回答中断了。",
    count: (n, first, rate, cached) => `${n} 个词元，首个用时 ${first} 秒，其后每秒 ${rate} 个；提示中有 ${cached} 个已缓存`,
    stopped: "已停止", cutShort: "达到最多词元数", done: "回答完毕。", other: "English", noImage: (name) => `${name} 不是可用的图片`,
  },
};

const at = (id) => document.getElementById(id);
const state = {
  language: stored("language") || (navigator.language.startsWith("zh") ? "zh" : "en"),
  theme: stored("theme") || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"),
  model: "",
  turns: [],        // {role, text, images: [{name, uri, square}], note, asked}
  images: [],       // those of the next question
  editing: null,    // the number of the turn that the next question replaces
  running: null,    // aborts the answer that is being given
};
const text = (key) => TEXTS[state.language][key];

function stored(name) {
  try { return localStorage.getItem(name); } catch { return null; }
}

function store(name, value) {
  try { localStorage.setItem(name, value); } catch { /* a browser that keeps nothing */ }
}

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// --- Language and colours

function translate() {
  document.documentElement.lang = state.language === "zh" ? "zh-Hans" : "en";
  for (const each of document.querySelectorAll("[data-text]")) each.textContent = text(each.dataset.text);
  for (const each of document.querySelectorAll("[data-label]")) each.setAttribute("aria-label", text(each.dataset.label));
  at("question").placeholder = text("hint");
  at("language").textContent = text("other");
  at("language").lang = state.language === "zh" ? "en" : "zh";
  colour();
  draw();
}

function colour() {
  document.documentElement.dataset.theme = state.theme;
  at("theme").textContent = text(state.theme === "dark" ? "light" : "dark");
}

// --- The server

function headers() {
  const key = at("key").value.trim();
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function send(path, options) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: { ...headers(), ...options.headers } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error(text("lost"));
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => null);
  throw new Error(told?.error?.message ?? `${response.status} ${response.statusText}`);
}

async function greet() {
  try {
    const { data } = await (await send("/v1/models", {})).json();
    state.model = data[0].id;
    at("model").textContent = state.model;
    document.title = `${state.model} · LLaVM`;
    if (!state.running) fail("");
  } catch (error) {
    fail(error.message);
    at("settings").hidden = false;
    at("settings-button").setAttribute("aria-expanded", "true");
  }
}

/** What is asked for the answer behind `turns`. */
function request(turns) {
  const number = (id) => (at(id).value === "" ? undefined : Number(at(id).value));
  const system = at("system").value;
  const messages = turns.map((turn) => ({
    role: turn.role,
    content: turn.images?.length
      ? [{ type: "text", text: turn.text }, ...turn.images.map((image) => ({ type: "image_url", image_url: { url: image.uri } }))]
      : turn.text,
  }));
  const body = { model: state.model || undefined, messages: system ? [{ role: "system", content: system }, ...messages] : messages };
  for (const name of ["temperature", "top_p", "top_k", "repetition_penalty", "max_tokens", "seed"]) body[name] = number(name);
  if (at("stop_text").value) body.stop = at("stop_text").value;
  return body;
}

/** The data of server-sent events, one after the other. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    const whole = held.split("\n\n");
    held = whole.pop();
    for (const event of whole) if (event.startsWith("data: ")) yield event.slice(6);
  }
}

async function answer() {
  const abort = new AbortController();
  state.running = abort;
  fail("");
  const asked = request(state.turns);
  const turn = { role: "assistant", text: "", note: "", asked };
  const start = performance.now();
  let first = 0;
  state.turns.push(turn);
  draw();
  try {
    const body = JSON.stringify({ ...asked, stream: true, stream_options: { include_usage: true } });
    const response = await send("/v1/chat/completions", {
      method: "POST", body, headers: { "Content-Type": "application/json" }, signal: abort.signal,
    });
    let done = false;
    for await (const data of events(response)) {
      if (data === "[DONE]") { done = true; break; }
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(chunk.error.message);
      const choice = chunk.choices[0];
      if (choice?.delta.content) {
        first ||= performance.now();
        turn.text += choice.delta.content;
        show(turn);
      }
      if (choice?.finish_reason === "length") turn.cut = true;
      if (chunk.usage) turn.note = count(chunk.usage, start, first || performance.now());
    }
    if (!done) throw new Error(text("cut"));
    if (turn.cut) turn.note += ` · ${text("cutShort")}`;
    at("status").textContent = text("done");
  } catch (error) {
    if (error.name === "AbortError") turn.note = text("stopped");
    else failed(turn, error.message);
  }
  const bottom = atBottom();
  state.running = null;
  draw();
  if (bottom) toBottom();
  at("question").focus({ preventScroll: true });
}

/** An answer that never began leaves the question to be asked again. */
function failed(turn, message) {
  if (!turn.text) {
    state.turns.pop();
    const question = state.turns.pop();
    if (question && !at("question").value) {
      at("question").value = question.text;
      state.images = question.images;
    } else if (question) state.turns.push(question);
  }
  fail(message);
}

function count(usage, start, first) {
  const seconds = (performance.now() - first) / 1000;
  const rate = usage.completion_tokens > 1 && seconds > 0 ? ((usage.completion_tokens - 1) / seconds).toFixed(1) : "–";
  return text("count")(usage.completion_tokens, ((first - start) / 1000).toFixed(2), rate, usage.prompt_tokens_details.cached_tokens);
}

function fail(message) {
  at("error").textContent = message;
  at("error").hidden = !message;
}

// --- Images

async function add(files) {
  for (const file of files) {
    if (!file.type.startsWith("image/")) { fail(text("noImage")(file.name)); continue; }
    try {
      const preview = await send("/preview", { method: "POST", body: file });
      const image = { name: file.name || "image", uri: await uri(file), square: await uri(await preview.blob()) };
      state.images.push(image);
      fail("");
    } catch (error) {
      fail(`${file.name}: ${error.message}`);
    }
  }
  draw();
  at("question").focus();
}

function uri(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

function figure(image) {
  const alt = `${image.name}: ${text("seen")}`;
  return element("figure", {}, element("img", { src: image.square, alt }), element("figcaption", { textContent: alt }));
}

// --- What is shown

function draw() {
  at("empty").hidden = state.turns.length > 0;
  at("log").replaceChildren(...state.turns.map(drawTurn));
  at("images").replaceChildren(...state.images.map((image, n) => {
    const remove = element("button", { type: "button", textContent: text("remove"), ariaLabel: `${text("remove")}: ${image.name}` });
    remove.onclick = () => { state.images.splice(n, 1); draw(); at("question").focus(); };
    return element("li", {}, figure(image), remove);
  }));
  at("editing").hidden = state.editing === null;
  at("send").hidden = Boolean(state.running);
  at("stop").hidden = !state.running;
  at("attach").disabled = Boolean(state.running);
  grow();
}

function drawTurn(turn, number) {
  const mine = turn.role === "user";
  const waiting = state.running && number === state.turns.length - 1;
  const item = element("li", { className: `turn ${turn.role}${waiting ? " waiting" : ""}` });
  item.append(element("h2", { textContent: text(mine ? "you" : "answer") }));
  if (turn.images?.length) item.append(element("div", { className: "shown" }, ...turn.images.map(figure)));
  item.append(element("p", { className: "text", dir: "auto", textContent: turn.text }));
  if (turn.note) item.append(element("p", { className: "count", textContent: turn.note }));
  if (!state.running) item.append(actions(turn, number));
  return item;
}

function actions(turn, number) {
  const button = (key, act) => element("button", { type: "button", textContent: text(key), onclick: act });
  const box = element("div", { className: "actions" });
  if (turn.role === "user") {
    box.append(button("edit", () => edit(number)));
  } else {
    box.append(button("copy", (event) => copy(turn.text, event.target)));
    box.append(button("curl", (event) => copy(curl(turn.asked), event.target)));
    if (number === state.turns.length - 1) box.append(button("again", () => { state.turns.pop(); answer(); }));
  }
  return box;
}

/** The running answer alone: the rest stands still. */
function show(turn) {
  const place = at("log").lastElementChild?.querySelector(".text");
  if (!place) return;
  const bottom = atBottom();
  place.textContent = turn.text;
  if (bottom) toBottom();
}

/** Whoever has scrolled up to read is left there. */
function atBottom() {
  return window.innerHeight + window.scrollY >= document.body.scrollHeight - 80;
}

function toBottom() {
  window.scrollTo({ top: document.body.scrollHeight, behavior: "instant" });
}

function grow() {
  const area = at("question");
  area.rows = Math.min(8, Math.max(1, area.value.split("\n").length));
}

function edit(number) {
  const turn = state.turns[number];
  state.editing = number;
  state.images = [...turn.images];
  at("question").value = turn.text;
  draw();
  at("question").focus();
}

function cancel() {
  state.editing = null;
  state.images = [];
  at("question").value = "";
  draw();
}

/** A command that asks the same. A here-document, because an image is too long for an argument. */
function curl(asked) {
  const key = at("key").value.trim() ? ' -H "Authorization: Bearer $LLAVM_API_KEY"' : "";
  return `curl ${location.origin}/v1/chat/completions -H 'Content-Type: application/json'${key} --data-binary @- <<'END_OF_REQUEST'\n`
    + `${JSON.stringify(asked)}\nEND_OF_REQUEST\n`;
}

async function copy(words, button) {
  try {
    await navigator.clipboard.writeText(words);
    at("status").textContent = text("copied");
    const before = button.textContent;
    button.textContent = text("copied");
    setTimeout(() => { button.textContent = before; }, 1500);
  } catch {
    fail(text("notCopied"));
  }
}

// --- What people do

function ask() {
  const words = at("question").value.trim();
  if (state.running || (!words && !state.images.length)) return;
  if (state.editing !== null) state.turns.length = state.editing;
  state.turns.push({ role: "user", text: words, images: state.images });
  state.editing = null;
  state.images = [];
  at("question").value = "";
  answer();
  toBottom();
}

at("form").addEventListener("submit", (event) => { event.preventDefault(); ask(); });
at("question").addEventListener("input", grow);
at("question").addEventListener("keydown", (event) => {
  // Enter that ends a word of an input method is no end of the question.
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); ask(); }
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  if (state.running) state.running.abort();
  else if (state.editing !== null) cancel();
});
at("stop").addEventListener("click", () => state.running?.abort());
at("cancel").addEventListener("click", cancel);
at("new").addEventListener("click", () => { state.running?.abort(); state.turns = []; cancel(); fail(""); at("question").focus(); });
at("attach").addEventListener("click", () => at("files").click());
at("files").addEventListener("change", async () => { await add([...at("files").files]); at("files").value = ""; });
at("settings-button").addEventListener("click", () => {
  at("settings").hidden = !at("settings").hidden;
  at("settings-button").setAttribute("aria-expanded", String(!at("settings").hidden));
});
at("theme").addEventListener("click", () => { state.theme = state.theme === "dark" ? "light" : "dark"; store("theme", state.theme); colour(); });
at("language").addEventListener("click", () => { state.language = state.language === "zh" ? "en" : "zh"; store("language", state.language); translate(); });
at("key").addEventListener("change", greet);
document.addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files];
  if (files.length) { event.preventDefault(); add(files); }
});
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    document.body.classList.add("dropping");
  });
}
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  add([...event.dataTransfer.files]);
});

translate();
greet();
