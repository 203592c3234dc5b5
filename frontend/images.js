import { el } from "./dom.js";
import { credentials } from "./api.js";

const THUMBNAIL_PX = 256;

let keepsLarge = true;

/** An archive that keeps thumbnails only has nothing larger to ask for. */
export function setRetention(retention) {
  keepsLarge = retention !== "thumbnail";
}

/**
 * An image of a case on black: the thumbnail at once, then a larger one: of `px` if that is given, else of the size it
 * is drawn at, once it is seen. `thumbnail` null: the archive keeps no pixels of it.
 */
export function caseImage(id, thumbnail, alt, px = null) {
  const well = el("div", { class: "well" });
  if (!thumbnail) return note(well, "Image not kept by this archive");
  const img = el("img", { alt, decoding: "async", draggable: "false" });
  well.append(img);
  const first = load(img, thumbnail).catch(() => note(well, "The image could not be loaded"));
  if (!keepsLarge) return well;
  const enlarge = async () => {
    const wanted = px ?? sizeFor(well.clientWidth * devicePixelRatio);
    if (!wanted) return;
    await first;
    // Where a larger one fails, the thumbnail is good enough.
    await load(img, `/v1/images/${id}/rendered?size=${wanted}`).catch(() => load(img, thumbnail)).catch(() => {});
  };
  if (px) enlarge();
  else { enlargements.set(well, enlarge); seen.observe(well); }
  return well;
}

/** Few sizes, so that the same picture is asked for once; null where the thumbnail is enough. */
function sizeFor(drawn) {
  if (drawn < THUMBNAIL_PX * 1.1) return null;
  return drawn > 640 ? 1024 : 640;
}

/** Loads a path into an image; what was shown before stays until it is there. */
export async function load(img, path) {
  const source = await fetchable(path);
  try {
    await new Promise((resolve, reject) => {
      img.onload = resolve;
      img.onerror = () => reject(new Error("image can't be shown"));
      img.src = source;
    });
  } finally {
    if (source !== path) URL.revokeObjectURL(source);
  }
}

/** An <img> can't send a key, so with one the bytes are fetched here. */
async function fetchable(path) {
  const headers = credentials();
  if (!path.startsWith("/v1/") || Object.keys(headers).length === 0) return path;
  const response = await fetch(path, { headers });
  if (!response.ok) throw new Error(`image answered ${response.status}`);
  return URL.createObjectURL(await response.blob());
}

/** Replaces an image by a sentence. */
export function note(well, ...text) {
  well.classList.add("empty");
  well.replaceChildren(el("p", {}, ...text));
  return well;
}

const enlargements = new WeakMap();
const seen = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    seen.unobserve(target);
    enlargements.get(target)?.();
  }
}, { rootMargin: "200px" });
