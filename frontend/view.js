import { el } from "./dom.js";

const ZOOM_MAX = 8;
const PAN_STEP = 0.06;

/**
 * One zoom, position and light for several stages. A stage is a box that holds one `.slide`, and what lies over it.
 * `filters[i]` is the CSS filter a stage's image needs before brightness and contrast ("none" for none).
 */
export function makeView(stages, filters) {
  let zoom, x, y; // x, y: how far the image is moved, as a share of the stage
  const range = (name, max) => el("input", { type: "range", min: 20, max, value: 100, "aria-label": name, oninput: apply });
  const brightness = range("Brightness", 300);
  const contrast = range("Contrast", 300);
  const invert = el("button", { type: "button", "aria-pressed": "false", onclick: toggleInvert }, "Invert");
  const shown = el("output", {});
  const controls = el("div", { class: "controls", role: "group", "aria-label": "View of both images" },
    el("div", { class: "zoom" },
      el("button", { type: "button", "aria-label": "Zoom out", onclick: () => zoomTo(zoom / 1.25) }, "−"),
      shown,
      el("button", { type: "button", "aria-label": "Zoom in", onclick: () => zoomTo(zoom * 1.25) }, "+")),
    el("label", {}, "Brightness", brightness),
    el("label", {}, "Contrast", contrast),
    invert,
    el("button", { type: "button", onclick: reset }, "Reset"),
    el("p", { class: "fine keys" }, "Keys: ← → case, + − zoom, Shift with arrows moves, i inverts, 0 resets, Esc closes"));

  function apply() {
    const light = `brightness(${brightness.value}%) contrast(${contrast.value}%)${invert.ariaPressed === "true" ? " invert(1)" : ""}`;
    stages.forEach((stage, i) => {
      const slide = stage.firstElementChild;
      // What lies over the image moves with it, in its own light.
      for (const layer of stage.children) layer.style.transform = `translate(${100 * x}%, ${100 * y}%) scale(${zoom})`;
      slide.style.filter = light;
      const img = slide.querySelector("img");
      if (img) img.style.filter = filters[i];
      stage.classList.toggle("zoomed", zoom > 1);
    });
    shown.textContent = `${Math.round(100 * zoom)} %`;
  }

  function reset() {
    zoom = 1; x = 0; y = 0;
    brightness.value = contrast.value = 100;
    invert.ariaPressed = "false";
    apply();
  }

  function toggleInvert() {
    invert.ariaPressed = String(invert.ariaPressed !== "true");
    apply();
  }

  function moveTo(newX, newY) {
    const edge = (zoom - 1) / 2;
    x = Math.min(Math.max(newX, -edge), edge);
    y = Math.min(Math.max(newY, -edge), edge);
    apply();
  }

  /** Zooms so that the point under (px, py), shares of the stage from its centre, stays where it is. */
  function zoomTo(wanted, px = 0, py = 0) {
    const before = zoom;
    zoom = Math.min(Math.max(wanted, 1), ZOOM_MAX);
    moveTo(px - ((px - x) * zoom) / before, py - ((py - y) * zoom) / before);
  }

  for (const stage of stages) listenToPointers(stage, { zoomTo, moveTo, now: () => ({ zoom, x, y }) });
  reset();

  /** Handles a key of the view; false where it means something else. */
  function key({ key: name, shiftKey, target }) {
    if (target.type === "range") return false;
    const pan = shiftKey && { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[name];
    if (pan) moveTo(x + pan[0] * PAN_STEP * zoom, y + pan[1] * PAN_STEP * zoom);
    else if (name === "+" || name === "=") zoomTo(zoom * 1.25);
    else if (name === "-") zoomTo(zoom / 1.25);
    else if (name === "0") reset();
    else if (name === "i") toggleInvert();
    else return false;
    return true;
  }

  return { controls, apply, key };
}

/** Wheel and two fingers zoom, one finger or the mouse moves, a double click zooms in or back. */
function listenToPointers(stage, { zoomTo, moveTo, now }) {
  const pointers = new Map();
  const share = (event) => {
    const box = stage.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width - 0.5, (event.clientY - box.top) / box.height - 0.5];
  };
  const spread = () => {
    const [a, b] = [...pointers.values()];
    return { apart: Math.hypot(a[0] - b[0], a[1] - b[1]), middle: [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2] };
  };

  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoomTo(now().zoom * Math.exp(-event.deltaY / 400), ...share(event));
  }, { passive: false });
  stage.addEventListener("dblclick", (event) => zoomTo(now().zoom > 1 ? 1 : 2.5, ...share(event)));
  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    stage.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, share(event));
  });
  stage.addEventListener("pointermove", (event) => {
    const last = pointers.get(event.pointerId);
    if (!last) return;
    const before = pointers.size === 2 && spread();
    const here = share(event);
    pointers.set(event.pointerId, here);
    if (before) {
      const after = spread();
      zoomTo((now().zoom * after.apart) / Math.max(before.apart, 0.01), ...after.middle);
    } else if (pointers.size === 1) {
      moveTo(now().x + here[0] - last[0], now().y + here[1] - last[1]);
    }
  });
  for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, (event) => pointers.delete(event.pointerId));
}
