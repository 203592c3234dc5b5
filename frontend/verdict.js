import { el } from "./dom.js";
import { classNames, colour, label, mark } from "./classes.js";
import { className, method, plural } from "./words.js";

const REMARKS = {
  suggested: null,
  inconclusive: "No class is suggested. Look at the cases one by one.",
  out_of_distribution: "This image is less like this archive than nearly all of its own images are. The cases below are the nearest there are, and may not be comparable.",
};

const HEADLINES = { inconclusive: "No clear answer", out_of_distribution: "Unlike the images in this archive" };

/**
 * How clear a suggestion is: `tie` and `plurality` have no majority, at `narrow` one differing label would make a tie, and
 * with `one-class` there was nothing to choose from. Told by weight, which is the number of votes in a plain majority vote.
 */
export function clarity({ suggestion, query }) {
  if (suggestion.status !== "suggested") return suggestion.status;
  if (query.classes?.length === 1) return "one-class";
  const [first, second] = ranked(suggestion);
  if (!second) return "clear";
  if (first.share === second.share) return "tie";
  if (first.share <= 0.5) return "plurality";
  return (first.share - second.share) * suggestion.voters.length < 2 + 1e-9 ? "narrow" : "clear";
}

/** Whether the suggested class stands against the others, so that a case can be said to differ from the vote. */
export const hasMajority = (body) => ["clear", "narrow"].includes(clarity(body));

/** Classes with votes, most weight first: their votes, and their share of the weight. */
function ranked({ votes, weights }) {
  const weight = (name) => weights?.[name] ?? votes[name];
  const all = Object.keys(votes).reduce((sum, name) => sum + weight(name), 0);
  return Object.keys(votes)
    .map((name) => ({ name, votes: votes[name], share: all > 0 ? weight(name) / all : 0 }))
    .sort((a, b) => b.share - a.share || b.votes - a.votes);
}

/** The answer in one line, for the page and its title. */
export function headline(body) {
  const { suggestion, neighbors, query } = body;
  if (neighbors.length === 0) return "No case fits these options";
  const counts = () => ranked(suggestion).map(({ name, votes }) => `${votes}\u00a0${name}`).join(", ");
  const weighed = suggestion.method === "majority" ? "" : " by weight";
  switch (clarity(body)) {
    case "one-class": return `Only ${query.classes[0]} was searched: no vote`;
    case "tie": case "plurality": return `No majority${weighed}: ${counts()}`;
    case "narrow": return `Narrow${weighed}: ${counts()}`;
    case "clear": return `${suggestion.votes[suggestion.class]} of ${suggestion.voters.length} labelled ${suggestion.class}`;
    default: return HEADLINES[suggestion.status] ?? suggestion.reason;
  }
}

/** What the suggestion rests on, where the headline does not say it. */
function reason(body) {
  const { suggestion } = body;
  const { class: name, reason: text } = suggestion;
  const silent = body.neighbors.length - suggestion.voters.length;
  const rest = silent > 0 ? `. ${plural(silent, "case")} without a vote` : "";
  const by = (how, what) => [`Suggestion by ${how}: `, el("strong", {}, name), what, rest];
  const [first] = ranked(suggestion);
  const weight = suggestion.method !== "majority" && `, ${percent(first.share)} of the weight`;
  switch (clarity(body)) {
    case "tie": return by("tie-break", text.includes("the nearest is") ? ", which has the nearest case" : ", whose cases are more similar");
    case "plurality": return by("the largest share only", weight || `, ${first.votes} of ${suggestion.voters.length}`);
    case "narrow": return by("a small margin", weight || ". One case with another label would undo it");
    default: return remainder(text, headline(body));
  }
}

/** What the server's words say beyond the headline. */
function remainder(text, said) {
  const rest = text.startsWith(said) ? text.slice(said.length).replace(/^[\s,.;:]+/, "") : text;
  return rest.charAt(0).toUpperCase() + rest.slice(1);
}

/** What was not searched, since the vote can't speak for it. */
function limits({ classes, sources, exclude_source: without }) {
  const list = (names) => [names].flat().join(", ");
  return [
    classes?.length > 0 && `Only ${list(classes)} ${classes.length === 1 ? "was" : "were"} searched: the vote says nothing about other classes.`,
    sources?.length > 0 && `Only cases from ${list(sources)} were searched.`,
    without?.length > 0 && `Cases from ${list(without)} were left out.`,
  ].filter(Boolean);
}

/** The vote: what it came to, how each class fared, and who voted for what. */
export function verdict(body) {
  const { suggestion, neighbors, coverage, query, warnings = [] } = body;
  const title = headline(body);
  const found = neighbors.length > 0;
  const remarks = [
    found && REMARKS[suggestion.status],
    ...warnings.map(({ message }) => message),
    ...limits(query),
    coverage.missing.length > 0 && `Incomplete: ${coverage.answered} of ${coverage.shards} parts of the archive answered. Cases may be missing.`,
  ];
  return el("div", { class: "verdict", "data-clarity": clarity(body) },
    el("h1", { id: "verdict-title", tabindex: "-1" }, title),
    found && title !== suggestion.reason && el("p", { class: "reason" }, reason(body)),
    found && worth(suggestion),
    remarks.map((text) => text && el("p", { class: "remark" }, text)),
    el("div", { class: "sequence", role: "img", "aria-label": `By rank: ${neighbors.map((hit) => className(hit.class)).join(", ")}` },
      neighbors.map((hit) => mark(hit.class))),
    found && bars(body));
}

/** How the vote was taken, and over what. */
export function footnote({ suggestion, archive: { images } }, archive) {
  return `${method(suggestion.method)}. ${confidence(suggestion)} Archive: ${archive.name}, ${plural(images, "image")}.`;
}

const ZEROS_MAX = 8;

/** A bar for each class that was searched, those without a vote too: that there is none says something. */
function bars(body) {
  const { suggestion, query } = body;
  const weighed = suggestion.method !== "majority";
  const voted = ranked(suggestion);
  const silent = (query.classes ?? classNames()).filter((name) => !(name in suggestion.votes));
  const few = silent.length <= ZEROS_MAX;
  const rows = [...voted, ...(few ? silent : []).map((name) => ({ name, votes: 0, share: 0 }))];
  return [
    el("ul", { class: "bars" }, rows.map(({ name, votes, share }) => {
      const fill = votes > 0 && el("span", { class: `fill ${colour(name)}` });
      if (fill) fill.style.width = `${100 * share}%`;
      return el("li", { class: name === suggestion.class && hasMajority(body) ? "suggested" : null },
        label(name), el("span", { class: "track" }, fill),
        el("span", { class: "count" }, weighed ? `${plural(votes, "vote")}, ${percent(share)}` : String(votes),
          !weighed && el("span", { class: "sr" }, votes === 1 ? " vote" : " votes")));
    })),
    weighed && el("p", { class: "fine" }, "The bars show weight, not votes."),
    !few && el("p", { class: "fine" }, `No vote for ${silent.length} other classes.`),
  ];
}

const percent = (share) => `${Math.round(100 * share)} %`;

function confidence({ calibration }) {
  return calibration.valid ? "Calibrated on known cases, of which none was this one." : `No confidence is given: ${calibration.why_not ?? "not calibrated"}.`;
}

/** What the vote is worth by the calibration: how often such an answer is right, and what can't be ruled out. */
function worth({ confidence: value, prediction_sets: sets = [], status }) {
  const lines = [
    value !== null && value !== undefined &&
      `Of 100 answers like this about ${hundredth(value)} are right, where the classes are as frequent as in this archive.`,
    status !== "out_of_distribution" && stillPossible(sets),
  ].filter(Boolean);
  return lines.length > 0 && el("p", { class: "worth" }, lines.join(" "));
}

/** Never a round promise: no answer is right for sure. */
const hundredth = (share) => Math.min(99, Math.max(1, Math.round(100 * share)));

function stillPossible([set]) {
  if (!set) return null;
  const few = set.not_available.length > 0 && ` Too few cases to rule out ${set.not_available.join(", ")}.`;
  return `Not ruled out at ${Math.round(100 * set.level)} %: ${set.classes.join(", ") || "no class"}.${few || ""}`;
}
