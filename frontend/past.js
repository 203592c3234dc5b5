import { forget } from "./query.js";

// Answers live in this tab's memory; the browser's history holds only their numbers, so that nothing about a patient stays behind.

const KEPT = 20;
const entries = new Map();
let last = 0;

/** Keeps an answer and makes it the present entry of the browser's history. */
export function remember(entry) {
  last += 1;
  entry.number = `${performance.timeOrigin}-${last}`; // unlike any number from before a reload
  entries.set(entry.number, entry);
  if (entries.size > KEPT) drop(entries.keys().next().value);
  const state = { answer: entry.number, from: entry.query.id ?? null };
  // An answer reached from the compare view takes that view's place: back then leads to the answer it was opened on.
  // An answer lost in a reload is replaced too.
  const { compare, answer } = history.state ?? {};
  if (compare || (answer && !entries.has(answer))) history.replaceState(state, "");
  else history.pushState(state, "");
}

function drop(number) {
  const { query } = entries.get(number);
  entries.delete(number);
  if (![...entries.values()].some((entry) => entry.query === query)) forget(query);
}

/** The answer of a history state, if it is still kept. */
export const recall = (state) => entries.get(state?.answer) ?? null;
