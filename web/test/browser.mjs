// Open the page in headless Chromium, give it files, and print what came of it as JSON.
//
//   node browser.mjs '{"page": "out/index.html", "files": ["a.fits"], "screenshots": "shots"}'
//
// Options: page (a file, or an http address), files, viewport [width, height], dark, medium, rv, normalize,
// sort (columns to press), screenshots (a folder), chromium (its path), axe.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

import { chromium } from "playwright-core";

const wanted = JSON.parse(process.argv[2]);
const address = /^https?:/.test(wanted.page) ? wanted.page : pathToFileURL(resolve(wanted.page)).href;
const profile = mkdtempSync(join(tmpdir(), "anna-page-"));
const context = await chromium.launchPersistentContext(profile, {
  executablePath: wanted.chromium ?? "/usr/bin/chromium",
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
  viewport: { width: wanted.viewport?.[0] ?? 1280, height: wanted.viewport?.[1] ?? 900 },
  colorScheme: wanted.dark ? "dark" : "light",
  acceptDownloads: true,
});

const problems = [];
const requests = [];
try {
  console.log(JSON.stringify(await visit(await context.newPage())));
} catch (error) {
  console.error(String(error), problems.join("\n"));
  process.exitCode = 1;
} finally {
  await context.close();
  rmSync(profile, { recursive: true, force: true });
}

async function visit(page) {
  page.setDefaultTimeout(15_000);
  page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("request", (request) => requests.push(request.url().slice(0, 200)));
  const opened = Date.now();
  await page.goto(address);
  await page.waitForFunction(() => /Ready|differently|wrong/.test(document.getElementById("status").textContent));
  const startup = Date.now() - opened;
  await shot(page, "empty");
  const atOpening = requests.length;
  if (wanted.medium) await page.selectOption("#medium", wanted.medium);
  const dropped = Date.now();
  if (wanted.files?.length) {
    await page.setInputFiles("#files", wanted.files);
    await page.waitForFunction(() => / in [0-9.]+ s\.|wrong/.test(document.getElementById("status").textContent));
  }
  const toTable = Date.now() - dropped;
  for (const [id, value] of Object.entries({ rv: wanted.rv, normalize: wanted.normalize })) {
    if (value === undefined) continue;
    await page.locator("details.options").evaluate((element) => (element.open = true));
    await page.evaluate(() => (document.getElementById("status").textContent = ""));
    await (id === "rv" ? page.fill("#rv", String(value)) : page.setChecked("#normalize", value));
    if (id === "rv") await page.locator("#rv").blur();
    await page.waitForFunction(() => / in [0-9.]+ s\./.test(document.getElementById("status").textContent));
  }
  const status = await page.textContent("#status");
  await shot(page, "table");
  const orders = [];
  for (const title of wanted.sort ?? []) {
    await page.click(`#table thead button[title="Sort by ${title}"]`);
    orders.push(await page.$$eval("#table tbody tr", (lines) => lines.map((line) => line.innerText.replace(/\s+/g, " "))));
  }
  const csv = wanted.files?.length ? await download(page) : "";
  await page.locator("#about").evaluate((element) => (element.open = true));
  const about = await page.innerText("#about-body");
  await shot(page, "about");
  const described = await page.evaluate(() => ({
    plot: document.querySelector("#plot svg").getAttribute("aria-label"),
    width: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    sorted: [...document.querySelectorAll("#table th[aria-sort]")].map((cell) => cell.getAttribute("aria-sort")),
  }));
  return { startup, toTable, status, csv, about, orders, problems, described, requests, afterOpening: requests.slice(atOpening) };
}

async function download(page) {
  const [file] = await Promise.all([page.waitForEvent("download"), page.click("#download")]);
  return readFileSync(await file.path(), "utf8");
}

async function shot(page, name) {
  if (wanted.screenshots) await page.screenshot({ path: join(wanted.screenshots, `${name}.png`), fullPage: name === "about" });
}
