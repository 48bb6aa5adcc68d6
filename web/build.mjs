// Build the page into anna_onnx/web, or, with --tests, the unit tests into web/build.
//
//   npm ci && npm run build

import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const target = join(here, "..", "anna_onnx", "web");
const runtime = join(here, "node_modules", "onnxruntime-web");

if (process.argv.includes("--tests")) await buildTests();
else await buildPage();

async function buildPage() {
  await build({
    entryPoints: [join(here, "src", "main.ts")],
    outfile: join(target, "app.js"),
    bundle: true,
    minify: true,
    format: "iife",
    target: "es2022",
    charset: "utf8",
    legalComments: "inline",
    // A classic script has no address of its own; the runtime is given its WebAssembly instead.
    define: { "import.meta.url": "undefined" },
  });
  for (const name of ["index.html", "style.css", "notices.txt"])
    copyFileSync(join(here, "src", name), join(target, name));
  const engine = readFileSync(join(runtime, "dist", "ort-wasm-simd-threaded.wasm"));
  writeFileSync(join(target, "engine.wasm.gz"), gzipSync(engine, { level: 9 }));
  writeFileSync(join(target, "sources.sha256"), `${hashOfSources()}\n`);
}

async function buildTests() {
  const out = join(here, "build");
  rmSync(out, { recursive: true, force: true });
  mkdirSync(out);
  const names = readdirSync(join(here, "test")).filter((name) => name.endsWith(".ts"));
  await build({
    entryPoints: names.map((name) => join(here, "test", name)),
    outdir: out,
    outExtension: { ".js": ".mjs" },
    bundle: true,
    platform: "node",
    format: "esm",
    target: "node20",
  });
}

/** The hash that tests/web compares: every source, in the order of the names, with its name. */
function hashOfSources() {
  const files = readdirSync(join(here, "src"), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) =>
      join(entry.parentPath ?? entry.path, entry.name)
        .slice(here.length + 1)
        .replaceAll("\\", "/"),
    );
  const hash = createHash("sha256");
  for (const name of [...files, "build.mjs", "package-lock.json"].sort()) {
    hash.update(`${name}\0${readFileSync(join(here, name), "utf8").replaceAll("\r\n", "\n")}\0`);
  }
  return hash.digest("hex");
}
