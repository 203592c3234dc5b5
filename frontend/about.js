import { byId, el } from "./dom.js";
import { label } from "./classes.js";
import { getModel } from "./api.js";
import { papers } from "./paper.js";
import { method, number, plural, retention, scopeName } from "./words.js";

/** The line in the header. */
export function showArchiveLine(archive) {
  byId("archive-line").replaceChildren(
    el("span", {}, archive.name), " · ", plural(archive.images, "image"), " · ", plural(archive.classes.length, "class", "classes"));
}

/** A rule of the archive's table of windows. */
function windowRule({ modality, body_part, use, center, width }) {
  const window = { fixed: `center ${number(center ?? 0)}, width ${number(width ?? 0)}`, file: "the file's own" }[use] ?? "by percentile";
  return `${[modality ?? "any", body_part].filter(Boolean).join(" ")}: ${window}`;
}

/** Opens the facts about the archive. */
export function openAbout(archive) {
  const model = el("dd", {}, "…");
  const row = (term, ...value) => value.some(Boolean) && el("div", {}, el("dt", {}, term), el("dd", {}, value));
  const scope = Object.entries(archive.scope ?? {})
    .map(([name, value]) => [name, [value].flat().filter(Boolean).join(", ")])
    .filter(([, values]) => values)
    .map(([name, values]) => `${scopeName(name)}: ${values}`)
    .join("; ");
  byId("about-body").replaceChildren(el("div", {},
    archive.synthetic && el("p", { class: "remark" }, "SYNTHETIC images, made by a program."),
    el("dl", { class: "facts" },
      row("Name", archive.name),
      row("Images", `${number(archive.images)}, of which ${number(archive.labelled)} labelled${archive.conflicts ? ` and ${number(archive.conflicts)} with conflicting labels` : ""}`),
      row("Sources", archive.sources.length > 0 && archive.sources.join(", ")),
      row("Licence", archive.licence ?? "not stated"),
      row("Scope", scope),
      row("Windows", archive.windows?.map(windowRule).join("; ")),
      row("Keeps", retention(archive.retention)),
      row("Patients", archive.identity === "linked" ? "pseudonyms, linked for those allowed to see" : "pseudonyms only"),
      archive.metric && row("Similar by", learned(archive.metric)),
      archive.calibration?.readable && row("Calibrated", calibrated(archive.calibration)),
      row("Version", number(archive.version)),
      row("Made", archive.created_at && new Date(archive.created_at).toLocaleString()),
      el("div", {}, el("dt", {}, "Model"), model)),
    el("h3", {}, "Classes"),
    bars(archive),
    papers()));
  byId("about").showModal();
  getModel().then(
    (card) => { model.textContent = [card.architecture ?? card.name, card.dimension && `${card.dimension} dimensions`, card.weights?.licence && `weights ${card.weights.licence}`, card.device].filter(Boolean).join(", "); },
    () => { model.textContent = "could not be asked"; });
}

/** What the learned metric is, and what it brought on patients that it had not seen. */
function learned({ images, groups, held_out, fitted_on }) {
  const all = images.reduce((sum, each) => sum + each.images, 0);
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  return `a metric learned from ${plural(all, "image")} of ${plural(groups, "group")} (version ${number(fitted_on)}): the class was found for ${percent(held_out.with)} ` +
    `of those left out, a mean over classes, and for ${percent(held_out.without)} without it (chosen by these figures, which flatters a little)`;
}

/** What votes are calibrated for, and what there is too little of. */
function calibrated({ k, vote, classes, fitted_on }) {
  const images = classes.reduce((sum, each) => sum + each.images, 0);
  const few = classes.filter(({ groups }) => groups < 19).map(({ name, groups }) => `${name} (${groups})`);
  const [rule] = method(vote).split(":");
  return `for the ${rule.toLowerCase()} of ${number(k)} cases, on ${plural(images, "image")} (version ${number(fitted_on)})` +
    (few.length ? `; too few cases to rule out at 95 %: ${few.join(", ")}` : "");
}

function bars(archive) {
  const most = Math.max(...archive.classes.map((each) => each.images), 1);
  return el("ul", { class: "bars" }, archive.classes.map(({ name, images }) => {
    const fill = el("span", { class: "fill plain" });
    fill.style.width = `${(100 * images) / most}%`;
    return el("li", {}, label(name), el("span", { class: "track" }, fill), el("span", { class: "count" }, number(images)));
  }));
}
