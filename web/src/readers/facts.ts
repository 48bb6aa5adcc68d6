/** What headers say about a spectrum beside its numbers; the counterpart of `anna_onnx.readers.facts`. */

import { general } from "../format.ts";
import { NOTHING_KNOWN, type Facts, type Frame, type Medium } from "../spectrum.ts";
import type { Header } from "./fits.ts";

// Instruments whose pipelines give wavelengths in a known medium, by INSTRUME.
const AIR = "HARPS HARPN HARPS-N SOPHIE CORALIE ELODIE UVES FEROS XSHOOTER GIRAFFE ESPADONS NARVAL HERMES".split(" ");
const VACUUM = "CRIRES HPF MAGE STIS COS NIRSPEC NIRISS MIRI SPEX ISHELL SPIROU CARMENES IGRINS NEID EXPRES".split(" ");
const PIPELINES = new Map<string, Medium>([
  ...AIR.map((name) => [name, "air"] as const),
  ...VACUUM.map((name) => [name, "vacuum"] as const),
]);
// Of these ESO has a pipeline, and others have their own: PROCSOFT names it, ESO's as uves/6.1.8.
const OF_ESO = ["UVES", "XSHOOTER", "GIRAFFE", "CRIRES"];
const ESO_PIPELINE = /^\w+\/\d/;
// Resolving powers of instruments, with the mode where they have several, for files that do not state theirs.
const NOMINAL = new Map<string, number>([
  ...["HARPS", "HARPN", "HARPS-N"].map((name) => [name, 115000] as const),
  ["HARPS EGGS", 80000],
  ["FEROS", 48000],
  ["CORALIE", 60000],
  ["ELODIE", 42000],
  ["ESPRESSO SINGLEHR", 140000],
  ["ESPRESSO SINGLEUHR", 190000],
  ["ESPRESSO MULTIMR", 72500],
  ["ESPADONS", 65000],
  ["NARVAL", 65000],
  ["SPIROU", 70000],
  ["CARMENES", 94600],
  ["HPF", 55000],
  ["EXPRES", 137000],
  ["IGRINS", 45000],
]);
// ESO pipelines that leave the wavelengths as observed, in products that bear the recipe's name.
const TOPOCENTRIC = ["UVES", "XSHOOTER", "CRIRES"];
const SYSTEMS = new Map<string, Frame>([
  ["TOPOCENT", "topocentric"],
  ["GEOCENTR", "topocentric"],
  ["BARYCENT", "barycentric"],
  ["HELIOCEN", "barycentric"],
  ["SOURCE", "rest"],
]);
const MEDIUM = ["AIRORVAC", "AIRVAC", "VACAIR", "WAVETYPE", "MEDIUM", "WAVEMED"];
const RESOLUTION = ["SPEC_RES", "SPECRES", "RESOLUT", "SPEC_RP", "RESPOWER", "RP", "R_POWER", "SPE_RPOW", "BSS_ITRP"];
const VELOCITY = ["ESO DRS CCF RV", "ESO QC CCF RV", "TNG DRS CCF RV", "VRAD", "RADVEL", "RV"];
// Units in lower case without blanks and signs of multiplication: of velocities, and of what is neither one nor a ratio.
const KMS = new Map([...unitsOf(["km/s", "kms-1", "km/sec"], 1), ...unitsOf(["m/s", "ms-1", "m/sec"], 1e-3)]);
const OTHER_UNITS = new Set(
  (
    "a å aa ang angstrom angstroms ma nm um µm μm micron microns mm cm m pm nanometer nanometers " +
    "pix pixel pixels px channel channels cm-1 1/cm hz khz mhz ghz ev kev mag"
  ).split(" "),
);
const BRACKET = /\[([^\]]*)\]/;
const OTHER_AIR =
  /\bair[\s_-]*(?:mass|pressure|temp|index|refract|humid|density)|(?:index|pressure|temperature) of (?:the )?air/gi;
const WORD = /(?:\b|_)(vac(?:uum)?|air)(?:\b|_)/gi;
const CLAUSE = /[,;:()[\]]|\.\s|\bbut\b/i;
const LEFT_OPEN = "medium left open by the comment";
const BERV = ["ESO DRS BERV", "TNG DRS BERV", "OHP DRS BERV", "ESO QC BERV", "TNG QC BERV"];
const NAME = ["ESO OBS TARG NAME", "OBJECT", "TARGNAME", "TARGETID", "TARGET", "OBJNAME", "DESIG", "OBSID"];

/** Return what the headers state, the first header first. */
export function factsFrom(...headers: Header[]): Facts {
  const id = first(headers, NAME, (header, key) => header.string(key) || null) ?? "";
  const resolution = first(headers, RESOLUTION, (header, key) => {
    const value = quantity(header, key, new Map());
    return value > 10 && value < 1e7 ? value : null;
  });
  const radialVelocity = first(headers, VELOCITY, (header, key) => {
    const value = quantity(header, key, KMS);
    return Math.abs(value) < 2000 && value !== 0 ? value : null;
  });
  const nominal = headers.map(nominalOf).find((found) => found !== null) ?? null;
  return withFrame(withMedium({ ...NOTHING_KNOWN, id, resolution, radialVelocity, nominal }, headers), headers);
}

/** Return the instrument, with its mode where that counts, and its resolving power. */
function nominalOf(header: Header): [string, number] | null {
  const instrument = header.string("INSTRUME").toUpperCase();
  const names = [`${instrument} ${header.string("ESO INS MODE").toUpperCase()}`, instrument];
  const known = names.find((name) => NOMINAL.has(name));
  return known === undefined ? null : [known, NOMINAL.get(known)!];
}

/** Return facts with further notes. */
export function noted<F extends Pick<Facts, "notes">>(facts: F, ...notes: string[]): F {
  return { ...facts, notes: [...facts.notes, ...notes] };
}

/** Return facts with the medium that the wavelengths themselves state, without notes on another. */
export function inMedium(facts: Facts, medium: Medium): Facts {
  return { ...facts, medium, notes: facts.notes.filter((note) => !note.startsWith("medium ")) };
}

function first<T>(headers: Header[], keys: string[], find: (header: Header, key: string) => T | null): T | null {
  for (const header of headers)
    for (const key of keys) {
      const found = find(header, key);
      if (found !== null) return found;
    }
  return null;
}

/**
 * Return a number in the first of `units`, NaN where there is none or it is in a unit of another kind.
 *
 * The unit is in brackets in the comment. It should stand at the beginning (FITS Standard 4.0, 4.3.2), but many
 * write it at the end, and other things in brackets.
 */
function quantity(header: Header, key: string, units: Map<string, number>): number {
  const value = header.number(key) ?? NaN;
  const unit = (BRACKET.exec(header.remark(key))?.[1] ?? "").toLowerCase().replace(/[\s.*^()]/g, "");
  return value * (units.get(unit) ?? (OTHER_UNITS.has(unit) || KMS.has(unit) ? NaN : 1));
}

function unitsOf(spellings: string[], size: number): Map<string, number> {
  return new Map(spellings.map((spelling) => [spelling, size]));
}

function withMedium(facts: Facts, headers: Header[]): Facts {
  for (const header of headers) {
    const vacuum = header.get("VACUUM");
    if (typeof vacuum === "boolean") return { ...facts, medium: vacuum ? "vacuum" : "air" };
    for (const key of MEDIUM) {
      const medium = mediumIn(header.string(key));
      if (medium) return { ...facts, medium };
    }
    if (header.string("CTYPE1").toUpperCase().startsWith("AWAV")) return { ...facts, medium: "air" };
    for (const key of ["CTYPE1", "CUNIT1"]) {
      const text = header.string(key);
      const medium = mediumIn(text);
      if (medium) return noted({ ...facts, medium }, `medium ${medium}, from ${key} '${text}'`);
    }
  }
  const leftOpen: string[] = [];
  for (const header of headers) {
    const remarks = ["CTYPE1", "CUNIT1", "CRVAL1", "TTYPE1"].map((key) => header.remark(key));
    const lines = header.prose().filter((line) => /wavel|lambda|angstrom/i.test(line));
    for (const text of [...remarks, ...lines]) {
      const medium = spokenMedium(text);
      if (medium === "unknown") leftOpen.push(`${LEFT_OPEN} '${text}'`);
      else if (medium) return noted({ ...facts, medium }, `medium ${medium}, from the comment '${text}'`);
    }
  }
  if (leftOpen.length) return noted(facts, leftOpen[0]);
  if (headers.some((header) => header.has("PYP_SPEC")))
    return noted({ ...facts, medium: "vacuum" }, "medium vacuum, the convention of PypeIt");
  for (const header of headers) {
    const instrument = (header.string("INSTRUME") || header.string("INSTR")).toUpperCase();
    const program = header.string("PROCSOFT");
    if (OF_ESO.includes(instrument) && program && !ESO_PIPELINE.test(program)) return facts;
    const medium = PIPELINES.get(instrument);
    if (medium) return noted({ ...facts, medium }, `medium ${medium}, the convention of ${instrument} pipelines`);
  }
  if (headers.some((header) => ["WAVE", "WAVE-LOG"].includes(header.string("CTYPE1").toUpperCase())))
    return noted({ ...facts, medium: "vacuum" }, "medium vacuum, the meaning of CTYPE1 WAVE in the FITS standard");
  if (headers.some((h) => h.string("TELESCOP").toUpperCase() === "HST" || h.string("DBTABLE") === "CRSPECTRUM"))
    return noted({ ...facts, medium: "vacuum" }, "medium vacuum, the convention of HST and CALSPEC spectra");
  return facts;
}

function withFrame(facts: Facts, headers: Header[]): Facts {
  for (const header of headers) {
    for (const key of ["SPECSYS", "SPECSYS1"]) {
      const frame = SYSTEMS.get(header.string(key).toUpperCase().slice(0, 8));
      if (frame) return { ...facts, frame };
    }
    const corrected = ["COMPLETE", "PERFORM"].includes(header.string("HELCORR").toUpperCase());
    if (corrected && header.string("TELESCOP").toUpperCase() === "HST")
      return noted({ ...facts, frame: "barycentric" }, "heliocentric wavelengths (HELCORR)");
  }
  for (const header of headers) {
    const correction = header.number("BSS_VHEL"); // of the data base BeSS
    if (correction === null) continue;
    const frame = correction === 0 ? "topocentric" : "barycentric";
    const made = `BSS_VHEL, the heliocentric correction that was made, is ${general(correction)} km/s`;
    return noted({ ...facts, frame }, `frame ${frame}: ${made}`);
  }
  const stated = (keys: string[]) => headers.some((header) => keys.some((key) => header.has(key)));
  if (stated(["DOPCOR01", "DOPCOR"])) return noted(facts, "doppler-corrected by IRAF dopcor: the frame is not told");
  if (stated(BERV))
    return noted(
      { ...facts, frame: "barycentric" },
      "frame barycentric, as the DRS of HARPS and its kin leaves merged spectra",
    );
  for (const header of headers) {
    const instrument = header.string("INSTRUME").toUpperCase();
    if (TOPOCENTRIC.includes(instrument) && header.has("ESO PRO REC1 ID"))
      return noted({ ...facts, frame: "topocentric" }, `frame topocentric, as the ${instrument} pipeline leaves it`);
  }
  return facts;
}

/**
 * Return the medium that a sentence tells, unknown if it leaves it open, or null if it speaks of none.
 *
 * It is left open by clauses that deny a medium, or tell both. The air above a telescope is none.
 */
export function spokenMedium(remark: string): Medium | null {
  const clauses = remark.replace(OTHER_AIR, "").split(CLAUSE).filter(hasMedium);
  if (!clauses.length) return null;
  const told = new Set(clauses.filter((clause) => !denies(clause)).map(mediumIn));
  return told.size === 1 ? ([...told][0] ?? "unknown") : "unknown";
}

/** Return whether a clause that names a medium denies it: by a no or without before it, or a not anywhere. */
function denies(clause: string): boolean {
  const words: string[] = clause.toLowerCase().match(/[a-z]+/g) ?? [];
  const named = Math.max(...["air", "vac", "vacuum"].map((word) => words.lastIndexOf(word)));
  return words.includes("not") || words.slice(0, named).some((word) => word === "no" || word === "without");
}

function hasMedium(text: string): boolean {
  return text.search(WORD) >= 0;
}

/** Return the medium that a word or phrase names, or null; of a conversion the outcome. */
export function mediumIn(text: string): Medium | null {
  const named = Array.from(text.matchAll(WORD), (found) => found[1]);
  const converted = /(?:air|vac(?:uum)?)\W*(?:to|2|->)\W*(vac(?:uum)?|air)/i.exec(text);
  const words = new Set((named.length && converted ? [converted[1]] : named).map((word) => word[0].toLowerCase()));
  if (words.size !== 1) return null;
  return words.has("v") ? "vacuum" : "air";
}

/** Take optical wavelengths made by IRAF as air: its arc-line lists are. */
export function irafMedium<F extends Pick<Facts, "medium" | "notes">>(facts: F, wavelength: Float64Array): F {
  if (facts.notes.some((note) => note.startsWith(LEFT_OPEN))) return facts;
  if (facts.medium !== "unknown" || 0.5 * (wavelength[0] + wavelength[wavelength.length - 1]) > 10000) return facts;
  return noted({ ...facts, medium: "air" }, "medium air, the convention of IRAF's optical line lists");
}
