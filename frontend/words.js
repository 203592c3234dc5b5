// What the codes of the API mean, in words.

const PROOF = {
  folder: "Label from the data set's folder",
  report: "Label from the written report",
  pcr: "Proven by PCR",
  biopsy: "Proven by biopsy",
  "follow-up": "Proven by follow-up",
  reader: "Label given by a reader",
};

/** How a label is known. */
export function proof(source) {
  if (!source) return "Not said how the label is known";
  return PROOF[source.toLowerCase()] ?? `Label from: ${source}`;
}

const PATHS = {
  hnsw: "nearest-neighbor graph (HNSW), then scored exactly",
  exact: "every case compared",
};

export const path = (code) => PATHS[code] ?? code;

const METHODS = {
  majority: "Majority vote: one case, one vote",
  distance: "Vote by similarity: nearer counts more",
  prior: "Vote corrected for the size of each class",
};

export const method = (code) => METHODS[code] ?? code;

const STAGES = { decode: "read the image", preprocess: "prepare it", queue: "wait for the model", model: "model", search: "search", total: "total" };

export const stage = (code) => STAGES[code] ?? code;

const RETENTION = { original: "de-identified originals", view: "viewing copies, without loss, up to 1536 px", thumbnail: "thumbnails only" };

export const retention = (code) => RETENTION[code] ?? code;

const SCOPES = { body_part: "body part", modality: "modality", sop_classes: "SOP classes", view: "view" };

export const scopeName = (code) => SCOPES[code] ?? code.replaceAll("_", " ");

export const className = (name) => name ?? "No label";
export const labelled = (name) => (name === null ? "without a label" : `labelled ${name}`);
export const similarity = (value) => value.toFixed(3);
export const number = (value) => value.toLocaleString("en");
export const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

/** An age in years, as the archive has it: whole years, or something in words. */
export function age(text) {
  if (!/^\d+$/.test(text)) return text;
  const years = Number(text);
  return years === 0 ? "under 1 year" : plural(years, "year");
}

/** 67108864 -> "64 MB", with binary megabytes as file managers show them. */
export function bytes(count) {
  if (count < 1024) return `${count} B`;
  if (count < 1024 ** 2) return `${Math.round(count / 1024)} KB`;
  return `${Number((count / 1024 ** 2).toFixed(1))} MB`;
}
