import { openAbout, showArchiveLine } from "./about.js";
import { showAccount, signInProblem } from "./account.js";
import { Problem, getArchive, hasKey, search, setKey } from "./api.js";
import { label, setClasses } from "./classes.js";
import { closeCompare, compareIsOpen, openCompare } from "./compare.js";
import { announce, byId, el } from "./dom.js";
import { NONE, withExample } from "./examples.js";
import { caseImage, setRetention } from "./images.js";
import { placeOptions, readOptions, setUpOptions } from "./options.js";
import { recall, remember } from "./past.js";
import { clearProblem, showProblem } from "./problems.js";
import { hideProgress, showProgress } from "./progress.js";
import { queryFromCase, queryFromFile } from "./query.js";
import { setReporting } from "./report.js";
import { showAnswer } from "./results.js";
import { listenForImages } from "./upload.js";
import { headline } from "./verdict.js";
import { bytes, labelled, plural } from "./words.js";

let archive = null;
let shown = null; // the answer on the page
let running = null; // the AbortController of the search under way

/** Runs a search and shows its answer; a newer search ends an older one. */
async function run(query, options = { ...readOptions(), examples: NONE }) {
  if (!archive) await open();
  if (!archive) return;
  running?.abort();
  clearProblem();
  const mine = running = new AbortController();
  showProgress(query, () => mine.abort());
  try {
    if (query.file?.size > archive.limits.upload_bytes_max) throw new Problem("too-large", { detail: `the limit is ${bytes(archive.limits.upload_bytes_max)}` });
    const result = await search(query, options, { signal: mine.signal, onUpload: (part) => running === mine && showProgress(query, null, part) });
    shown = { query, options, result };
    remember(shown);
    present(shown, true);
  } catch (problem) {
    if (running !== mine) return; // a newer search has taken over
    leaveCompareEntry();
    fail(problem, () => run(query, options), query);
  } finally {
    if (running === mine) { running = null; hideProgress(); }
  }
}

/** Shows an answer, new or from the browser's history. */
function present(entry, isNew) {
  shown = entry;
  clearProblem();
  showAnswer(entry, archive, { onCompare: compare, onExample, onExamples, onRegion, onFrame });
  const { body } = entry.result;
  document.title = `${headline(body)} · medsearch`;
  announce(`${plural(body.neighbors.length, "case")} found. ${headline(body)}.`);
  byId("verdict-title").focus({ preventScroll: true });
  if (isNew) scrollTo({ top: 0 });
}

function showStart() {
  shown = null;
  document.title = `${archive?.name ?? "Search"} · medsearch`;
  clearProblem();
  byId("answer").hidden = true;
  byId("answer").replaceChildren();
  byId("new-query").hidden = true;
  byId("start").hidden = false;
  placeOptions(byId("options-at-start"), false);
}

function compare(hits, start, total) {
  history.pushState({ ...history.state, compare: true }, "");
  openCompare({
    entry: shown, hits, start, total,
    onSearch: searchFrom,
    onClose: (hit) => {
      document.querySelector(`.tile:not([hidden])[data-id="${hit.id}"] .open`)?.focus();
      if (!running) leaveCompareEntry();
    },
  });
}

/** The same search, more or less like one of its cases. */
function onExample(kind, hit) {
  onExamples(withExample(shown.options.examples, kind, hit));
}

function onExamples(examples) {
  run(shown.query, { ...shown.options, examples });
}

/** The same search by a part of the image, or, with null, by all of it. */
function onRegion(region) {
  const { region: _, ...options } = shown.options;
  run(shown.query, region ? { ...options, region } : options);
}

/** The same search by another frame of the file. */
function onFrame(frame) {
  run(shown.query, { ...shown.options, frame });
}

function searchFrom(hit) {
  run(queryFromCase(hit.id, hit.thumbnail, `Case from the archive, ${labelled(hit.class)}`));
}

/** Takes the compare view's entry off the browser's history, once the view is closed by other means than Back. */
function leaveCompareEntry() {
  if (history.state?.compare) history.back();
}

function onHistory({ state }) {
  if (compareIsOpen()) return closeCompare();
  const entry = recall(state);
  if (entry && entry === shown) return;
  running?.abort();
  if (entry) present(entry, false);
  else if (state?.from) searchLost(state.from);
  else if (shown) showStart();
}

/** After a reload the answers are gone; one that began from a case of the archive can be had again. */
function searchLost(id) {
  run(queryFromCase(id, `/v1/images/${id}/thumbnail`, "Case from the archive"));
}

// Problems that another key may solve -> what is wrong with the one that was given.
const KEY_REFUSED = {
  "unauthorized": "The server did not accept the key.",
  "insufficient-scope": "The key does not permit this.",
};

/** Says what went wrong with a search for `query`, or, without one, with something that never became a search. */
function fail(problem, again, query = null) {
  const about = { earlier: shown !== null && shown.query !== query, format: query?.format };
  if (!(problem instanceof Problem)) {
    console.error(problem);
    return showProblem(new Problem("unexpected"), null, about);
  }
  if (problem.slug === "cancelled") return announce("Search cancelled.");
  if (Object.hasOwn(KEY_REFUSED, problem.slug)) return askForKey(KEY_REFUSED[problem.slug], problem.login, again, () => showProblem(problem, again, about));
  showProblem(problem, again, about);
}

function askForKey(refused, login, again, giveUp) {
  const dialog = byId("key");
  byId("key-title").textContent = login ? "Sign in to search" : "This server asks for an API key";
  byId("key-login").hidden = !login;
  if (login) byId("key-login-link").href = login;
  byId("key-form").onsubmit = (event) => {
    event.preventDefault();
    setKey(byId("key-input").value.trim());
    byId("key-input").value = "";
    dialog.close("given");
    again();
  };
  byId("key-cancel").onclick = () => dialog.close("cancelled");
  dialog.onclose = () => { if (dialog.returnValue !== "given") giveUp(); };
  dialog.returnValue = "";
  dialog.showModal();
  // Once the dialog is open, since what was there before is not read out.
  byId("key-refused").textContent = hasKey() ? refused : "";
  byId("key-input").ariaInvalid = hasKey() ? "true" : null;
}

/** Asks the archive who it is and fills in the page. */
async function open() {
  try {
    archive = await getArchive();
  } catch (problem) {
    return fail(problem, open);
  }
  setClasses(archive.classes.map(({ name }) => name));
  setRetention(archive.retention);
  setReporting(archive.writable);
  setUpOptions(archive, () => run(shown.query, { ...shown.options, ...readOptions() }));
  showArchiveLine(archive);
  byId("synthetic").hidden = !archive.synthetic;
  byId("limit").textContent = ` up to ${bytes(archive.limits.upload_bytes_max)}`;
  showSamples();
  if (!shown) showStart();
}

function showSamples() {
  const samples = archive.demo ? archive.samples : [];
  byId("samples").hidden = samples.length === 0;
  byId("start").classList.toggle("with-samples", samples.length > 0);
  byId("sample-list").replaceChildren(...samples.map((sample, i) => el("li", {},
    el("button", { type: "button", class: "open", "aria-label": `Search from sample ${i + 1}, ${labelled(sample.class)}`,
      onclick: () => run(queryFromCase(sample.id, sample.thumbnail, `Sample ${i + 1}, ${labelled(sample.class)}`)) },
    caseImage(sample.id, sample.thumbnail, `Sample ${i + 1}`)), label(sample.class))));
}

async function searchFile(file) {
  if (compareIsOpen()) closeCompare();
  run(await queryFromFile(file));
}

// What sticks below the header needs its height, which changes with the window and the notes in it.
const header = document.querySelector(".top");
new ResizeObserver(() => document.documentElement.style.setProperty("--top-height", `${header.offsetHeight}px`)).observe(header);

listenForImages(searchFile, (problem) => fail(problem, null));
addEventListener("popstate", onHistory);
byId("about-open").addEventListener("click", () => archive && openAbout(archive));
byId("about-close").addEventListener("click", () => byId("about").close());
byId("home").addEventListener("click", (event) => {
  event.preventDefault();
  running?.abort();
  if (shown) history.pushState(null, "");
  showStart();
});

const notLetIn = signInProblem();
showAccount((problem) => fail(problem, null));
if (notLetIn) showProblem(notLetIn, () => location.assign("/login"));
else await open();
if (archive && history.state?.from) searchLost(history.state.from);
