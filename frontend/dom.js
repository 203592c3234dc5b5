/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/**
 * Makes an element: `el("p", { class: "fine", onclick: f }, "text", child)`.
 * Strings become text, never markup; null and false children or attributes are left out.
 */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Says something to screen readers without moving the focus. */
export function announce(text) {
  byId("live").textContent = text;
}
