import { byId, el } from "./dom.js";
import { mark } from "./classes.js";
import { exampleList } from "./examples.js";
import { explain } from "./explain.js";
import { frameControls } from "./frames.js";
import { placeOptions, writeOptions } from "./options.js";
import { queryImage, queryLine } from "./query.js";
import { regionControls, regionLine } from "./region.js";
import { dissents, tile } from "./tile.js";
import { footnote, verdict } from "./verdict.js";
import { className, plural } from "./words.js";

/**
 * Draws an answer: the query and the vote on one side, its neighbors on the other.
 * `onCompare(hits, index, total)` opens the compare view on one of a list of cases, out of `total` there are; `onExample(kind, hit)` makes one an
 * example, `onExamples(examples)` changes them all; `onRegion(region)` searches by a part of the query, or with null by all of it; `onFrame(frame)` by another
 * frame of its file.
 */
export function showAnswer(entry, archive, { onCompare, onExample, onExamples, onRegion, onFrame }) {
  const { body } = entry.result;
  const { neighbors, nearest_per_class: perClass } = body;
  // Compared are the cases on view: a filter holds there too.
  const tiles = (hits) => {
    const items = hits.map((hit) => tile(hit, body, () => {
      const onView = hits.filter((_, i) => !items[i].hidden);
      onCompare(onView, onView.indexOf(hit), hits.length);
    }, onExample));
    return items;
  };

  const region = entry.options.region ?? null;
  const picture = queryImage(entry.query, body.query);
  const optionsPlace = el("div", { class: "options-place" });
  const optionsBelow = el("div", { class: "options-place" });
  const grid = el("ol", { class: "grid", id: "neighbors" }, tiles(neighbors));
  byId("answer").replaceChildren(
    el("div", { class: "side" },
      el("figure", { class: "query" },
        picture,
        el("figcaption", {}, el("strong", {}, "Query"), " ", queryLine(entry.query, body.query.image), region && ` · ${regionLine(region)}`),
        entry.query.file && frameControls(body.query.image, onFrame),
        entry.query.file && regionControls(picture, region, onRegion)),
      verdict(body),
      exampleList(entry.options.examples, onExamples),
      el("p", { class: "fine footnote" }, footnote(body, archive)),
      optionsPlace),
    el("div", { class: "found" },
      el("div", { class: "found-head" },
        el("h2", {}, plural(neighbors.length, "most similar case")),
        filters(body, grid)),
      grid,
      el("p", { class: "fine footnote below" }, footnote(body, archive)), // where the window is too small for it above
      perClass.length > 0 && el("section", { class: "per-class" },
        el("h2", {}, "Nearest case of each class"),
        el("ol", { class: "grid few" }, tiles(perClass))),
      optionsBelow,
      explain(entry.result, archive)));
  writeOptions(entry.options, entry.result.body);
  placeOptions(optionsPlace, true, optionsBelow);
  byId("start").hidden = true;
  byId("answer").hidden = false;
  byId("new-query").hidden = false;
}

/** Buttons that show all cases, those of one class, or those that differ from the vote. */
function filters(body, grid) {
  const { neighbors } = body;
  const against = neighbors.filter((hit) => dissents(hit, body));
  const names = [...new Set(neighbors.map((hit) => hit.class))];
  if (names.length < 2) return null;
  const choices = [
    ["All", null, neighbors],
    against.length > 0 && ["Differ from the vote", null, against],
    ...names.map((name) => [className(name), mark(name), neighbors.filter((hit) => hit.class === name)]),
  ].filter(Boolean);
  const buttons = choices.map(([text, icon, hits], i) => el("button", {
    type: "button", class: "chip", "aria-pressed": String(i === 0), onclick: (event) => {
      const kept = new Set(hits.map((hit) => hit.id));
      for (const item of grid.children) item.hidden = !kept.has(item.dataset.id);
      for (const button of buttons) button.setAttribute("aria-pressed", String(button === event.currentTarget));
    },
  }, icon, `${text} ${hits.length}`));
  return el("div", { class: "chips", role: "group", "aria-label": "Show" }, buttons);
}
