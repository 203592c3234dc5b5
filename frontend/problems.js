import { byId, el } from "./dom.js";

// Problem type -> what happened, what to do. `retry` shows a button that sends the same query again.
const WORDS = {
  "invalid-request": ["The server did not accept the search", "Check the search options and try again."],
  "invalid-image": ["This file can't be read as an image", "It seems damaged or cut short. Export or download it again, then drop the new copy."],
  "unsupported-media": ["This is not an image the search can read", "Use a PNG, JPEG or DICOM file. Other formats, a PDF or a screenshot inside a document have to be exported as one of these first."],
  "constant-image": ["The image is blank", "Every pixel has the same value, so there is nothing to compare. Check that the right file was exported."],
  "too-large": ["The file is too large", "Export it at a lower resolution or as a single image, not as a series."],
  "too-many-pixels": ["The image has too many pixels", "Scale it down before you drop it; the search looks at a reduced copy anyway."],
  "missing-image": ["No image arrived", "Drop one image file, not a folder or a link."],
  "several-images": ["One image at a time", "Drop or choose a single image."],
  "unknown-class": ["The archive doesn't have that class", "The classes may have changed since this page was opened. Reload it and choose again."],
  "not-found": ["That case is no longer in the archive", "It was removed or replaced. Go back, or start from another image."],
  "pixels-not-kept": ["The archive doesn't keep this image", "Only its description and its position among the other cases are stored."],
  "space-mismatch": ["The archive changed while you were here", "It now uses another model, so older results can't be compared. Reload the page."],
  "wrong-dimension": ["The archive changed while you were here", "It now uses another model, so older results can't be compared. Reload the page."],
  "sign-in-failed": ["Signing in did not work", "It took too long, began in another tab, or was cancelled. Sign in again from here.", "retry"],
  "sign-in-no-role": ["You have no access here", "You were signed in, but your account has no role in this search. Ask whoever runs the server for one.", "retry"],
  "sign-in-unavailable": ["Signing in did not work", "The service that knows who you are did not answer. Try again in a moment.", "retry"],
  "unauthorized": ["The API key was not accepted", "Check the key, or ask whoever runs the server for one.", "retry"],
  "insufficient-scope": ["This API key does not permit that", "Ask whoever runs the server for a key that does.", "retry"],
  "forbidden-origin": ["The server does not answer under this address", "Open the page at the address the server was started with, such as http://127.0.0.1:8000."],
  "method-not-allowed": ["Page and server don't fit together", "One of them was updated. Reload the page."],
  "unexpected": ["Page and server don't fit together", "The server's answer is not what this page expects. Reload the page."],
  "overloaded": ["The model is busy", "Others are searching right now. Wait a moment and try again.", "retry"],
  "rate-limited": ["Too many requests in a minute", "Wait a moment and try again.", "retry"],
  "storage-full": ["The server's storage is full", "Tell whoever runs the server.", "retry"],
  "unavailable": ["The server can't search right now", "It may be starting or being updated. Try again in a moment.", "retry"],
  "deadline": ["The search took too long", "The server gave up before an answer was ready. Try again, or turn off exact search.", "retry"],
  "version-ahead": ["The server is catching up", "The newest cases aren't searchable on it yet. Try again in a moment.", "retry"],
  "internal": ["Something went wrong on the server", "Nothing was kept. Try again; if it stays, give the request number below to whoever runs the server.", "retry"],
  "network": ["The server can't be reached", "Check that it is running and that this computer is connected, then try again.", "retry"],
  "timeout": ["The server did not answer", "The connection is very slow or was lost. Try again.", "retry"],
};

/** A DICOM file that is not read is an image all the same: what is in the way is in the server's detail. */
function wordsFor({ slug, detail }, format) {
  if (slug !== "unsupported-media" || !detail) return WORDS[slug] ?? WORDS.internal;
  const coded = /transfer syntax/.test(detail);
  if (!coded && format !== "dicom") return WORDS[slug];
  const said = detail.replaceAll("`", "");
  return [
    coded ? "This DICOM file is compressed in a way the search does not read" : "This kind of DICOM file is not read by the search",
    `${said[0].toUpperCase()}${said.slice(1)}. Export it ${coded ? "uncompressed (Explicit VR Little Endian)" : "as an image in shades of grey"} or as PNG, then drop that copy.`,
  ];
}

/** What happened, in one sentence. */
export const headlineOf = (problem) => wordsFor(problem)[0];

let titleBefore = null; // the title of an answer to an earlier image, while that answer is set back

/**
 * Shows a problem in the page; `again` repeats what failed, `format` is that of the file. `earlier`: what failed was another image than the one whose answer
 * is on the page. That answer is then set back until the problem is put away, so that nobody takes it for the new image's.
 */
export function showProblem(problem, again, { earlier = false, format = null } = {}) {
  clearProblem();
  const [headline, advice, retry] = wordsFor(problem, format);
  const wait = Number(problem.retryAfter) > 0 ? ` The server suggests ${problem.retryAfter} s.` : "";
  const dismiss = el("button", { type: "button", onclick: dismissProblem }, earlier ? "Back to the earlier answer" : "Dismiss");
  const box = el("div", { class: "problem", tabindex: "-1", "data-problem": problem.slug },
    el("h2", {}, headline),
    el("p", {}, advice + wait),
    earlier && el("p", { class: "remark" }, el("strong", {}, "The answer below belongs to the earlier image,"), " not to this one."),
    el("p", { class: "row" }, retry && again && el("button", { type: "button", class: "primary", onclick: () => { clearProblem(); again(); } }, "Try again"), dismiss),
    (problem.detail || problem.requestId) && el("p", { class: "fine" },
      problem.detail && `Detail: ${problem.detail}. `,
      problem.requestId && `Request ${problem.requestId}.`));
  byId("problem").replaceChildren(box);
  if (earlier) setAnswerBack(headline);
  box.focus({ preventScroll: true });
  scrollTo({ top: 0 });
}

export function clearProblem() {
  byId("problem").replaceChildren();
  if (titleBefore === null) return;
  document.title = titleBefore;
  titleBefore = null;
  byId("earlier").hidden = true;
  byId("answer").classList.remove("set-back");
  byId("answer").inert = false;
}

function setAnswerBack(headline) {
  titleBefore = document.title;
  document.title = `${headline} · medsearch`;
  byId("earlier").hidden = false;
  byId("answer").classList.add("set-back");
  byId("answer").inert = true;
}

function dismissProblem() {
  const earlier = titleBefore !== null;
  clearProblem();
  if (earlier) byId("verdict-title").focus({ preventScroll: true });
}
