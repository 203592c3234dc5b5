import { el } from "./dom.js";
import { colour, label, mark } from "./classes.js";
import { className, method } from "./words.js";

const REMARKS = {
  suggested: null,
  inconclusive: "The nearest cases don't agree well enough for a suggestion. Look at them one by one.",
  out_of_distribution: "Nothing in the archive is really close to this image. The cases below are the nearest there are, and may not be comparable.",
};

const HEADLINES = { inconclusive: "No clear answer", out_of_distribution: "Unlike the images in this archive" };

/** The vote: what it came to, how each class fared, and who voted for what. */
export function verdict({ suggestion, neighbors, coverage }) {
  const headline = HEADLINES[suggestion.status] ?? suggestion.reason;
  const remark = REMARKS[suggestion.status];
  return el("div", { class: `verdict ${suggestion.status}` },
    el("h1", { id: "verdict-title", tabindex: "-1" }, neighbors.length ? headline : "No case fits these options"),
    headline !== suggestion.reason && neighbors.length > 0 && el("p", { class: "reason" }, suggestion.reason),
    remark && el("p", { class: "remark" }, remark),
    coverage.missing.length > 0 && el("p", { class: "remark" },
      `Incomplete: ${coverage.answered} of ${coverage.shards} parts of the archive answered. Cases may be missing.`),
    el("div", { class: "sequence", role: "img", "aria-label": `By rank: ${neighbors.map((hit) => className(hit.class)).join(", ")}` },
      neighbors.map((hit) => mark(hit.class))),
    bars(suggestion),
    el("p", { class: "fine" }, `${method(suggestion.method)}. `, confidence(suggestion)));
}

function bars({ votes, weights, class: suggested }) {
  const weight = (name) => weights?.[name] ?? votes[name];
  const names = Object.keys(votes).sort((a, b) => weight(b) - weight(a) || votes[b] - votes[a]);
  const all = names.reduce((sum, name) => sum + weight(name), 0);
  return el("ul", { class: "bars" }, names.map((name) => {
    const share = all > 0 ? weight(name) / all : 0;
    const fill = el("span", { class: `fill ${colour(name)}` });
    fill.style.width = `${100 * share}%`;
    return el("li", { class: name === suggested ? "suggested" : null },
      label(name), el("span", { class: "track" }, fill),
      el("span", { class: "count" }, String(votes[name]), el("span", { class: "sr" }, votes[name] === 1 ? " vote" : " votes")));
  }));
}

function confidence({ confidence: value, prediction_set: set, calibration }) {
  if (value === null || value === undefined) return `No confidence is given: ${calibration.why_not ?? "not calibrated"}.`;
  const also = set?.length ? ` Classes that can't be ruled out: ${set.join(", ")}.` : "";
  return `Calibrated confidence ${Math.round(value * 100)} %.${also}`;
}
