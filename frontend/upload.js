import { byId } from "./dom.js";
import { Problem } from "./api.js";

/**
 * Listens for an image by drop, paste or picker, anywhere on the page.
 * Calls `onFile(file)`, or `onProblem(problem)` where what arrived is not one file.
 */
export function listenForImages(onFile, onProblem) {
  const take = (files) => {
    if (files.length === 1) onFile(files[0]);
    else onProblem(new Problem(files.length ? "several-images" : "missing-image"));
  };

  const input = byId("file");
  byId("choose").addEventListener("click", () => input.click());
  byId("new-query").addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    if (input.files.length) take([...input.files]);
    input.value = ""; // so that the same file can be chosen again
  });

  document.addEventListener("paste", (event) => {
    if (event.target.closest?.("input, textarea")) return;
    const files = [...event.clipboardData.files];
    if (files.length) { event.preventDefault(); take(files); }
  });

  const veil = byId("veil");
  const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    veil.hidden = false;
  });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) veil.hidden = true; });
  document.addEventListener("drop", (event) => {
    event.preventDefault(); // else the browser would leave the page to show the file
    veil.hidden = true;
    take([...event.dataTransfer.files]);
  });
}

/**
 * What the first bytes say a file is: png, jpeg, dicom or null. By content, as the server does, since DICOM
 * files often have no name ending. A dropped folder can't be read: null too.
 */
export async function sniff(file) {
  let head;
  try { head = new Uint8Array(await file.slice(0, 132).arrayBuffer()); } catch { return null; }
  const starts = (at, ...bytes) => bytes.every((byte, i) => head[at + i] === byte);
  if (starts(128, 0x44, 0x49, 0x43, 0x4d)) return "dicom";
  if (starts(0, 0x89, 0x50, 0x4e, 0x47)) return "png";
  if (starts(0, 0xff, 0xd8, 0xff)) return "jpeg";
  return null;
}
