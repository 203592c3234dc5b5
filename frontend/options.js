import { byId, el } from "./dom.js";
import { classNames, label } from "./classes.js";

// Held here, since redrawing an answer takes them off the page until they are placed again.
const panel = byId("options");
const form = byId("options-form");
const apply = byId("apply");

/** Fills in what the archive knows, and calls `onApply` when the options are to be used on the present query. */
export function setUpOptions(archive, onApply) {
  form.elements.k.max = archive.limits.k_max;
  byId("option-classes").replaceChildren(...classNames().map((name) =>
    el("label", {}, el("input", { type: "checkbox", name: "classes", value: name, checked: true }), label(name))));
  form.onsubmit = (event) => { event.preventDefault(); onApply(); };
}

/** Moves the form to where it is now of use. */
export function placeOptions(parent, withApply) {
  apply.hidden = !withApply;
  parent.append(panel);
}

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
