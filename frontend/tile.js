import { el } from "./dom.js";
import { label } from "./classes.js";
import { copiesOf } from "./copies.js";
import { exampleButtons } from "./examples.js";
import { caseImage } from "./images.js";
import { hasMajority } from "./verdict.js";
import { age, className, proof, similarity } from "./words.js";

const SAME = 0.995; // a copy in another format comes out above this, another image of the same patient below

/** Whether a case speaks against the suggestion: it voted, and for another class than the one with the majority. */
export function dissents(hit, body) {
  const { suggestion } = body;
  return hasMajority(body) && hit.class !== suggestion.class && suggestion.voters.includes(hit.id);
}

/**
 * A case as a list item: image first, then what it is and how that is known. `onOpen` compares it with the query, `onExample(kind, hit)` asks for more
 * or less like it.
 */
export function tile(hit, body, onOpen, onExample) {
  const name = hit.rank ? `Case ${hit.rank}` : "Nearest case";
  const said = `${name}, ${className(hit.class)}`;
  const against = hit.rank !== null && dissents(hit, body);
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
      badges(hit, body.suggestion, against),
      copiesOf(hit, origin),
      hit.class !== null && el("p", { class: "proof" }, proof(hit.label_source)),
      el("p", { class: "origin" }, origin(hit)),
      hit.rank !== null && exampleButtons(hit, onExample)));
}

function badges(hit, suggestion, against) {
  const texts = [
    hit.similarity >= SAME && "Nearly identical: may be the same image",
    against && "Differs from the vote",
    hit.label_conflict && "Label conflict: copies of this picture carry two labels",
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
  const { view, age: years, sex } = hit.record ?? {};
  return [view, (years ?? "") !== "" && age(String(years)), sex].filter(Boolean).join(" · ");
}
