import { el } from "./dom.js";
import { label } from "./classes.js";
import { caseImage } from "./images.js";
import { className, proof, similarity } from "./words.js";

/** Whether a case speaks against the suggestion: it voted, and for another class. */
export function dissents(hit, suggestion) {
  return suggestion.class !== null && hit.class !== suggestion.class && suggestion.voters.includes(hit.id);
}

/** A case as a list item: image first, then what it is and how that is known. `onOpen` compares it with the query. */
export function tile(hit, suggestion, onOpen) {
  const name = hit.rank ? `Case ${hit.rank}` : "Nearest case";
  const said = `${name}, ${className(hit.class)}`;
  const against = hit.rank !== null && dissents(hit, suggestion);
  return el("li", { class: against ? "tile dissents" : "tile", "data-id": hit.id, "data-class": hit.class ?? "" },
    el("button", { type: "button", class: "open", onclick: onOpen,
      "aria-label": `Compare with the query: ${said}, similarity ${similarity(hit.similarity)}` },
    caseImage(hit.id, hit.thumbnail, said)),
    el("div", { class: "caption" },
      el("p", { class: "what" },
        hit.rank && el("span", { class: "rank" }, el("span", { class: "sr" }, "Rank "), String(hit.rank)),
        label(hit.class),
        el("span", { class: "similarity", title: "Cosine similarity: 1 is the same image. Not a probability." },
          el("span", { class: "sr" }, "Similarity "), similarity(hit.similarity))),
      badges(hit, suggestion, against),
      hit.class !== null && el("p", { class: "proof" }, proof(hit.label_source)),
      el("p", { class: "origin" }, origin(hit))));
}

function badges(hit, suggestion, against) {
  const texts = [
    against && "Differs from the vote",
    hit.label_conflict && "Label conflict: these pixels carry two labels",
    hit.rank !== null && !against && !suggestion.voters.includes(hit.id) && "Has no vote",
  ].filter(Boolean);
  return texts.length > 0 && el("p", { class: "badges" }, texts.map((text) => el("span", { class: "badge" }, text)));
}

/** Source and patient pseudonym, where known. */
export function origin(hit) {
  return [hit.source, hit.patient && `patient ${hit.patient}`].filter(Boolean).join(" · ") || "Source and patient unknown";
}

/** View, age and sex of a case, where known. */
export function person(hit) {
  const { view, age, sex } = hit.record ?? {};
  const years = age !== null && age !== undefined && (/^\d+\+?$/.test(age) ? `${age} years` : age);
  return [view, years, sex].filter(Boolean).join(" · ");
}
