import { sendFeedback } from "./api.js";
import { classNames } from "./classes.js";
import { announce, el } from "./dom.js";
import { labelled } from "./words.js";

const REASON_MAX = 500;
const WORDS = {
  "overloaded": "Too many reports came at once. Try again in a minute.",
  "storage-full": "No more reports are taken until whoever runs the archive has gone through those that are open.",
  "not-found": "This case is no longer in the archive.",
  "network": "The server can't be reached.",
};

let writable = false;

/** An archive that nobody can write to takes no reports. */
export function setReporting(takesReports) {
  writable = takesReports;
}

/** A button that opens the form for `hit()`; nothing where no reports are taken. */
export function reportButton(hit) {
  return writable && el("button", { type: "button", class: "quiet", id: "report-label", onclick: () => open(hit()) }, "Report a wrong label");
}

function open(hit) {
  const dialog = el("dialog", { class: "sheet report", "aria-labelledby": "report-title" });
  const left = el("span", { class: "fine" });
  const reason = el("textarea", { name: "reason", required: true, maxlength: REASON_MAX, autocomplete: "off", "aria-describedby": "report-note" });
  const count = () => { left.textContent = `${REASON_MAX - reason.value.length} characters left`; };
  reason.addEventListener("input", count);
  const suggested = el("select", { name: "suggested" },
    el("option", { value: "" }, "Not sure"),
    classNames().filter((name) => name !== hit.class).map((name) => el("option", { value: name }, name)));
  const refused = el("p", { class: "refused", role: "alert" });
  const send = el("button", { type: "submit", class: "primary" }, "Send report");
  const form = el("form", {},
    el("h2", { id: "report-title" }, "Report a wrong label"),
    el("p", {}, hit.rank ? `Case ${hit.rank}, ${labelled(hit.class)}.` : `The nearest case ${labelled(hit.class)}.`),
    el("label", {}, "What it should be", suggested),
    el("label", {}, "Why", reason, left),
    el("p", { class: "fine", id: "report-note" }, "It goes to whoever runs this archive. Whoever may add images here can read it. Name no patient."),
    refused,
    el("p", { class: "row" }, send, el("button", { type: "button", onclick: () => dialog.close() }, "Cancel")));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!reason.value.trim()) return reason.setCustomValidity("Say why"), reason.reportValidity(), reason.setCustomValidity("");
    send.disabled = true;
    refused.textContent = "";
    try {
      await sendFeedback({ image: hit.id, suggested: suggested.value || null, reason: reason.value });
    } catch (problem) {
      send.disabled = false;
      refused.textContent = WORDS[problem.slug] ?? `It was not taken: ${problem.detail || problem.slug}.`;
      return;
    }
    const done = `Thank you. The report about the case ${labelled(hit.class)} is stored.`;
    dialog.replaceChildren(
      el("h2", { id: "report-title", tabindex: "-1" }, "Report stored"),
      el("p", {}, done, " The label stays as it is until somebody has looked at it."),
      el("p", { class: "row" }, el("button", { type: "button", class: "primary", onclick: () => dialog.close() }, "Close")));
    announce(done);
    dialog.querySelector("button").focus();
  });
  // What leaves the comparison leaves the form too.
  const leave = () => dialog.close();
  addEventListener("popstate", leave);
  dialog.addEventListener("close", () => { removeEventListener("popstate", leave); dialog.remove(); });
  dialog.append(form);
  document.body.append(dialog);
  count();
  dialog.showModal();
}
