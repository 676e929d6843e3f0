// Compares images with their variants. What `data` holds is in vae_aug/figures/page.py.

const NAMES = ["case", "variant", "show", "boxes", "drag", "wipe", "level", "width", "class", "size",
  "fidelity", "theme"];
const SHOWS = ["wipe", "input", "output", "difference"];
const KEYS = { "+": "zoomIn", "=": "zoomIn", "-": "zoomOut", 0: "fit", p: "previous", n: "next",
  r: "resetWindow", v: "variant", b: "boxes" };
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const PAN_PX = 40, LEAST_ZOOM = 0.5, MOST_ZOOM = 64, NEAR_PX = 40, THUMBNAIL_PX = 160;

const view = { zoom: 1, x: 0, y: 0 };
const layers = { input: make("canvas"), output: make("canvas"), difference: make("canvas") };
let shown = null; // a case and its variant, with the pixels of both
let defaults = {};

// Level and width of a window, rounded as their fields show them.
function findWindow([low, high]) {
  return [(low + high) / 2, high - low].map(round);
}

function readWindow() {
  const usual = findWindow(shown.case.window);
  return ["level", "width"].map((name, at) => (read(name) === "" ? usual[at] : Number(read(name))));
}

function clearWindow() {
  for (const name of ["level", "width"]) write(name, "");
}

function round(value) {
  return Number(value.toPrecision(5));
}

// --- Filters and lists ----------------------------------------------------------------------

function measureBox({ height, width }, [top, left, bottom, right]) {
  return [(right - left) * width, (bottom - top) * height];
}

function fits(one, state, box) {
  const [label, size, limit] = [read("class"), read("size"), read("fidelity")];
  const [across, down] = measureBox(one, one.boxes[box]), area = across * down;
  const kind = area < 32 ** 2 ? "small" : area < 96 ** 2 ? "medium" : "large"; // COCO's
  return (label === "" || one.labels[box] === Number(label)) && (size === "" || size === kind)
    && (limit === "" || (state.fidelity[box] !== null && state.fidelity[box] <= Number(limit)));
}

function filterCases() {
  const all = ["class", "size", "fidelity"].every((name) => read(name) === "");
  const has = (one, state) => all || one.boxes.some((_, box) => fits(one, state, box));
  const found = data.cases.map((one) => one.states.slice(1).some((state) => has(one, state)));
  find("case").forEach((radio, place) => { radio.disabled = radio.parentNode.hidden = !found[place]; });
  const count = found.filter(Boolean).length;
  parts.count.textContent = count ? `${count} of ${data.cases.length} images` : "No image has such a box.";
  if (count && !found[read("case") - 1]) {
    write("case", found.indexOf(true) + 1);
    clearWindow();
  }
  const chosen = data.cases[read("case") - 1];
  for (const radio of find("variant")) {
    radio.parentNode.classList.toggle("faint", !has(chosen, chosen.states[radio.value]));
  }
}

function listCases() {
  parts.cases.append(...data.cases.map((one, place) => {
    const lowest = Math.min(...one.states.slice(1).flatMap((state) => state.fidelity).filter(Number.isFinite));
    return make("label", { className: "case" },
      make("input", { type: "radio", name: "case", value: place + 1, checked: !place }),
      make("canvas", { ariaHidden: "true" }),
      make("span", {}, `${place + 1}: ${one.boxes.length} ${one.boxes.length === 1 ? "box" : "boxes"}`),
      make("span", { className: "muted" }, Number.isFinite(lowest) ? `fidelity ≥ ${writeFigure(lowest)}` : ""));
  }));
}

function listVariants() {
  parts.variants.append(...data.cases[0].states.slice(1).map(({ heading }, place) => (
    make("label", {}, make("input", { type: "radio", name: "variant", value: place + 1, checked: !place }), heading))));
}

async function drawThumbnails() {
  const layer = make("canvas");
  for (const [place, one] of data.cases.entries()) {
    paint(layer, one, shadeGrey(await unpack(one.states[0].pixels, one), one, findWindow(one.window)));
    const canvas = parts.cases.children[place].querySelector("canvas");
    const share = THUMBNAIL_PX / Math.max(one.width, one.height);
    Object.assign(canvas, { width: one.width * share, height: one.height * share });
    canvas.getContext("2d").drawImage(layer, 0, 0, canvas.width, canvas.height);
  }
}

// Cut off, not rounded: a box below a limit must not seem to reach it. 0.95 is a little less in float32.
function writeFigure(value) {
  return value === null ? "–" : (Math.floor(value * 100 + 1e-4) / 100).toFixed(2);
}

function listBoxes() {
  const { case: one, state } = shown;
  const rows = one.boxes.flatMap((box, at) => {
    if (!fits(one, state, at)) return [];
    const { name, colour } = data.classes[one.labels[at]], swatch = make("span", { className: "swatch" });
    swatch.style.backgroundColor = colour;
    const button = make("button", { type: "button", ariaLabel: `Zoom to box ${at + 1}` }, at + 1);
    button.addEventListener("click", () => zoomTo(box));
    const size = box.includes(null) ? "–" : measureBox(one, box).map((side) => Number(side.toFixed(1))).join(" × ");
    const figures = [state.fidelity[at], state.contrast[at]].map(writeFigure);
    return make("tr", {}, make("th", { scope: "row" }, swatch, button), make("td", { className: "text" }, name),
      ...[size, ...figures, state.guarded[at] ? "acted" : "–"].map((text) => make("td", {}, text)));
  });
  parts.boxes.replaceChildren(...rows);
  parts.table.hidden = !rows.length;
  parts.unlisted.textContent = !one.boxes.length ? "This image has no boxes."
    : rows.length < one.boxes.length ? `${rows.length} of ${one.boxes.length} boxes pass the filters.` : "";
}

// --- Show what is chosen --------------------------------------------------------------------

async function update() {
  filterCases();
  const one = data.cases[read("case") - 1], state = one.states[read("variant")];
  if (shown?.state !== state) {
    const [input, output] = await Promise.all([one.states[0], state].map(({ pixels }) => unpack(pixels, one)));
    if (data.cases[read("case") - 1].states[read("variant")] !== state) return; // another was chosen since
    const change = (place) => measureMean(output, place, one.channels) - measureMean(input, place, one.channels);
    shown = { case: one, state, input, output, change, painted: "" };
    paint(layers.difference, one, shadeDifference(change, data.scale * (one.range[1] - one.range[0])));
  }
  const window = readWindow();
  if (shown.painted !== String(window)) {
    for (const name of ["input", "output"]) paint(layers[name], one, shadeGrey(shown[name], one, window));
    shown.painted = String(window);
  }
  describe(window);
  listBoxes();
  draw();
  const [level, width] = findWindow(one.window);
  writeAddress(NAMES, { ...defaults, level: String(level), width: String(width) });
  parts.main.ariaBusy = "false";
}

function describe(window) {
  const { case: one, state } = shown, show = read("show"), title = `Image ${read("case")}, ${state.heading}`;
  parts.title.textContent = title;
  parts.note.textContent = state.note.split("\n")[0];
  ["level", "width"].forEach((name, at) => {
    if (document.activeElement !== find(name)[0]) write(name, window[at]);
  });
  const [black, white] = one.range;
  parts.range.textContent = `In the values of the records, of ${one.bits} bits: ${black} is black, ${white} white.`;
  const boxes = one.labels.map((label) => data.classes[label].name).join(", ") || "none";
  parts.picture.ariaLabel = `${title}, ${one.width} × ${one.height} pixels, shown as ${show}. Boxes: ${boxes}.`;
  parts.left.textContent = { output: state.heading, difference: "difference" }[show] ?? "input";
  parts.right.textContent = state.heading;
  parts.scale.hidden = show !== "difference";
  for (const part of [parts.right, parts.divider, find("wipe")[0]]) part.hidden = show !== "wipe";
  showTheme();
}

// Where the image lies in the viewer, and its scale, in CSS pixels.
function locate() {
  const { width, height } = shown.case, [w, h] = [parts.viewer.clientWidth, parts.viewer.clientHeight];
  const scale = view.zoom * Math.min(w / width, h / height);
  return { w, h, scale, x: (w - width * scale) / 2 + view.x, y: (h - height * scale) / 2 + view.y };
}

function draw() {
  const { w, h, scale, x, y } = locate(), show = read("show"), split = w * read("wipe") / 100;
  const area = [x, y, shown.case.width * scale, shown.case.height * scale];
  const context = parts.picture.getContext("2d"), ratio = devicePixelRatio;
  Object.assign(parts.picture, { width: Math.round(w * ratio), height: Math.round(h * ratio) });
  context.scale(ratio, ratio);
  context.imageSmoothingEnabled = scale * ratio < 2; // enlarged pixels stay pixels
  context.drawImage(layers[show === "wipe" ? "input" : show], ...area);
  if (show === "wipe") {
    context.beginPath();
    context.rect(split, 0, w, h);
    context.clip();
    context.drawImage(layers.output, ...area);
    parts.divider.style.left = `${split}px`;
  }
  const boxes = read("boxes") === "on" ? shown.case.boxes : [];
  parts.overlay.replaceChildren(...boxes.flatMap((box, at) => drawBox(box, at, x, y, scale)));
}

function drawBox(box, at, x, y, scale) {
  if (box.includes(null)) return [];
  const { case: one, state } = shown, { name, colour } = data.classes[one.labels[at]];
  const [width, height] = measureBox(one, box).map((side) => Math.max(side * scale, 0));
  const [left, top] = [x + box[1] * one.width * scale, y + box[0] * one.height * scale];
  const kind = fits(one, state, at) ? "" : "faint";
  // The line lies just outside of the box.
  const lines = { x: left - 0.75, y: top - 0.75, width: width + 1.5, height: height + 1.5, stroke: colour };
  const words = { x: left, y: top > 18 ? top - 5 : top + height + 14, fill: colour };
  return [makeShape("rect", kind, lines), makeShape("text", kind, words, `${at + 1} ${name.slice(0, 32)}`)];
}

function makeShape(tag, kind, attributes, ...children) {
  const shape = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries({ ...attributes, class: kind })) shape.setAttribute(name, value);
  shape.append(...children);
  return shape;
}

// --- Actions --------------------------------------------------------------------------------

// Zoom so that a point of the viewer stays where it is; by default its middle.
function zoomBy(factor, x = parts.viewer.clientWidth / 2, y = parts.viewer.clientHeight / 2) {
  const before = locate();
  view.zoom = Math.max(LEAST_ZOOM, Math.min(MOST_ZOOM, view.zoom * factor));
  const after = locate(), share = after.scale / before.scale;
  pan(x - after.x - (x - before.x) * share, y - after.y - (y - before.y) * share);
}

function zoomTo(box) {
  if (box.includes(null)) return;
  const [across, down] = measureBox(shown.case, box);
  actions.fit();
  zoomBy(Math.min(locate().w, locate().h) / (locate().scale * Math.max(2 * across, 2 * down, NEAR_PX)));
  const { w, h, x, y, scale } = locate(), { width, height } = shown.case;
  pan(w / 2 - x - (box[1] + box[3]) / 2 * width * scale, h / 2 - y - (box[0] + box[2]) / 2 * height * scale);
}

function pan(x, y) {
  view.x += x;
  view.y += y;
  draw();
}

// As in DICOM viewers: to the right wider, downwards a higher level, which is darker.
function changeWindow(x, y) {
  const [level, width] = readWindow(), [low, high] = shown.case.range;
  write("level", round(level + y * width / 300));
  write("width", round(Math.max(width * Math.exp(x / 200), (high - low) / 1e4)));
  update();
}

function choose(name, value) {
  write(name, value);
  change({ target: find(name)[0] });
}

function change({ target }) {
  if (target.name !== "case") return update();
  find("case").find((radio) => radio.checked).parentNode.scrollIntoView({ block: "nearest" });
  return actions.resetWindow();
}

function step(by) {
  const free = find("case").filter((radio) => !radio.disabled);
  const next = free[free.findIndex((radio) => radio.checked) + by];
  if (next) choose("case", next.value);
}

const actions = {
  zoomIn: () => zoomBy(1.25),
  zoomOut: () => zoomBy(0.8),
  fit: () => {
    Object.assign(view, { zoom: 1, x: 0, y: 0 });
    draw();
  },
  previous: () => step(-1),
  next: () => step(1),
  resetWindow: () => { clearWindow(); update(); },
  variant: () => choose("variant", read("variant") % (shown.case.states.length - 1) + 1),
  boxes: () => choose("boxes", read("boxes") === "on" ? "off" : "on"),
  theme: () => { switchTheme(); update(); },
};

function press(event) {
  if (event.target !== parts.viewer || event.ctrlKey || event.metaKey || event.altKey) return;
  const action = actions[KEYS[event.key.toLowerCase()]], arrow = ARROWS[event.key], show = SHOWS[event.key - 1];
  if (!action && !arrow && !show) return;
  event.preventDefault();
  if (action) action();
  else if (show) choose("show", show);
  else if (event.shiftKey) changeWindow(...arrow.map((way) => way * 20));
  else pan(...arrow.map((way) => -way * PAN_PX));
}

function drag(event) {
  if (event.target.name === "wipe") return;
  const move = event.button === 2 || read("drag") === "window" ? changeWindow : pan;
  let { clientX, clientY } = event;
  parts.viewer.setPointerCapture(event.pointerId);
  parts.viewer.onpointermove = (moved) => {
    move(moved.clientX - clientX, moved.clientY - clientY);
    ({ clientX, clientY } = moved);
  };
  parts.viewer.onlostpointercapture = () => { parts.viewer.onpointermove = tell; };
}

// Tell the values under the pointer.
function tell(event) {
  const { input, output, change: measure, case: { width, height, channels, range } } = shown, at = locate();
  const frame = parts.viewer.getBoundingClientRect();
  const column = Math.floor((event.clientX - frame.x - at.x) / at.scale);
  const row = Math.floor((event.clientY - frame.y - at.y) / at.scale);
  const inside = column >= 0 && row >= 0 && column < width && row < height, place = row * width + column;
  const [before, after] = [input, output].map((values) => measureMean(values, place, channels).toFixed(0));
  const share = (100 * measure(place) / (range[1] - range[0])).toFixed(1);
  const text = `Row ${row}, column ${column}: input ${before}, output ${after}, change ${share}% of the range`;
  parts.readout.textContent = inside ? text : "";
}

function turnWheel(event) {
  event.preventDefault();
  const { x, y } = parts.viewer.getBoundingClientRect();
  zoomBy(Math.exp(-event.deltaY / 400), event.clientX - x, event.clientY - y);
}

function listen() {
  form.addEventListener("input", change);
  form.addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("click", ({ target }) => actions[target.dataset.do]?.());
  parts.viewer.addEventListener("keydown", press);
  parts.viewer.addEventListener("pointerdown", drag);
  parts.viewer.addEventListener("contextmenu", (event) => event.preventDefault());
  parts.viewer.addEventListener("wheel", turnWheel, { passive: false });
  parts.viewer.onpointermove = tell;
  new ResizeObserver(draw).observe(parts.viewer);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
  addEventListener("hashchange", () => { readAddress(NAMES, defaults); update(); });
}

async function start() {
  const { checkpoint, mode, factor, seed } = data.settings;
  parts.summary.textContent = `${checkpoint}, ${mode}, factor ${factor}, seed ${seed}`;
  const settings = Object.entries(data.settings);
  parts.settings.append(...settings.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
  find("class")[0].append(...data.classes.map(({ name }, value) => make("option", { value }, name)));
  parts.darker.textContent = `−${round(100 * data.scale)}%`;
  parts.brighter.textContent = `+${round(100 * data.scale)}%`;
  parts.explanation.textContent = data.explanation;
  parts.filters.open = matchMedia("(min-width: 701px)").matches;
  listCases();
  listVariants();
  defaults = Object.fromEntries(NAMES.map((name) => [name, read(name)]));
  readAddress(NAMES, defaults);
  await update();
  listen();
  await drawThumbnails();
}

start().catch((error) => {
  parts.problem.hidden = false;
  parts.problem.textContent = `This page cannot show its images: ${error.message}. Browsers of 2024 and later can.`;
});
