import { el } from "./dom.js";

// A heat map over a picture: amber where two images are alike, blue where they differ, the more the less transparent. Two hues that people
// who see few colours tell apart, and words beside them.

const ALIKE = [255, 176, 0];
const UNLIKE = [64, 140, 255];
const OPACITY_MAX = 0.75;
/** Long side of a drawn map, in pixels: it is smooth, the browser enlarges it. */
const DRAWN_PX = 512;
const ACROSS = ["left", "middle", "right"];
const DOWN = ["upper", "middle", "lower"];

/** A canvas of the proportions of `img`, to lie over it, with the map in words for those who don't see it. */
export function drawHeat(map, img, name) {
  const scale = DRAWN_PX / Math.max(img.naturalWidth, img.naturalHeight);
  const [width, height] = [img.naturalWidth, img.naturalHeight].map((side) => Math.max(1, Math.round(side * scale)));
  const canvas = el("canvas", { width, height, role: "img", "aria-label": `${name}: ${inWords(map)}` });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  const [x, y, w, h] = map.area;
  context.drawImage(coloured(map), x * width, y * height, w * width, h * height);
  return canvas;
}

/** One pixel a cell. */
function coloured({ rows, columns, cells }) {
  const canvas = el("canvas", { width: columns, height: rows });
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  const most = Math.max(...cells.flat().map(Math.abs)) || 1;
  cells.flat().forEach((share, at) => {
    const alpha = 255 * OPACITY_MAX * (Math.abs(share) / most);
    image.data.set([...(share < 0 ? UNLIKE : ALIKE), alpha], 4 * at);
  });
  context.putImageData(image, 0, 0);
  return canvas;
}

/** Which ninth of the picture has most of what is alike. */
export function inWords({ rows, columns, cells, area: [x, y, width, height] }) {
  const ninths = new Array(9).fill(0);
  const third = (place) => Math.min(Math.max(Math.floor(3 * place), 0), 2);
  cells.forEach((row, r) => row.forEach((share, c) => {
    ninths[3 * third(y + (height * (r + 0.5)) / rows) + third(x + (width * (c + 0.5)) / columns)] += Math.max(share, 0);
  }));
  const all = ninths.reduce((sum, share) => sum + share, 0);
  if (all === 0) return "alike nowhere";
  const best = ninths.indexOf(Math.max(...ninths));
  const where = best === 4 ? "in the middle" : `${DOWN[Math.floor(best / 3)]} ${ACROSS[best % 3]}`;
  return `most alike ${where}, ${Math.round((100 * ninths[best]) / all)} % of what is alike`;
}

/** What the colours mean, and how the map came about; `moved` where the search was for more than the image. */
export function heatLegend({ similarity, method, query, neighbor_map: found, why_not: why }, moved) {
  const how = method === "cells"
    ? `The similarity of ${similarity.toFixed(3)}, split exactly into what the network compares in each place.`
    : "How much the similarity falls when a place is covered.";
  return el("div", { class: "heat-legend" },
    el("p", {}, el("span", { class: "heat-scale", "aria-hidden": "true" }), "blue: differs · clear: does not count · amber: alike"),
    moved && el("p", {}, "Of the image itself, not of the search as your examples have moved it."),
    el("p", { class: "fine" }, how, " It shows what the network compared, which need not be a finding."),
    el("p", { class: "fine" }, `Query: ${inWords(query)}. `,
      found ? `Case: ${inWords(found)}${found.from_thumbnail ? ", by its thumbnail" : ""}.` : `No map of the case: ${why}.`));
}
