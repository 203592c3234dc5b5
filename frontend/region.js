import { announce, el } from "./dom.js";

// A region is [x, y, width, height] as fractions of the image, as the API takes it.

const SIDE_MIN = 0.02;
const STEP = 0.02;
const FIRST = [0.25, 0.25, 0.5, 0.5];
const FIELDS = [["Left", 0], ["Top", 1], ["Width", 2], ["Height", 3]];

const round = (value) => Math.round(value * 1000) / 1000;

/** A region within the image, no side below the least one. */
function within([x, y, width, height]) {
  const w = Math.min(Math.max(width, SIDE_MIN), 1), h = Math.min(Math.max(height, SIDE_MIN), 1);
  const left = Math.min(Math.max(x, 0), 1 - w), top = Math.min(Math.max(y, 0), 1 - h);
  return [round(left), round(top), round(w), round(h)];
}

/** The region in words. */
export function regionLine(region) {
  const [x, y, w, h] = region.map((part) => Math.round(100 * part));
  return `only a part was searched: ${w} × ${h} %, from ${x} % left and ${y} % top`;
}

/**
 * Controls under a query's picture in `well`: a rectangle is drawn with mouse or finger, moved with arrow keys, sized with Shift and arrows, or given as
 * four numbers. `region` is the one that was searched, or null; `onRegion(region or null)` searches again.
 */
export function regionControls(well, region, onRegion) {
  let now = region;
  const box = el("div", { class: "region-box", hidden: true });
  const layer = el("div", { class: "region-layer" }, box);
  well.append(layer);

  /** The layer lies on the picture itself, which leaves black beside it. */
  function fit() {
    const img = well.querySelector("img");
    const { clientWidth: width, clientHeight: height } = well;
    const scale = img?.naturalWidth ? Math.min(width / img.naturalWidth, height / img.naturalHeight) : 0;
    const [w, h] = scale ? [img.naturalWidth * scale, img.naturalHeight * scale] : [width, height];
    Object.assign(layer.style, { left: `${(width - w) / 2}px`, top: `${(height - h) / 2}px`, width: `${w}px`, height: `${h}px` });
  }
  new ResizeObserver(fit).observe(well);
  well.querySelector("img")?.addEventListener("load", fit);

  function draw() {
    box.hidden = now === null;
    if (now === null) return;
    const [x, y, w, h] = now.map((part) => `${100 * part}%`);
    Object.assign(box.style, { left: x, top: y, width: w, height: h });
  }

  function set(next) {
    now = within(next);
    draw();
    FIELDS.forEach(([, at], i) => { inputs[i].value = round(100 * now[at]); });
  }

  /** What is typed stays as it is until all four are. */
  function typed() {
    const values = inputs.map((input) => input.valueAsNumber / 100);
    if (!values.every(Number.isFinite)) return;
    now = within(values);
    draw();
  }

  const inputs = FIELDS.map(([name, at]) => el("input", { type: "number", min: at < 2 ? 0 : 100 * SIDE_MIN, max: 100, step: "any", required: true, inputmode: "decimal",
    "aria-label": `${name}, percent of the image`, oninput: typed }));
  const form = el("form", { class: "region-form", hidden: true },
    el("p", { class: "fine" }, "Draw a rectangle on the image. Or give it in percent; on the image, arrow keys move it, and with Shift they size it."),
    el("div", { class: "region-fields" }, FIELDS.map(([name], i) => el("label", {}, `${name} %`, inputs[i]))),
    el("p", { class: "row" }, el("button", { type: "submit", class: "primary" }, "Search this part"),
      el("button", { type: "button", onclick: () => close() }, "Cancel")));
  const begin = el("button", { type: "button", class: "quiet", "aria-expanded": "false", onclick: open }, region ? "Another part" : "Search a part of the image");
  const whole = region && el("button", { type: "button", class: "quiet", onclick: () => onRegion(null) }, "Search the whole image");

  function open() {
    form.hidden = false;
    begin.hidden = true;
    begin.ariaExpanded = "true";
    layer.classList.add("drawing");
    Object.assign(layer, { tabIndex: 0, role: "application", ariaLabel: "Part of the image: arrow keys move it, with Shift they size it" });
    set(now ?? FIRST);
    fit();
    layer.focus();
  }

  function close() {
    form.hidden = true;
    begin.hidden = false;
    begin.ariaExpanded = "false";
    layer.classList.remove("drawing");
    layer.removeAttribute("tabindex");
    layer.removeAttribute("role");
    layer.removeAttribute("aria-label");
    now = region;
    draw();
    begin.focus();
  }

  form.addEventListener("submit", (event) => { event.preventDefault(); onRegion(now); });
  layer.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }[event.key];
    if (event.key === "Enter") onRegion(now);
    else if (event.key === "Escape") close();
    else if (by) {
      const [x, y, w, h] = now;
      set(event.shiftKey ? [x, y, w + by[0], h + by[1]] : [x + by[0], y + by[1], w, h]);
      announce(regionLine(now).replace("only a part was searched: ", ""));
    } else return;
    event.preventDefault();
  });
  listenToPointer(layer, () => !form.hidden, set);
  fit();
  draw();
  return el("div", { class: "region" }, el("p", { class: "row" }, begin, whole), form);
}

/** From where the pointer goes down to where it is. */
function listenToPointer(layer, drawing, set) {
  let from = null;
  const share = (event) => {
    const { left, top, width, height } = layer.getBoundingClientRect();
    const clamp = (value) => Math.min(Math.max(value, 0), 1);
    return [clamp((event.clientX - left) / width), clamp((event.clientY - top) / height)];
  };
  layer.addEventListener("pointerdown", (event) => {
    if (!drawing() || event.button !== 0 || from) return;
    layer.setPointerCapture(event.pointerId);
    from = share(event);
  });
  layer.addEventListener("pointermove", (event) => {
    if (!from) return;
    const to = share(event);
    // A press without a movement is no rectangle.
    if (Math.hypot(to[0] - from[0], to[1] - from[1]) < 0.01) return;
    set([Math.min(from[0], to[0]), Math.min(from[1], to[1]), Math.abs(to[0] - from[0]), Math.abs(to[1] - from[1])]);
  });
  for (const end of ["pointerup", "pointercancel"]) layer.addEventListener(end, () => { from = null; });
}
