import { el } from "./dom.js";
import { frameLine } from "./frames.js";
import { caseImage, note } from "./images.js";
import { sniff } from "./upload.js";
import { bytes, number } from "./words.js";

// A query is { file, preview, format } for an upload or { id, thumbnail, title } for a case of the archive.

/** A query from a file. The preview is an address inside this tab, null where browsers can't draw the format. */
export async function queryFromFile(file) {
  const format = await sniff(file);
  const preview = format === "png" || format === "jpeg" ? URL.createObjectURL(file) : null;
  return { file, preview, format };
}

export const queryFromCase = (id, thumbnail, title) => ({ id, thumbnail, title });

/** Gives the preview's memory back. */
export function forget(query) {
  if (query.preview) URL.revokeObjectURL(query.preview);
}

/**
 * The query's picture on black, `large` for the compare view. `asked` is the answer's `query`, with the server's drawing of
 * a file that browsers can't draw.
 */
export function queryImage(query, asked, large = false) {
  if (query.id) {
    return caseImage(query.id, query.thumbnail, "Query image", large ? 1536 : null);
  }
  const well = el("div", { class: "well" });
  const source = query.preview ?? asked.preview;
  if (!source) return note(well, el("strong", {}, query.format === "dicom" ? "DICOM image" : "Image"),
    asked.image && el("span", {}, size(asked.image)), el("span", {}, "Browsers can't draw this format. The search read it whole."));
  const img = el("img", { src: source, alt: "Query image", draggable: "false" });
  img.addEventListener("error", () => note(well, "Browsers can't draw this file. The search may still be able to read it."));
  img.style.filter = windowFilter(query, asked.image);
  well.append(img);
  return well;
}

/**
 * A browser draws a 16-bit PNG from black 0 to white 65535, often nearly black. This filter draws it in the window that was
 * searched: CSS gives contrast * brightness * v + (1 - contrast) / 2, which is solved for out = (v - low) / (high - low).
 */
export function windowFilter(query, facts) {
  const { kind, low, high } = facts?.window ?? {};
  if (query.format !== "png" || kind !== "percentile" || high <= low) return "none";
  const contrast = 1 + (2 * low) / (high - low);
  const brightness = 65535 / (high - low) / contrast;
  return `brightness(${brightness}) contrast(${contrast})`;
}

/** One line about the query. */
export function queryLine(query, facts) {
  if (query.id) return query.title;
  return [facts && `${facts.format.toUpperCase()}, ${size(facts)}`, frameLine(facts), bytes(query.file.size), windowLine(facts)].filter(Boolean).join(" · ");
}

const size = (facts) => `${number(facts.width)} × ${number(facts.height)} px`;

function windowLine(facts) {
  const whose = { percentile: "the", fixed: "the archive's", file: "the file's" }[facts?.window?.kind];
  if (!whose) return null;
  return `searched in ${whose} window ${number(facts.window.low)} to ${number(facts.window.high)}`;
}
