import { label } from "./classes.js";
import { el } from "./dom.js";
import { caseImage } from "./images.js";
import { className } from "./words.js";

// Examples are { liked, disliked }: cases of the archive that an answer shall be more or less like.

const EXAMPLES_MAX = 16; // of each kind, as the API takes them

export const NONE = { liked: [], disliked: [] };

const without = (hits, { id }) => hits.filter((hit) => hit.id !== id);

/** The examples with one case more under `kind`; the oldest makes room. */
export function withExample(examples, kind, hit) {
  const rest = { liked: without(examples.liked, hit), disliked: without(examples.disliked, hit) };
  return { ...rest, [kind]: [...rest[kind], hit].slice(-EXAMPLES_MAX) };
}

/** Two buttons on a case: what is wanted more of, and what less. */
export function exampleButtons(hit, onExample) {
  const button = (kind, text) => el("button", {
    type: "button", class: "example", "aria-label": `${text}: case ${hit.rank}, ${className(hit.class)}`, onclick: () => onExample(kind, hit),
  }, text);
  return el("div", { class: "examples" }, button("liked", "More like this"), button("disliked", "Less like this"));
}

/** The examples of an answer, each with a way to take it back. */
export function exampleList(examples, onChange) {
  const { liked, disliked } = examples;
  if (liked.length + disliked.length === 0) return null;
  const list = (title, hits) => hits.length > 0 && el("div", {},
    el("p", { class: "fine" }, title),
    el("ul", { class: "example-list" }, hits.map((hit) => el("li", {},
      caseImage(hit.id, hit.thumbnail, className(hit.class)), label(hit.class),
      el("button", { type: "button", class: "quiet", "aria-label": `Take back case ${hit.rank}, ${className(hit.class)}`,
        onclick: () => onChange({ liked: without(liked, hit), disliked: without(disliked, hit) }) }, "Take back")))));
  return el("section", { class: "refined", "aria-label": "Examples" },
    list("More like", liked), list("Less like", disliked),
    el("button", { type: "button", class: "quiet", onclick: () => onChange(NONE) }, "Search without examples"));
}
