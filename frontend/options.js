import { byId, el } from "./dom.js";
import { classNames, label } from "./classes.js";

// Held here, since redrawing an answer takes them off the page until they are placed again.
const panel = byId("options");
const form = byId("options-form");
const apply = byId("apply");

/** Fills in what the archive knows, and calls `onApply` when the options are to be used on the present query. */
export function setUpOptions(archive, onApply) {
  form.elements.k.max = archive.limits.k_max;
  // Asked otherwise than it is calibrated for, an answer has no confidence.
  const { readable, k, vote } = archive.calibration ?? {};
  if (readable) [form.elements.k.value, form.elements.vote.value] = [k, vote];
  byId("option-classes").replaceChildren(...classNames().map((name) =>
    el("label", {}, el("input", { type: "checkbox", name: "classes", value: name, checked: true }), label(name))));
  form.onsubmit = (event) => { event.preventDefault(); onApply(); };
}

let places = []; // where the form belongs: in a wide window, in a narrow one

/** Moves the form to where it is now of use; `narrow` takes its place in a window of one column. */
export function placeOptions(wide, withApply, narrow = wide) {
  apply.hidden = !withApply;
  panel.hidden = false;
  places = [wide, narrow];
  settle();
}

function settle() {
  places[oneColumn.matches ? 1 : 0]?.append(panel);
}

const oneColumn = matchMedia("(max-width: 900px)"); // as in results.css
oneColumn.addEventListener("change", settle);

// The column beside the neighbors scrolls by itself: what was opened there would stay below its edge.
panel.addEventListener("toggle", () => { if (panel.open && !apply.hidden) panel.scrollIntoView({ block: "nearest" }); });

/** The options as the API takes them. All classes ticked, or none, means no filter. */
export function readOptions() {
  const { k, vote, exact } = form.elements;
  const ticked = (name) => [...form.querySelectorAll(`[name=${name}]:checked`)].map((box) => box.value);
  const classes = ticked("classes");
  const filters = classes.length > 0 && classes.length < classNames().length;
  return {
    k: Math.min(Math.max(Math.trunc(Number(k.value)) || 10, 1), Number(k.max)),
    vote: vote.value,
    exact: exact.checked,
    exclude: ticked("exclude"),
    ...(filters ? { classes } : {}),
  };
}

/** Shows the options an earlier answer was made with. */
export function writeOptions(options) {
  const { k, vote, exact } = form.elements;
  k.value = options.k;
  vote.value = options.vote;
  exact.checked = options.exact;
  for (const box of form.querySelectorAll("[name=exclude]")) box.checked = options.exclude.includes(box.value);
  for (const box of form.querySelectorAll("[name=classes]")) box.checked = !options.classes || options.classes.includes(box.value);
}
