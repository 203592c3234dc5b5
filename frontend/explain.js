import { el } from "./dom.js";
import { label } from "./classes.js";
import { method, number, path, plural, stage } from "./words.js";

/** "How this answer came about": a closed disclosure with everything needed to judge or repeat it. */
export function explain({ body, requestId }, archive) {
  const { query, coverage, suggestion } = body;
  return el("details", { class: "explain" },
    el("summary", {}, "How this answer came about"),
    el("div", { class: "explain-body" },
      el("section", {}, el("h3", {}, "What was searched"), facts([
        ["Archive", `${archive.name}, version ${body.archive.version}, ${plural(body.archive.images, "image")}`],
        ["Similar by", body.metric ? "what tells this archive's classes apart, learned from its labels" : "the network's own features"],
        ["Its parts (shards)", `${coverage.answered} of ${coverage.shards} answered${coverage.missing.length ? `; missing: ${coverage.missing.join(", ")}` : ""}`],
        ["Only classes", query.classes?.join(", ") ?? "all"],
        query.sources?.length > 0 && ["Only sources", query.sources.join(", ")],
        ["Left out", query.exclude.length ? `cases with the same ${query.exclude.join(", ")}` : "nothing"],
        ["Copies of a picture", query.near_identical === "keep" ? "each shown and counted, one per patient" : "shown and counted once; under different labels they have no vote"],
        query.liked?.length > 0 && ["More like", plural(query.liked.length, "case")],
        query.disliked?.length > 0 && ["Less like", plural(query.disliked.length, "case")],
        query.exclude_source?.length > 0 && ["Left out sources", [query.exclude_source].flat().join(", ")],
      ])),
      el("section", {}, el("h3", {}, "How each class was searched"), facts(
        Object.entries(body.path).map(([name, code]) => [label(name), path(code)]))),
      el("section", {}, el("h3", {}, "How the vote was taken"), facts([
        ["Cases asked for", number(query.k)],
        ["Rule", method(suggestion.method)],
        ["Voters", plural(suggestion.voters.length, "case")],
        ["Calibration", suggestion.calibration.valid ? `valid (${suggestion.calibration.id})` : suggestion.calibration.why_not ?? "none"],
        suggestion.mahalanobis && ["Distance from this archive's images", `${suggestion.mahalanobis.distance.toFixed(2)}; out of distribution beyond ${suggestion.mahalanobis.max.toFixed(2)}`],
        ...(suggestion.prediction_sets ?? []).map(({ level, classes, not_available: few }) => [
          `Not ruled out at ${Math.round(100 * level)} %`,
          (classes.join(", ") || "no class") + (few.length ? `; not available for ${few.join(", ")}: too few cases` : "")]),
      ])),
      el("section", {}, el("h3", {}, "Time by stage"), timings(body.timings_ms)),
      el("section", { class: "wide" }, el("h3", {}, "To repeat it"), facts([
        ["Embedding space", el("code", {}, body.space)],
        body.metric && ["Learned metric", el("code", {}, body.metric)],
        requestId && ["Request", el("code", {}, requestId)],
        ["Use", body.intended_use],
      ]))));
}

function facts(rows) {
  return el("dl", {}, rows.filter(Boolean).map(([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, value))));
}

function timings(ms) {
  const stages = Object.entries(ms).filter(([name, value]) => name !== "total" && typeof value === "number");
  const longest = Math.max(...stages.map(([, value]) => value), 0.001);
  return el("ul", { class: "timings" },
    stages.map(([name, value]) => {
      const fill = el("span", { class: "fill" });
      fill.style.width = `${(100 * value) / longest}%`;
      return el("li", {}, el("span", {}, stage(name)), el("span", { class: "track" }, fill), el("span", { class: "count" }, `${value.toFixed(1)} ms`));
    }),
    typeof ms.total === "number" && el("li", { class: "total" }, el("span", {}, stage("total")), el("span"), el("span", { class: "count" }, `${ms.total.toFixed(1)} ms`)));
}
