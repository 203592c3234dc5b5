import { explainSimilarity } from "./api.js";
import { byId, el } from "./dom.js";
import { label } from "./classes.js";
import { drawHeat, heatLegend } from "./heat.js";
import { caseImage } from "./images.js";
import { headlineOf } from "./problems.js";
import { queryImage, queryLine, windowFilter } from "./query.js";
import { reportButton } from "./report.js";
import { origin, person } from "./tile.js";
import { makeView } from "./view.js";
import { className, proof, similarity } from "./words.js";

const dialog = () => byId("compare");

/**
 * Opens the compare view: the query beside one of `hits`, the ones on view of `total`, with the same zoom, position and light for both.
 * `onSearch(hit)` searches again from the case on the right; `onClose(hit)` is told which one was last shown.
 */
export function openCompare({ entry, hits, start, total, onSearch, onClose }) {
  const asked = entry.result.body.query;
  let at = start;

  const title = el("h2", { id: "compare-title" });
  const about = el("div", { class: "pane-about", "aria-live": "polite" });
  const querySlide = el("div", { class: "slide" }, queryImage(entry.query, asked, true));
  const caseSlide = el("div", { class: "slide" });
  const heats = [el("div", { class: "heat" }), el("div", { class: "heat" })];
  const stages = [el("div", { class: "stage" }, querySlide, heats[0]), el("div", { class: "stage" }, caseSlide, heats[1])];
  const view = makeView(stages, [windowFilter(entry.query, asked.image), "none"]);
  const step = (by) => { at = (at + by + hits.length) % hits.length; draw(); };

  const heatButton = el("button", { type: "button", id: "heat", "aria-pressed": "false", onclick: toggleHeat }, "Where do they look alike?");
  const heatNote = el("div", { class: "heat-note", "aria-live": "polite" });
  view.controls.append(heatButton, heatNote);
  let asking = null; // what stops the request for the maps

  function toggleHeat() {
    heatButton.ariaPressed = String(heatButton.ariaPressed !== "true");
    showHeat();
  }

  /** Asks for the maps of the case on view, if they are wanted. */
  async function showHeat() {
    asking?.abort();
    heats.forEach((heat) => heat.replaceChildren());
    heatNote.replaceChildren();
    if (heatButton.ariaPressed !== "true") return;
    const { signal } = asking = new AbortController();
    heatNote.append(el("p", { class: "fine" }, "Comparing place by place…"));
    const hit = hits[at];
    try {
      const answer = await explainSimilarity(entry.query, entry.options, hit.id, entry.result.body.space, { signal });
      if (signal.aborted) return;
      heatNote.replaceChildren(heatLegend(answer, moved(entry.options.examples)));
      const maps = [[querySlide, answer.query, "Heat map of the query"], [caseSlide, answer.neighbor_map, "Heat map of the case"]];
      maps.forEach(([slide, map, name], i) => overlay(heats[i], slide.querySelector("img"), map, name, signal));
    } catch (problem) {
      if (signal.aborted) return;
      heatNote.replaceChildren(el("p", { class: "fine", role: "alert" }, `${headlineOf(problem)}.`));
      heatButton.ariaPressed = "false";
    }
  }

  async function overlay(heat, img, map, name, signal) {
    if (!img || !map) return;
    await img.decode().catch(() => {});
    if (!signal.aborted && img.naturalWidth > 0) heat.replaceChildren(drawHeat(map, img, name));
  }

  function draw() {
    const hit = hits[at];
    title.textContent = hit.rank ? `Case ${hit.rank} of ${total}${hits.length < total ? ` (${at + 1} of ${hits.length} shown)` : ""}` : `Nearest ${className(hit.class)}`;
    caseSlide.replaceChildren(caseImage(hit.id, hit.thumbnail, `${title.textContent}, ${className(hit.class)}`, 1536));
    about.replaceChildren(
      el("p", {}, label(hit.class), el("span", { class: "similarity" }, `similarity ${similarity(hit.similarity)}`)),
      el("p", { class: "fine" }, [hit.class !== null && proof(hit.label_source), origin(hit), person(hit), hit.record?.file].filter(Boolean).join(" · ")));
    view.apply();
    showHeat();
  }

  const button = (text, onclick, more = {}) => el("button", { type: "button", onclick, ...more }, text);
  dialog().replaceChildren(
    el("div", { class: "compare-head" },
      title,
      el("p", { class: "compare-strip" }, el("strong", {}, "Research use only."), " Not for diagnosis."),
      el("div", { class: "row" },
        button("← Previous", () => step(-1), { class: "quiet", disabled: hits.length < 2 }),
        button("Next →", () => step(1), { class: "quiet", disabled: hits.length < 2 }),
        button("Close", () => dialog().close(), { class: "quiet", id: "compare-close" }))),
    el("div", { class: "panes" },
      el("figure", { class: "pane" }, stages[0], el("figcaption", {}, el("div", { class: "pane-about" },
        el("p", {}, el("strong", {}, "Query")), el("p", { class: "fine" }, queryLine(entry.query, asked.image))))),
      el("figure", { class: "pane" }, stages[1], el("figcaption", {},
        about,
        el("div", { class: "pane-does" },
          button("Search again from this case", () => { const hit = hits[at]; dialog().close(); onSearch(hit); }, { class: "primary", id: "search-again" }),
          reportButton(() => hits[at]))))),
    view.controls);
  draw();

  dialog().onkeydown = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (view.key(event)) return event.preventDefault();
    if (event.target.type === "range" || event.shiftKey || hits.length < 2) return;
    if (event.key === "ArrowRight") step(1);
    else if (event.key === "ArrowLeft") step(-1);
    else return;
    event.preventDefault();
  };
  dialog().onclose = () => { asking?.abort(); onClose(hits[at]); };
  dialog().showModal();
  byId("compare-close").focus();
}

/** Whether cases that were liked or disliked have moved the search away from its image. */
const moved = (examples) => Boolean(examples?.liked.length || examples?.disliked.length);

export const compareIsOpen = () => dialog().open;
export const closeCompare = () => dialog().close();
