import { el } from "./dom.js";
import { getPaper } from "./api.js";

/** The archive's papers, each behind a disclosure and asked for when it is opened. */
export function papers() {
  return el("div", { class: "papers" },
    paper("Model card", "/v1/model/card"),
    paper("Datasheet", "/v1/archive/datasheet"));
}

function paper(title, path) {
  const body = el("div", { class: "paper", role: "region", "aria-label": title, tabindex: "0" });
  const details = el("details", { class: "paper-of" }, el("summary", {}, title), body);
  const show = () => {
    body.replaceChildren(el("p", { class: "fine", role: "status" }, "Loading…"));
    getPaper(path).then(
      (document) => body.replaceChildren(...drawn(document, `${path}.md`)),
      (problem) => {
        body.replaceChildren(el("p", { role: "alert" }, `It could not be loaded (${problem.slug}). `,
          el("button", { type: "button", onclick: show }, "Try again")));
      });
  };
  details.addEventListener("toggle", show, { once: true });
  return details;
}

/** Text from the archive stays text: everything goes through `el`. */
function drawn({ lead, sections }, markdown) {
  return [
    el("p", { class: "fine" }, lead),
    ...sections.map((section) => el("section", {}, el("h4", {}, section.title), section.blocks.map(block))),
    el("p", { class: "fine" }, "As Markdown: ", el("code", {}, `GET ${markdown}`)),
  ];
}

function block(part) {
  switch (part.kind) {
    case "text": return el("p", {}, part.text);
    case "list": return el("ul", { class: "plain-list" }, part.items.map((item) => el("li", {}, item)));
    case "facts": return el("dl", { class: "facts" }, part.facts.map(({ term, value }) => el("div", {}, el("dt", {}, term), el("dd", {}, value))));
    case "table": return table(part);
    default: return null; // of a later server
  }
}

function table({ caption, columns, rows }) {
  // A wide table scrolls by itself, with the keyboard too.
  return el("div", { class: "table", tabindex: "0", role: "group", "aria-label": caption }, el("table", {},
    el("caption", {}, caption),
    el("thead", {}, el("tr", {}, columns.map((column) => el("th", { scope: "col" }, column)))),
    el("tbody", {}, rows.map((cells) => el("tr", {}, cells.map((cell, at) => el(at === 0 && cell ? "th" : "td", at === 0 && cell ? { scope: "row" } : {}, cell)))))));
}
