import { el, svg } from "./dom.js";
import { className } from "./words.js";

// A class is told by its name, its shape and its colour, in that order: colour is never alone.
// Colours (`c0`..`c7` in results.css) and shapes go by the archive's order of classes, so that they stay the same from answer to answer.

const SHAPES = [
  "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2z",
  "M2.5 2.5h11v11h-11z",
  "M8 1.5 15 14H1z",
  "M8 .5 15.5 8 8 15.5 .5 8z",
  "M5.8 1.500h4.400v4.300h4.300v4.400h-4.300v4.300H5.800v-4.300H1.500V5.800h4.300z",
  "M8 14.5 1 2h14z",
  "M4.4 1.800h7.200L15.2 8l-3.6 6.200H4.400L.8 8z",
  "M2 6.200h12v3.600H2z",
];

let order = [];

/** Sets the order of classes that colours and shapes follow. */
export function setClasses(names) {
  order = names;
}

export const classNames = () => order;

function place(name) {
  const known = order.indexOf(name);
  if (known >= 0) return known;
  order = [...order, name];
  return order.length - 1;
}

/** The style class of a class's colour; after eight classes the pairing of shape and colour shifts. */
export function colour(name) {
  if (name === null) return "c-none";
  const i = place(name);
  return `c${(i + Math.floor(i / SHAPES.length)) % SHAPES.length}`;
}

/** The shape of a class, hidden from screen readers: the name always stands beside it. */
export function mark(name) {
  const shape = name === null
    ? svg("circle", { cx: 8, cy: 8, r: 5.5, "stroke-dasharray": "3 2" })
    : svg("path", { d: SHAPES[place(name) % SHAPES.length] });
  return svg("svg", { class: `mark ${colour(name)}`, viewBox: "0 0 16 16", width: 13, height: 13, "aria-hidden": "true" }, shape);
}

/** Shape and name. */
export function label(name) {
  return el("span", { class: "label" }, mark(name), el("span", {}, className(name)));
}
