import { el } from "./dom.js";
import { getImage } from "./api.js";
import { label } from "./classes.js";
import { caseImage } from "./images.js";
import { className } from "./words.js";

const SHOWN_MAX = 12;

/**
 * "+3 near-identical": a button that shows the other copies of a case's picture below it, read when it is pressed; null where there are none.
 * `describe(image)` says whose a copy is.
 */
export function copiesOf(hit, describe) {
  if (!hit.near_identical) return null;
  const list = el("ul", { class: "copies", hidden: true });
  const button = el("button", { type: "button", class: "badge more", "aria-expanded": "false",
    title: "The same picture in another file: shown and counted once", onclick: () => {
      list.hidden = !list.hidden;
      button.setAttribute("aria-expanded", String(!list.hidden));
      if (!list.hidden) fill(hit, list, describe);
    } }, `+${hit.near_identical} near-identical`);
  return el("div", {}, button, list);
}

async function fill(hit, list, describe) {
  list.replaceChildren(el("li", {}, "Loading …"));
  try {
    const ids = (await getImage(hit.id)).near_identical;
    const copies = await Promise.all(ids.slice(0, SHOWN_MAX).map(getImage));
    const more = ids.length - copies.length;
    list.replaceChildren(
      ...copies.map((copy) => el("li", { "data-id": copy.id },
        caseImage(copy.id, copy.thumbnail, `Copy, ${className(copy.class)}`),
        el("p", {}, label(copy.class)),
        el("p", { class: "origin" }, describe(copy)))),
      ...(more > 0 ? [el("li", {}, `and ${more} more`)] : []));
  } catch {
    list.replaceChildren(el("li", {}, "The copies can't be loaded now. Close this and open it again to retry."));
  }
}
