// Open pages in headless Chromium, give them files, and print what came of it: JSON lines in, JSON lines out.
//
//   echo '{"page": "out/index.html", "files": ["a.fits"], "screenshots": "shots"}' | node browser.mjs
//
// What a line may ask: page (a file, or an http address), files, drop (in place of choosing them),
// viewport [width, height], dark, print, forced (colours of the system), medium, rv, normalize, sort (columns to press), pick (how often to go down
// with the arrow key), screenshots (a folder), axe (whether to look for barriers). The environment variable
// CHROMIUM is the browser's path.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

import { chromium } from "playwright-core";

const SECONDS = 30_000;
const profile = mkdtempSync(join(tmpdir(), "anna-page-"));
const context = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  headless: true,
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
  acceptDownloads: true,
});

try {
  for await (const line of createInterface({ input: process.stdin })) {
    const answer = await answerTo(JSON.parse(line)).catch((error) => ({ failed: String(error) }));
    console.log(JSON.stringify(answer));
  }
} finally {
  await context.close();
  rmSync(profile, { recursive: true, force: true });
}

async function answerTo(wanted) {
  const page = await context.newPage();
  try {
    page.setDefaultTimeout(SECONDS);
    const [width, height] = wanted.viewport ?? [1280, 900];
    await page.setViewportSize({ width, height });
    await page.emulateMedia({
      colorScheme: wanted.dark ? "dark" : "light",
      forcedColors: wanted.forced ? "active" : "none",
    });
    return await visit(page, wanted);
  } finally {
    await page.close();
  }
}

async function visit(page, wanted) {
  const problems = [];
  const requests = [];
  const address = /^https?:/.test(wanted.page) ? wanted.page : pathToFileURL(resolve(wanted.page)).href;
  page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("request", (request) => requests.push(request.url().slice(0, 200)));
  const opened = Date.now();
  await page.goto(address);
  await page.waitForFunction(() => /Ready|differently|wrong/.test(document.getElementById("status").textContent));
  const startup = Date.now() - opened;
  await shot(page, wanted, "empty");
  const atOpening = requests.length;
  if ([wanted.medium, wanted.rv, wanted.normalize].some((value) => value !== undefined))
    await page.locator("details.options").evaluate((element) => (element.open = true));
  if (wanted.medium) await page.selectOption("#medium", wanted.medium);
  const dropped = Date.now();
  if (wanted.files?.length) {
    await (wanted.drop ? drop(page, wanted.files) : page.setInputFiles("#files", wanted.files));
    await page.waitForFunction(() => / in [0-9.]+ s\.|wrong/.test(document.getElementById("status").textContent));
  }
  const toTable = Date.now() - dropped;
  for (const [id, value] of Object.entries({ rv: wanted.rv, normalize: wanted.normalize })) {
    if (value === undefined) continue;
    await page.evaluate(() => (document.getElementById("status").textContent = ""));
    await (id === "rv" ? page.fill("#rv", String(value)) : page.setChecked("#normalize", value));
    if (id === "rv") await page.locator("#rv").blur();
    await page.waitForFunction(() => / in [0-9.]+ s\.|needed/.test(document.getElementById("status").textContent));
  }
  const status = await page.textContent("#status");
  await shot(page, wanted, "table");
  const orders = [];
  for (const title of wanted.sort ?? []) {
    await page.click(`#table thead button[title="Sort by ${title}"]`);
    orders.push(
      await page.$$eval("#table tbody tr", (lines) => lines.map((line) => line.innerText.replace(/\s+/g, " "))),
    );
  }
  let picked = "";
  if (wanted.pick) {
    await page.locator("#table .pick").first().focus();
    for (let i = 0; i < wanted.pick; i++) await page.keyboard.press("ArrowDown");
    picked = await page.textContent("#caption");
  }
  const csv = (await page.isVisible("#download")) ? await download(page) : "";
  await page.locator("#about").evaluate((element) => (element.open = true));
  const about = await page.innerText("#about-body");
  await shot(page, wanted, "about");
  const barriers = wanted.axe ? await findBarriers(page) : [];
  if (wanted.print) await page.emulateMedia({ media: "print" });
  const described = await page.evaluate(() => ({
    plot: document.querySelector("#plot svg").getAttribute("aria-label"),
    width: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    sorted: [...document.querySelectorAll("#table th[aria-sort]")].map((cell) => cell.getAttribute("aria-sort")),
    known: document.getElementById("known-name").innerText,
    detail: document.getElementById("detail").innerText,
    ground: getComputedStyle(document.documentElement).backgroundColor,
    cards: [...document.querySelectorAll(".card")].map((card) => card.checkVisibility()),
    floating: [...document.querySelectorAll("#table th, #table td")].filter(
      (cell) => getComputedStyle(cell).position !== "static",
    ).length,
    flags: [...document.querySelectorAll("#table .flags")].map((cell) => cell.innerText),
    stops: [...document.querySelectorAll("#table .pick")]
      .filter((button) => button.tabIndex === 0)
      .map((button) => button.title),
    edges: [...document.querySelectorAll("#table tbody tr > th")].map((cell) => getComputedStyle(cell).borderLeftWidth),
  }));
  return {
    startup,
    toTable,
    status,
    csv,
    about,
    orders,
    picked,
    barriers,
    problems,
    described,
    requests,
    afterOpening: requests.slice(atOpening),
  };
}

async function drop(page, files) {
  const contents = files.map((file) => ({ name: basename(file), base64: readFileSync(file, "base64") }));
  const transfer = await page.evaluateHandle((given) => {
    const made = new DataTransfer();
    for (const { name, base64 } of given)
      made.items.add(new File([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))], name));
    return made;
  }, contents);
  for (const kind of ["dragenter", "dragover", "drop"])
    await page.dispatchEvent("body", kind, { dataTransfer: transfer });
}

async function findBarriers(page) {
  await page.evaluate(readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8"));
  const { violations } = await page.evaluate(() => globalThis.axe.run({ preload: false }));
  return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html.slice(0, 120)).join(" | ")}`);
}

async function download(page) {
  const [file] = await Promise.all([page.waitForEvent("download"), page.click("#download")]);
  return readFileSync(await file.path(), "utf8");
}

async function shot(page, wanted, name) {
  if (wanted.screenshots)
    await page.screenshot({ path: join(wanted.screenshots, `${name}.png`), fullPage: name === "about" });
}
