import { announce, byId } from "./dom.js";

/** Shows how far a search is: `part` of the upload in 0..1, or nothing to begin. `onCancel` is set with the first call. */
export function showProgress(query, onCancel, part = 0) {
  const uploading = query.file && part < 1;
  const percent = Math.floor(part * 100);
  const text = uploading ? `Uploading, ${percent} %` : "Searching…";
  byId("progress").hidden = false;
  byId("progress-text").textContent = text;
  const bar = byId("progress-bar");
  if (uploading) bar.value = percent;
  else bar.removeAttribute("value");
  byId("answer").toggleAttribute("aria-busy", true);
  document.body.classList.add("searching");
  // Screen readers hear each quarter of a long upload, not each percent.
  if (!uploading || percent % 25 === 0) announce(text);
  if (onCancel) byId("cancel").onclick = onCancel;
}

export function hideProgress() {
  byId("progress").hidden = true;
  byId("answer").removeAttribute("aria-busy");
  document.body.classList.remove("searching");
}
