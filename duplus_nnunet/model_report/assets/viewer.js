"use strict";
// Draws the viewers of the page. What they show stands beside each as JSON; see duplus_nnunet/model_report/packing.py.

const LONG_SIDE = 640; // pixels of a canvas
const FILL = 0.3;
const LINE = 2.5;

/** Reads run lengths into the places where runs of True begin and end. */
function decodeRuns(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const edges = [];
  let place = 0, length = 0, shift = 0;
  for (const byte of bytes) {
    length += (byte & 127) * 2 ** shift;
    shift += 7;
    if (byte < 128) {
      place += length;
      edges.push(place);
      length = shift = 0;
    }
  }
  return Uint32Array.from(edges);
}

/** One mask over all slices of a case. */
class Mask {
  constructor(text, width, height) {
    this.text = text;
    this.width = width;
    this.height = height;
    this.paths = new Map();
    this.kept = null;
  }

  get edges() {
    this.kept ??= decodeRuns(this.text);
    return this.kept;
  }

  /** Sets the pixels of a slice, in a grid with an empty border; null if the slice has none. */
  cut(slice) {
    const { edges, width, height } = this;
    const from = slice * width * height, to = from + width * height;
    let low = 0, high = edges.length >> 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (edges[2 * middle + 1] <= from) low = middle + 1;
      else high = middle;
    }
    if (2 * low >= edges.length || edges[2 * low] >= to) return null;
    const grid = new Uint8Array((width + 2) * (height + 2));
    for (let run = low; 2 * run < edges.length && edges[2 * run] < to; run++) {
      const last = Math.min(edges[2 * run + 1], to) - from;
      for (let pixel = Math.max(edges[2 * run], from) - from; pixel < last; pixel++) {
        grid[(Math.floor(pixel / width) + 1) * (width + 2) + (pixel % width) + 1] = 1;
      }
    }
    return grid;
  }

  /** The outline of a slice, in pixels of the image; null if the slice has none. */
  outline(slice) {
    if (!this.paths.has(slice)) {
      const grid = this.cut(slice);
      this.paths.set(slice, grid && traceOutline(grid, this.width + 2, this.height + 2));
    }
    return this.paths.get(slice);
  }

  /** The slice with most pixels; -1 if the mask is empty. */
  largestSlice(count) {
    const area = new Float64Array(count), size = this.width * this.height;
    for (let run = 0; 2 * run < this.edges.length; run++) {
      area[Math.floor(this.edges[2 * run] / size)] += this.edges[2 * run + 1] - this.edges[2 * run];
    }
    const most = Math.max(...area);
    return most > 0 ? area.indexOf(most) : -1;
  }
}

/** Walks around the set pixels of a grid with an empty border, through the middles of their sides. */
function traceOutline(grid, width, height) {
  const path = new Path2D(), corners = width + 1;
  const sides = new Map(); // from each corner, the corners to which a side of a set pixel leads
  const add = (from, to) => sides.has(from) ? sides.get(from).push(to) : sides.set(from, [to]);
  for (let y = 1; y < height - 1; y++) {
    for (let x = 1; x < width - 1; x++) {
      const pixel = y * width + x;
      if (!grid[pixel]) continue;
      const corner = y * corners + x;
      if (!grid[pixel - width]) add(corner, corner + 1);
      if (!grid[pixel + 1]) add(corner + 1, corner + corners + 1);
      if (!grid[pixel + width]) add(corner + corners + 1, corner + corners);
      if (!grid[pixel - 1]) add(corner + corners, corner);
    }
  }
  for (const first of sides.keys()) {
    while (sides.get(first)?.length) {
      let from = first, started = false;
      do {
        const to = sides.get(from).pop();
        const x = ((from % corners) + (to % corners)) / 2 - 1;
        const y = (Math.floor(from / corners) + Math.floor(to / corners)) / 2 - 1;
        if (started) path.lineTo(x, y);
        else path.moveTo(x, y);
        started = true;
        from = to;
      } while (from !== first && sides.get(from)?.length);
      path.closePath();
    }
  }
  return path;
}

/** One image with its slider. */
class CaseView {
  constructor(element, data, viewer) {
    this.element = element;
    this.data = data;
    this.viewer = viewer;
    this.slice = data.start;
    this.canvas = element.querySelector("canvas");
    this.slider = element.querySelector("input[type=range]");
    this.place = element.querySelector("output");
    this.masks = data.masks.map((mask) => ({
      target: mask.target,
      prediction: mask.prediction === null ? null : new Mask(mask.prediction, data.width, data.height),
      truth: mask.truth === null ? null : new Mask(mask.truth, data.width, data.height),
    }));
    const longest = Math.max(1, data.proportion);
    this.canvas.width = Math.round(LONG_SIDE / longest);
    this.canvas.height = Math.round((LONG_SIDE / longest) * data.proportion);
    this.slider.max = data.levels.length - 1;
    this.slider.addEventListener("input", () => this.show(Number(this.slider.value)));
    this.canvas.addEventListener("keydown", (event) => this.onKey(event));
    this.canvas.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
    this.picture = new Image();
    this.ready = new Promise((resolve) => {
      this.picture.addEventListener("load", () => { this.show(this.slice); resolve(); });
    });
    this.picture.src = data.picture;
  }

  onKey(event) {
    const steps = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 5, PageDown: -5 };
    if (event.key in steps) {
      event.preventDefault();
      this.show(this.slice + steps[event.key]);
    }
  }

  // The wheel scrolls slices only in the image that was clicked: elsewhere it scrolls the page.
  onWheel(event) {
    if (document.activeElement === this.canvas) {
      event.preventDefault();
      this.show(this.slice - Math.sign(event.deltaY));
    }
  }

  show(slice) {
    const last = this.data.levels.length - 1;
    this.slice = Math.min(Math.max(slice, 0), last);
    const text = `${this.data.levels[this.slice] + 1} of ${this.data.depth}`;
    this.slider.value = this.slice;
    this.slider.setAttribute("aria-valuetext", `slice ${text}`);
    this.place.textContent = text;
    this.draw();
  }

  /** Goes to the largest slice of a target unless the current one shows it. */
  find(target) {
    for (const mask of this.masks.filter((one) => one.target === target)) {
      const shown = [mask.truth, mask.prediction].filter((one) => one !== null);
      if (shown.some((one) => one.outline(this.slice))) return;
      const slices = shown.map((one) => one.largestSlice(this.data.levels.length)).filter((slice) => slice >= 0);
      if (slices.length) this.show(slices[0]);
    }
  }

  draw() {
    const { data, canvas, slice } = this;
    const context = canvas.getContext("2d");
    const left = (slice % data.columns) * data.width, top = Math.floor(slice / data.columns) * data.height;
    context.fillStyle = "black";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(this.picture, left, top, data.width, data.height, 0, 0, canvas.width, canvas.height);
    const names = [];
    for (const mask of this.masks) {
      if (!this.viewer.chosen.has(mask.target)) continue;
      const style = this.viewer.targets[mask.target];
      const prediction = this.viewer.layers.prediction && mask.prediction?.outline(slice);
      const truth = this.viewer.layers.truth && mask.truth?.outline(slice);
      if (prediction) this.drawPrediction(context, this.scale(prediction), style);
      if (truth) this.drawTruth(context, this.scale(truth), style);
      if (prediction || truth) names.push(style.name);
    }
    canvas.setAttribute("aria-label",
      `Axial slice ${data.levels[slice] + 1} of ${data.depth}; outlined: ${names.join(", ") || "nothing"}`);
  }

  scale(path) {
    const scaled = new Path2D();
    scaled.addPath(path, new DOMMatrix([
      this.canvas.width / this.data.width, 0, 0, this.canvas.height / this.data.height, 0, 0]));
    return scaled;
  }

  drawPrediction(context, path, style) {
    context.globalAlpha = FILL;
    context.fillStyle = style.colour;
    context.fill(path, "evenodd");
    context.globalAlpha = 1;
    this.stroke(context, path, style.colour, LINE, style.dashes.map((length) => length * LINE));
  }

  drawTruth(context, path, style) {
    this.stroke(context, path, style.colour, LINE, []);
    this.stroke(context, path, "white", LINE, [2 * LINE, 2 * LINE]);
  }

  stroke(context, path, colour, width, dashes) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.setLineDash(dashes);
    context.stroke(path);
  }
}

/** Images side by side with one choice of targets. */
class Viewer {
  constructor(element) {
    const data = JSON.parse(element.querySelector("script[type='application/json']").textContent);
    this.element = element;
    this.targets = data.targets;
    this.boxes = [...element.querySelectorAll("input[data-target]")];
    this.chosen = new Set();
    this.layers = {};
    element.querySelector(".interactive").hidden = false;
    this.readChoice();
    const places = [...element.querySelectorAll(".case")];
    this.cases = data.cases.map((one, index) => new CaseView(places[index], one, this));
    for (const box of this.boxes) {
      box.addEventListener("change", () => {
        this.update();
        if (box.checked) this.cases.forEach((one) => one.find(Number(box.dataset.target)));
      });
    }
    for (const box of element.querySelectorAll("input[data-layer]")) {
      box.addEventListener("change", () => this.update());
    }
    for (const button of element.querySelectorAll("button[data-choose]")) {
      button.addEventListener("click", () => {
        for (const box of this.boxes) {
          if (!box.closest("li").hidden) box.checked = button.dataset.choose === "all";
        }
        this.update();
      });
    }
    element.querySelector("input[type=search]")?.addEventListener("input", (event) => this.filter(event.target.value));
  }

  readChoice() {
    this.chosen = new Set(this.boxes.filter((box) => box.checked).map((box) => Number(box.dataset.target)));
    for (const box of this.element.querySelectorAll("input[data-layer]")) this.layers[box.dataset.layer] = box.checked;
    for (const row of this.element.querySelectorAll("tr[data-row]")) {
      row.hidden = !this.chosen.has(Number(row.dataset.row));
    }
  }

  update() {
    this.readChoice();
    this.cases.forEach((one) => one.draw());
  }

  filter(text) {
    const words = text.trim().toLowerCase();
    for (const box of this.boxes) {
      box.closest("li").hidden = !this.targets[Number(box.dataset.target)].name.toLowerCase().includes(words);
    }
  }
}

const viewers = [...document.querySelectorAll("[data-viewer]")].map((element) => new Viewer(element));
Promise.all(viewers.flatMap((viewer) => viewer.cases.map((one) => one.ready)))
  .then(() => { document.documentElement.dataset.ready = "yes"; });

// Folded rows are printed too.
let folded = [];
window.addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  folded.forEach((one) => { one.open = true; });
});
window.addEventListener("afterprint", () => folded.forEach((one) => { one.open = false; }));
