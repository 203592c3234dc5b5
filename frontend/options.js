import { byId, el } from "./dom.js";
import { classNames, label } from "./classes.js";

// Held here, since redrawing an answer takes them off the page until they are placed again.
const panel = byId("options");
const form = byId("options-form");
const apply = byId("apply");

// How the archive is asked that is not told otherwise: as it is calibrated. Left for the server to know, since it may have been fitted again meanwhile;
// asked otherwise, an answer has no confidence.
const UNCALIBRATED = { k: 10, vote: "majority" };
let usual = UNCALIBRATED;

/** Fills in what the archive knows, and calls `onApply` when the options are to be used on the present query. */
export function setUpOptions(archive, onApply) {
  form.elements.k.max = archive.limits.k_max;
  const { readable, k, vote } = archive.calibration ?? {};
  showUsual(readable ? { k, vote } : UNCALIBRATED);
  byId("option-classes").replaceChildren(...classNames().map((name) =>
    el("label", {}, el("input", { type: "checkbox", name: "classes", value: name, checked: true }), label(name))));
  form.onsubmit = (event) => { event.preventDefault(); onApply(); };
}

function showUsual({ k, vote }) {
  usual = { k, vote };
  form.elements.k.value = k;
  form.elements.vote.value = vote;
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

/** The options as the API takes them; what is as usual is undefined. All classes ticked, or none, means no filter. */
export function readOptions() {
  const { k, vote, exact } = form.elements;
  const ticked = (name) => [...form.querySelectorAll(`[name=${name}]:checked`)].map((box) => box.value);
  const classes = ticked("classes");
  const filters = classes.length > 0 && classes.length < classNames().length;
  const wanted = Math.min(Math.max(Math.trunc(Number(k.value)) || usual.k, 1), Number(k.max));
  return {
    k: wanted === usual.k ? undefined : wanted,
    vote: vote.value === usual.vote ? undefined : vote.value,
    exact: exact.checked,
    exclude: ticked("exclude"),
    classes: filters ? classes : undefined,
  };
}

/** Shows the options an answer was made with, which says what those were that nobody named. */
export function writeOptions(options, { query, suggestion }) {
  const { k, vote, exact } = form.elements;
  showUsual({ k: options.k ? usual.k : query.k, vote: options.vote ? usual.vote : suggestion.method });
  k.value = query.k;
  vote.value = suggestion.method;
  exact.checked = options.exact;
  for (const box of form.querySelectorAll("[name=exclude]")) box.checked = options.exclude.includes(box.value);
  for (const box of form.querySelectorAll("[name=classes]")) box.checked = !options.classes || options.classes.includes(box.value);
}
