import { el } from "./dom.js";
import { number } from "./words.js";

/** Which of several frames of a DICOM file was searched; nothing where there is one. `facts` is the answer's `query.image`. */
export function frameLine(facts) {
  return facts?.frames > 1 ? `frame ${number(facts.frame)} of ${number(facts.frames)}` : null;
}

/** A form under the query's picture that searches another frame of its file: `onFrame(frame)`, counted from 1. */
export function frameControls(facts, onFrame) {
  if (!frameLine(facts)) return null;
  const { frame, frames } = facts;
  const input = el("input", { type: "number", min: 1, max: frames, step: 1, value: frame, required: true, inputmode: "numeric" });
  const form = el("form", { class: "frames" },
    el("label", {}, "Frame", input, `of ${number(frames)}`),
    el("button", { type: "submit", class: "quiet" }, "Search this frame"));
  form.addEventListener("submit", (event) => { event.preventDefault(); onFrame(input.valueAsNumber); });
  return form;
}
