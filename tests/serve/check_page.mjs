// Opens the page of `llavm serve` in Chromium and uses it as people do.
//
//   node tests/serve/check_page.mjs MODEL --llavm target/release/llavm [--shots DIR]
//
// Needs `npm install playwright-core` in a folder that NODE_PATH or the working directory names, and Chromium (CHROMIUM=FILE,
// default /usr/bin/chromium). --shots keeps images of what was seen.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { deflateSync, crc32 } from "node:zlib";

const require = createRequire(join(process.env.NODE_PATH || process.cwd(), "x.js"));
const { chromium } = require("playwright-core");
const [model, ...rest] = process.argv.slice(2);
const option = (name) => (rest.includes(name) ? rest[rest.indexOf(name) + 1] : undefined);
const llavm = option("--llavm") ?? "llavm";
const shots = option("--shots");
const KEY = "secret";

/** A PNG of a red square on blue, 96 by 64: its middle is what the model sees. */
function png() {
  const [width, height] = [96, 64];
  const rows = Buffer.alloc(height * (1 + 3 * width));
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const red = x >= 32 && x < 64 && y >= 16 && y < 48;
      rows.set(red ? [220, 30, 30] : [30, 30, 220], y * (1 + 3 * width) + 1 + 3 * x);
    }
  }
  const chunk = (kind, data) => {
    const body = Buffer.concat([Buffer.from(kind), data]);
    const size = Buffer.alloc(4), sum = Buffer.alloc(4);
    size.writeUInt32BE(data.length);
    sum.writeUInt32BE(crc32(body));
    return Buffer.concat([size, body, sum]);
  };
  const head = Buffer.alloc(13);
  head.writeUInt32BE(width, 0);
  head.writeUInt32BE(height, 4);
  head.set([8, 2, 0, 0, 0], 8);
  return Buffer.concat([Buffer.from("\x89PNG\r\n\x1a\n", "latin1"), chunk("IHDR", head), chunk("IDAT", deflateSync(rows)), chunk("IEND", Buffer.alloc(0))]);
}

async function serve() {
  const server = spawn(llavm, ["serve", model, "--port", "0", "--api-key", KEY, "--max-new-tokens", "200"], { stdio: ["ignore", "pipe", "inherit"] });
  for await (const line of createInterface({ input: server.stdout })) {
    return { server, address: line.match(/http:\/\/[^/]+/)[0] };
  }
  throw new Error("the server did not start");
}

/** Relative luminance and contrast, as WCAG 2 defines them. */
function contrast(one, two) {
  const light = (color) => {
    const [r, g, b] = color.match(/[\d.]+/g).map((value) => value / 255).map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const [a, b] = [light(one), light(two)].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
}

async function checkAccessible(page, where) {
  const faults = await page.evaluate(() => {
    const shown = (each) => each.checkVisibility();
    const name = (each) => each.getAttribute("aria-label") || each.labels?.[0]?.textContent || each.alt || each.textContent.trim();
    const unnamed = [...document.querySelectorAll("button, input, textarea, img, [role]")].filter((each) => shown(each) && !name(each) && each.getAttribute("role") !== "status");
    return { unnamed: unnamed.map((each) => each.outerHTML), wide: document.documentElement.scrollWidth - window.innerWidth, lang: document.documentElement.lang };
  });
  assert.deepEqual(faults.unnamed, [], `${where}: everything has a name`);
  assert.ok(faults.wide <= 0, `${where}: nothing sticks out by ${faults.wide} pixels`);
  assert.ok(faults.lang);
  const colours = await page.evaluate(() => {
    const background = (each) => {
      for (let at = each; at; at = at.parentElement) {
        const colour = getComputedStyle(at).backgroundColor;
        if (!/, 0\)|transparent/.test(colour)) return colour;
      }
      return "rgb(255, 255, 255)";
    };
    return [...document.querySelectorAll("h1, h2, p, label span, button, figcaption, textarea")].filter((each) => each.checkVisibility() && each.textContent + (each.value ?? ""))
      .map((each) => [each.outerHTML.slice(0, 80), getComputedStyle(each).color, background(each)]);
  });
  for (const [what, front, back] of colours) assert.ok(contrast(front, back) >= 4.5, `${where}: ${what}: ${front} on ${back}: ${contrast(front, back).toFixed(2)}`);
}

const { server, address } = await serve();
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
try {
  const context = await browser.newContext({ locale: "en-GB", colorScheme: "light", permissions: ["clipboard-read", "clipboard-write"] });
  const page = await context.newPage();
  const problems = [];
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("console", (message) => { if (message.type() === "error" && !/status of (400|401)/.test(message.text())) problems.push(message.text()); });
  page.setDefaultTimeout(60_000);
  const shot = async (name) => { if (shots) await page.screenshot({ path: join(shots, `${name}.png`) }); };
  const turns = () => page.locator("#log > li").count();
  const answered = async (count) => {
    await page.waitForFunction((count) => document.querySelectorAll("#log > li").length === count && document.getElementById("stop").hidden, count);
    return page.locator("#log > li").last().locator(".text").textContent();
  };

  // Without its key the server says so, and the settings open where one is asked for.
  await page.goto(address);
  await page.locator("#error:not([hidden])").waitFor();
  assert.match(await page.locator("#error").textContent(), /API key/);
  await page.fill("#key", KEY);
  await page.press("#key", "Tab");
  await page.waitForFunction(() => document.getElementById("model").textContent);
  assert.equal(await page.locator("#error").isHidden(), true);
  await page.click("#settings-button");
  assert.equal(await page.locator("#settings").isHidden(), true);
  await checkAccessible(page, "empty");

  // An image from a file: what the model sees is the square in its middle.
  const folder = mkdtempSync(join(tmpdir(), "llavm-page-"));
  const file = join(folder, "square.png");
  writeFileSync(file, png());
  await page.setInputFiles("#files", file);
  await page.locator("#images img").waitFor();
  const seen = await page.locator("#images img").evaluate((image) => {
    const canvas = Object.assign(document.createElement("canvas"), { width: image.naturalWidth, height: image.naturalHeight });
    const draw = canvas.getContext("2d");
    draw.drawImage(image, 0, 0);
    return { size: [canvas.width, canvas.height], left: [...draw.getImageData(1, 1, 1, 1).data], middle: [...draw.getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data] };
  });
  assert.equal(seen.size[0], seen.size[1], "a square");
  assert.ok(seen.middle[0] > 200 && seen.left[2] > 200, JSON.stringify(seen));

  // Asked with the keyboard, answered as the API answers.
  await page.fill("#question", "What is this?");
  await page.press("#question", "Shift+Enter");
  assert.equal(await turns(), 0, "Shift+Enter breaks the line");
  await page.fill("#question", "What is this?");
  await page.press("#question", "Enter");
  const first = await answered(2);
  const told = execFileSync(llavm, ["generate", model, "--image", file, "--prompt", "What is this?", "--max-new-tokens", "200"], { encoding: "utf8" });
  assert.equal(first.trim(), told.trim());
  assert.match(await page.locator(".count").last().textContent(), /\d+ tokens/);
  assert.equal(await page.evaluate(() => document.activeElement.id), "question", "the next question can be typed");
  await shot("answered");

  // A second turn, dropped and pasted images, and removing one.
  const data = readFileSync(file).toString("base64");
  for (const kind of ["drop", "paste"]) {
    await page.evaluate(({ kind, data }) => {
      const blob = new Blob([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], { type: "image/png" });
      const transfer = new DataTransfer();
      transfer.items.add(new File([blob], `${kind}.png`, { type: "image/png" }));
      document.dispatchEvent(kind === "drop"
        ? new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true })
        : new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true }));
    }, { kind, data });
    await page.locator(`#images figcaption:has-text("${kind}.png")`).waitFor();
  }
  await page.locator("#images button").first().click();
  assert.equal(await page.locator("#images img").count(), 1);
  await page.fill("#question", "And this?");
  await page.click("#send");
  await answered(4);
  await checkAccessible(page, "two turns");
  await shot("two-turns");

  // Edit and resend: the turns behind it go.
  await page.locator("#log > li").first().getByRole("button", { name: "Edit and resend" }).click();
  assert.equal(await page.inputValue("#question"), "What is this?");
  assert.equal(await page.locator("#images img").count(), 1);
  await page.keyboard.press("Escape");
  assert.equal(await page.inputValue("#question"), "");
  await page.locator("#log > li").first().getByRole("button", { name: "Edit and resend" }).click();
  await page.fill("#question", "Which colour?");
  await page.press("#question", "Enter");
  const edited = await answered(2);
  assert.match(await page.locator("#log > li").first().textContent(), /Which colour\?/);

  // Ask again, copy, and copy as curl: what was copied gives the same answer.
  await page.getByRole("button", { name: "Ask again" }).click();
  assert.equal(await answered(2), edited, "greedy answers are the same every time");
  await page.getByRole("button", { name: "Copy", exact: true }).click();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), edited);
  await page.getByRole("button", { name: "Copy as curl" }).click();
  const command = await page.evaluate(() => navigator.clipboard.readText());
  const output = execFileSync("sh", ["-c", command], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"], env: { ...process.env, LLAVM_API_KEY: KEY } });
  assert.equal(JSON.parse(output).choices[0].message.content, edited);

  // Samplers: a seed draws the same twice, another seed something else; a limit is a limit.
  await page.click("#settings-button");
  await checkAccessible(page, "settings");
  await page.fill("#temperature", "1.5");
  await page.fill("#seed", "7");
  await page.getByRole("button", { name: "Ask again" }).click();
  const drawn = await answered(2);
  await page.getByRole("button", { name: "Ask again" }).click();
  assert.equal(await answered(2), drawn);
  await page.fill("#max_tokens", "1");
  await page.getByRole("button", { name: "Ask again" }).click();
  await answered(2);
  assert.match(await page.locator(".count").last().textContent(), /^1 tokens.*most tokens/);
  await page.fill("#temperature", "-1");
  await page.getByRole("button", { name: "Ask again" }).click();
  await page.locator("#error:not([hidden])").waitFor();
  assert.match(await page.locator("#error").textContent(), /temperature/);
  assert.equal(await page.inputValue("#question"), "Which colour?", "what could not be asked can be asked again");
  await shot("settings-error");
  for (const field of ["temperature", "seed", "max_tokens"]) await page.fill(`#${field}`, "");

  // Stopping: slowed down so far that there is something to stop.
  await page.route("**/v1/chat/completions", (route) => new Promise((resolve) => setTimeout(() => resolve(route.continue().catch(() => {})), 3000)));
  await page.press("#question", "Enter");
  await page.locator("#stop:not([hidden])").waitFor();
  await page.keyboard.press("Escape");
  await page.waitForFunction(() => document.getElementById("stop").hidden);
  assert.match(await page.locator(".count").last().textContent(), /stopped/);
  await page.unroute("**/v1/chat/completions");

  // Chinese, dark, and a telephone.
  await page.click("#language");
  assert.equal(await page.getAttribute("html", "lang"), "zh-Hans");
  assert.equal(await page.locator("#send").textContent(), "发送");
  await page.click("#theme");
  assert.equal(await page.getAttribute("html", "data-theme"), "dark");
  await checkAccessible(page, "dark, Chinese");
  await shot("dark-chinese");
  await page.click("#settings-button");
  await page.setViewportSize({ width: 375, height: 667 });
  await checkAccessible(page, "telephone");
  const small = await page.evaluate(() => [...document.querySelectorAll("form button, header button")].filter((each) => each.checkVisibility() && each.getBoundingClientRect().height < 43).map((each) => each.id));
  assert.deepEqual(small, [], "a finger hits every button");
  await shot("telephone");
  await page.reload();
  assert.equal(await page.getAttribute("html", "data-theme"), "dark", "the choice is remembered");

  // Everything can be reached by the keyboard, and where one is can be seen.
  const reached = new Set();
  for (let n = 0; n < 30; n++) {
    await page.keyboard.press("Tab");
    reached.add(await page.evaluate(() => document.activeElement.id));
    const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.ok(outline !== "none" || (await page.evaluate(() => document.activeElement === document.body)));
  }
  for (const id of ["new", "settings-button", "theme", "language", "attach", "question", "send"]) assert.ok(reached.has(id), `${id} by Tab`);
  assert.deepEqual(problems, [], "no error in the console");
  console.log(`the page works (Chromium ${browser.version()})`);
} finally {
  await browser.close();
  server.kill();
}
