// Shows results of any command; `data` is { files: [{ name, content }] }, each content a JSON value.
// An object's plain values become a list, a list of like objects becomes a table with a plot.

const SVG = "http://www.w3.org/2000/svg";
const MOST_ROWS = 200, MOST_DOTS = 60, MOST_LINES = 6, MOST_CHOICES = 12, FEW_VALUES = 12, LEAST_POINTS = 5;
const WIDTH = 760, ROW = 20, HEIGHT = 260, BINS = 24;
const LEAST_SMOOTHED = 100, SMOOTHED_SHARE = 0.02;
const NONE = "–";
// Units of figures whose names do not tell them, by the last word of a name.
const UNITS = { psnr: "dB" };
// What figures are where there is no effect: of an attack that guesses, and between equals.
const NO_EFFECT = { auc: 0.5, difference: 0 };
// What people look for first, where there is no figure with an interval.
const FIRST = ["ssim", "psnr", "loss"];

// --- Values ---------------------------------------------------------------------------------

function isPlain(value) {
  return value === null || typeof value !== "object";
}

function isPlainList(value) {
  return Array.isArray(value) && value.every(isPlain);
}

// A mean with its interval.
function isEstimate(value) {
  return !isPlain(value) && ["mean", "low", "high"].every((key) => key in value && isPlain(value[key]));
}

// A key of a key has a line break between both; see `flatten`.
function nameOf(key) {
  return key.replace(/[_\n]/g, " ");
}

function lastWordOf(key) {
  return key.toLowerCase().split(/[_\n ]/).pop();
}

function titleOf(key) {
  const unit = UNITS[lastWordOf(key)];
  return unit ? `${nameOf(key)} (${unit})` : nameOf(key);
}

function format(value) {
  if (value === null || value === undefined || value === "") return NONE;
  if (typeof value === "number" && !Number.isInteger(value)) return String(Number(value.toPrecision(4)));
  return String(value);
}

function formatCell(cell) {
  if (cell === undefined) return NONE;
  const known = cell.low !== undefined && cell.low !== null;
  return format(cell.value) + (known ? ` [${format(cell.low)}, ${format(cell.high)}]` : "");
}

// Cells of a row by their keys; null if it holds lists that have no room in a cell.
function flatten(row, prefix = "", cells = Object.create(null)) {
  for (const [key, value] of Object.entries(row)) {
    const name = prefix + key;
    if (isPlain(value)) cells[name] = { value };
    else if (isPlainList(value)) {
      const long = value.length > FEW_VALUES;
      cells[name] = { value: long ? `${value.length} values` : value.map(format).join(", "), list: true };
    } else if (Array.isArray(value)) return null;
    else if (isEstimate(value)) {
      const { mean, low, high, ...others } = value;
      cells[name] = { value: mean, low, high };
      if (!flatten(others, `${name}\n`, cells)) return null;
    } else if (!flatten(value, `${name}\n`, cells)) return null;
  }
  return cells;
}

// `auc`, `auc_low` and `auc_high` are one cell.
function joinIntervals(cells) {
  for (const name of Object.keys(cells)) {
    const [low, high] = [cells[`${name}_low`], cells[`${name}_high`]];
    if (!low || !high || typeof cells[name].value !== "number") continue;
    cells[name] = { value: cells[name].value, low: low.value, high: high.value };
    delete cells[`${name}_low`];
    delete cells[`${name}_high`];
  }
  return cells;
}

// Rows of a list of objects, or of an object of objects, whose keys become the first column.
function findRows(value) {
  const entries = Object.entries(value);
  if (entries.length === 0 || entries.some(([, row]) => isPlain(row) || Array.isArray(row))) return null;
  if (!Array.isArray(value) && entries.length < 2) return null;
  const rows = [];
  for (const [, row] of entries) {
    const cells = flatten(isEstimate(row) ? { value: row } : row);
    if (!cells || Object.keys(cells).length === 0) return null;
    rows.push(joinIntervals(cells));
  }
  if (Array.isArray(value)) return rows;
  if (!Object.keys(rows[0]).some((name) => rows.every((row) => name in row))) return null;
  const first = ["name", "key", "entry"].find((name) => !rows.some((row) => name in row)) ?? "";
  return rows.map((row, at) => ({ [first]: { value: nameOf(entries[at][0]) }, ...row }));
}

function findColumns(rows) {
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  return names.map((name) => {
    const values = rows.map((row) => row[name]?.value ?? null).filter((value) => value !== null);
    const numeric = values.length > 0 && values.every((value) => typeof value === "number");
    const list = rows.some((row) => row[name]?.list);
    return { name, numeric, list, choices: [...new Set(values)] };
  });
}

// --- Plots ----------------------------------------------------------------------------------

function draw(tag, attributes = {}, text = "") {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== "") element.textContent = text;
  return element;
}

// Multiples of 1, 2 or 5 times a power of ten, at most six.
function findTicks(low, high) {
  const power = 10 ** Math.floor(Math.log10((high - low) / 6));
  for (const step of [power, 2 * power, 5 * power, 10 * power]) {
    const first = Math.ceil(low / step - 1e-9), last = Math.floor(high / step + 1e-9);
    if (last - first < 6) return Array.from({ length: last - first + 1 }, (_, at) => (first + at) * step);
  }
  return [];
}

function findLimits(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  const room = 0.05 * (high - low) || Math.max(Math.abs(high), 1) * 0.05;
  return [low - room, high + room];
}

function scale([low, high], from, to) {
  return (value) => from + ((value - low) / (high - low)) * (to - from);
}

function makePlot(label, height) {
  const plot = draw("svg", { class: "plot", viewBox: `0 0 ${WIDTH} ${height}`, role: "img" });
  plot.setAttribute("aria-label", label);
  return plot;
}

function addTicks(plot, limits, place, top, bottom) {
  for (const tick of findTicks(...limits)) {
    const x = place(tick);
    plot.append(draw("line", { class: "grid", x1: x, x2: x, y1: top, y2: bottom }));
    plot.append(draw("text", { x, y: bottom + 15, "text-anchor": "middle" }, format(tick)));
  }
}

// One line for each row: its figure, and its interval if there is one.
function plotDots(rows, labels, measure) {
  const known = rows.map((row, at) => ({ label: labels[at] || `row ${at + 1}`, cell: row[measure] }))
    .filter(({ cell }) => typeof cell?.value === "number").slice(0, MOST_DOTS);
  if (known.length === 0) return null;
  const none = NO_EFFECT[lastWordOf(measure)];
  const ends = known.flatMap(({ cell: { value, low, high } }) => [value, low ?? value, high ?? value]);
  const limits = findLimits(none === undefined ? ends : [none, ...ends]);
  const left = Math.min(320, 20 + 6.4 * Math.max(...known.map(({ label }) => label.length)));
  const bottom = 8 + known.length * ROW, place = scale(limits, left + 8, WIDTH - 24);
  const plot = makePlot(`${titleOf(measure)} of each row of the table below`, bottom + 40);
  addTicks(plot, limits, place, 4, bottom);
  const told = none === undefined ? titleOf(measure) : `${titleOf(measure)}; dashed: ${none}, no effect`;
  plot.append(draw("text", { x: (left + WIDTH) / 2, y: bottom + 34, "text-anchor": "middle" }, told));
  if (none !== undefined) plot.append(draw("line", { class: "none", x1: place(none), x2: place(none), y1: 4, y2: bottom }));
  known.forEach(({ label, cell }, at) => {
    const y = 8 + (at + 0.5) * ROW, line = draw("g", { class: "c0" });
    const shown = label.length > 48 ? `${label.slice(0, 47)}…` : label;
    line.append(draw("title", {}, `${label}: ${formatCell(cell)}`));
    if (typeof cell.low === "number") {
      const ends = [cell.low, cell.high].map(place);
      line.append(draw("line", { class: "range", x1: ends[0], x2: ends[1], y1: y, y2: y }));
    }
    line.append(draw("circle", { class: "dot", cx: place(cell.value), cy: y, r: 4 }));
    plot.append(draw("text", { class: "name", x: left, y: y + 4, "text-anchor": "end" }, shown), line);
  });
  return plot;
}

// The mean of each value and its neighbours on both sides, of fewer at the ends.
function smooth(values) {
  const reach = Math.ceil(SMOOTHED_SHARE * values.length);
  return values.map((_, at) => {
    const near = values.slice(Math.max(0, at - reach), at + reach + 1);
    return near.reduce((sum, value) => sum + value, 0) / near.length;
  });
}

// A line for each group of rows over a column that grows.
function plotLines(groups, over, measure) {
  const lines = [...groups].map(([label, rows]) => [label, rows.filter((row) => typeof row[measure]?.value === "number")])
    .filter(([, rows]) => rows.length > 0).slice(0, MOST_LINES);
  if (lines.length === 0) return null;
  const points = lines.flatMap(([, rows]) => rows);
  const across = findLimits(points.map((row) => row[over].value));
  const along = findLimits(points.map((row) => row[measure].value));
  const keys = lines.length > 1 ? lines.length * 16 + 4 : 0, bottom = HEIGHT + keys;
  const x = scale(across, 64, WIDTH - 24), y = scale(along, bottom, keys + 8);
  const plot = makePlot(`${titleOf(measure)} over ${nameOf(over)}`, bottom + 40);
  addTicks(plot, across, x, keys + 8, bottom);
  for (const tick of findTicks(...along)) {
    plot.append(draw("line", { class: "grid", x1: 64, x2: WIDTH - 24, y1: y(tick), y2: y(tick) }));
    plot.append(draw("text", { x: 58, y: y(tick) + 4, "text-anchor": "end" }, format(tick)));
  }
  const long = lines.some(([, rows]) => rows.length >= LEAST_SMOOTHED);
  const told = `${titleOf(measure)} over ${nameOf(over)}${long ? "; bold: mean of neighbours" : ""}`;
  plot.append(draw("text", { x: WIDTH / 2, y: bottom + 34, "text-anchor": "middle" }, told));
  lines.forEach(([label, rows], at) => {
    const line = draw("g", { class: `c${at}` });
    const values = rows.map((row) => row[measure].value);
    const trace = (heights) => `M${rows.map((row, index) => `${x(row[over].value).toFixed(1)} ${y(heights[index]).toFixed(1)}`).join("L")}`;
    const smoothed = rows.length >= LEAST_SMOOTHED;
    line.append(draw("path", { class: smoothed ? "raw" : "", d: trace(values) }));
    if (smoothed) line.append(draw("path", { d: trace(smooth(values)) }));
    if (rows.length === 1) line.append(draw("circle", { class: "dot", cx: x(rows[0][over].value), cy: y(rows[0][measure].value), r: 4 }));
    if (keys) line.append(draw("text", { class: "key", x: 64, y: 16 * at + 14 }, label));
    plot.append(line);
  });
  return plot;
}

function plotHistogram(values, name) {
  const limits = findLimits(values), counts = new Array(BINS).fill(0), bin = scale(limits, 0, BINS);
  for (const value of values) counts[Math.min(BINS - 1, Math.floor(bin(value)))] += 1;
  const place = scale(limits, 8, WIDTH - 8), most = findLimits([0, ...counts])[1], bottom = 120;
  const plot = makePlot(`How often each value of ${name} occurs`, bottom + 24);
  addTicks(plot, limits, place, 4, bottom);
  const width = (WIDTH - 16) / BINS, bars = draw("g", { class: "c0" });
  counts.forEach((count, at) => {
    const height = (count / most) * (bottom - 8);
    bars.append(draw("rect", { class: "column", x: 8 + at * width, y: bottom - height, width: width - 1, height }));
  });
  plot.append(bars);
  return plot;
}

// --- Tables ---------------------------------------------------------------------------------

// What tells rows apart: their texts, of columns in which the rows differ.
function labelRows(rows, columns) {
  const texts = columns.filter(({ numeric, list, choices }) => !numeric && !list && choices.length > 1);
  return rows.map((row) => texts.map(({ name }) => format(row[name]?.value)).join(", "));
}

// Where texts are not enough: figures that several rows have in common, as settings are, and what stands first.
function tellApart(rows, columns) {
  const settings = [];
  let labels = labelRows(rows, columns);
  for (const [at, { name, numeric, choices }] of columns.entries()) {
    if (new Set(labels).size === rows.length) break;
    if (!numeric || choices.length < 2 || (choices.length === rows.length && at > 0)) continue;
    settings.push(name);
    labels = labels.map((label, at) => `${label}${label && ", "}${nameOf(name)} ${format(rows[at][name]?.value)}`);
  }
  return { labels, settings };
}

function groupRows(rows, labels) {
  const groups = new Map();
  rows.forEach((row, at) => {
    if (!groups.has(labels[at])) groups.set(labels[at], []);
    groups.get(labels[at]).push(row);
  });
  return groups;
}

// The first column of figures that grows along every group, if groups are long enough. A training that
// was stopped may have logged a step twice.
function findGrowing(groups, columns) {
  const lists = [...groups.values()];
  if (!lists.some((list) => list.length >= LEAST_POINTS)) return null;
  const grows = (name, list) => list.every((row, at) => {
    const value = row[name]?.value;
    return typeof value === "number" && (at === 0 || value >= list[at - 1][name].value);
  });
  return columns.find(({ name, numeric, choices }) => numeric && choices.length >= LEAST_POINTS
    && lists.every((list) => grows(name, list))) ?? null;
}

// A spreadsheet would take a text that begins so for a formula.
function writeCell(value) {
  const text = String(value ?? "").replace(/\s/g, " ");
  return typeof value === "string" && /^[=+@-]/.test(text) ? `'${text}` : text;
}

function writeTabs(rows, columns) {
  const lines = [columns.flatMap(({ name, ranged }) => (ranged ? [name, `${name} low`, `${name} high`] : [name]))];
  for (const row of rows) {
    lines.push(columns.flatMap(({ name, ranged }) => {
      const { value, low, high } = row[name] ?? {};
      return ranged ? [value, low, high] : [value];
    }));
  }
  return lines.map((line) => line.map(writeCell).join("\t")).join("\n");
}

async function copy(text, button) {
  const area = make("textarea", { value: text, readOnly: true });
  let copied = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch { // Browsers may refuse it to files.
    document.body.append(area);
    area.select();
    copied = document.execCommand("copy");
    area.remove();
  }
  button.textContent = copied ? "Copied" : "Not copied: the browser refused";
  parts.told.textContent = button.textContent;
}

function makeChooser(label, options, change) {
  const select = make("select", {}, ...options.map(([value, text]) => make("option", { value }, text)));
  select.addEventListener("change", () => change(select.value));
  return make("label", {}, `${label} `, select);
}

// A table, a plot of one of its columns, and what both show.
class Sheet {
  constructor(title, rows) {
    this.all = rows;
    this.columns = findColumns(rows).map((column) => ({
      ...column, ranged: rows.some((row) => typeof row[column.name]?.low === "number"),
    }));
    this.wanted = [];
    this.order = { name: "", down: false };
    this.whole = false;
    const figures = this.columns.filter((column) => column.numeric);
    const growing = findGrowing(groupRows(rows, labelRows(rows, this.columns)), this.columns);
    const others = figures.filter((column) => column !== growing);
    const settings = growing ? [] : tellApart(rows, this.columns).settings;
    const varies = ({ name, choices }) => choices.length > 1 && !settings.includes(name);
    const whole = others.filter(({ name }) => rows.every((row) => typeof row[name]?.value === "number"));
    const first = FIRST.map((name) => whole.find((column) => column.name === name)).find(Boolean);
    const measured = first ?? others.find(varies) ?? others[0];
    this.measure = (others.find((column) => column.ranged) ?? measured)?.name;
    this.plot = make("div");
    this.frame = make("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: title });
    this.more = make("button", { type: "button" });
    this.more.addEventListener("click", () => { this.whole = true; this.show(); });
    this.tools = make("div", { className: "bar tools" }, ...this.listTools(figures));
    const note = make("p", { className: "muted" }, "In brackets: the interval of the figure before it, as the file has it.");
    note.hidden = !this.columns.some((column) => column.ranged);
    this.element = make("div", {}, this.tools, this.plot, this.frame, note, this.more);
    this.show();
  }

  listTools(figures) {
    const tools = [];
    if (this.measure !== undefined && this.all.length > 1) {
      const options = figures.map(({ name }) => [name, nameOf(name)]);
      const chooser = makeChooser("Plot", options, (name) => { this.measure = name; this.show(); });
      chooser.lastChild.value = this.measure;
      tools.push(chooser);
    }
    for (const { name, numeric, list, choices } of this.columns) {
      if (numeric || list || choices.length < 2 || choices.length > MOST_CHOICES || choices.length === this.all.length) continue;
      const options = [["", "all"], ...choices.map((choice, at) => [at, format(choice)])];
      tools.push(makeChooser(nameOf(name), options, (at) => {
        this.wanted = this.wanted.filter((one) => one.name !== name);
        if (at !== "") this.wanted.push({ name, value: choices[at] });
        this.show();
      }));
    }
    const button = make("button", { type: "button" }, "Copy table");
    button.addEventListener("click", () => copy(writeTabs(this.pick(), this.columns), button));
    return [...tools, button];
  }

  pick() {
    const rows = this.all.filter((row) => this.wanted.every(({ name, value }) => row[name]?.value === value));
    const { name, down } = this.order;
    if (!name) return rows;
    const known = (row) => row[name]?.value !== null && row[name]?.value !== undefined;
    const compare = (one, other) => {
      const [a, b] = [one[name].value, other[name].value];
      const way = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
      return down ? -way : way;
    };
    return [...rows.filter(known).sort(compare), ...rows.filter((row) => !known(row))];
  }

  sortBy(name) {
    this.order = { name, down: this.order.name === name && !this.order.down };
    this.show();
    [...this.frame.querySelectorAll("th button")].find((button) => button.textContent === nameOf(name)).focus();
  }

  show() {
    const rows = this.pick(), columns = this.columns.filter(({ name }) => rows.some((row) => name in row));
    const shown = this.whole ? rows : rows.slice(0, MOST_ROWS);
    const headings = columns.map(({ name, numeric }) => {
      const button = make("button", { type: "button" }, nameOf(name));
      button.addEventListener("click", () => this.sortBy(name));
      const way = this.order.down ? "descending" : "ascending";
      const heading = make("th", { scope: "col", className: numeric ? "" : "text" }, button);
      heading.ariaSort = this.order.name === name ? way : "none";
      return heading;
    });
    const body = make("tbody");
    for (const row of shown) {
      body.append(make("tr", {}, ...columns.map(({ name, numeric }) =>
        make("td", { className: numeric ? "" : "text" }, formatCell(row[name])))));
    }
    this.frame.replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, ...headings)), body));
    this.more.hidden = shown.length === rows.length;
    this.more.textContent = `Show all ${rows.length} rows`;
    this.plot.replaceChildren(...this.makePlots(rows));
  }

  makePlots(rows) {
    if (this.measure === undefined || rows.length < 2) return [];
    const columns = findColumns(rows), labels = labelRows(rows, columns), groups = groupRows(rows, labels);
    const growing = this.order.name ? null : findGrowing(groups, columns);
    const isLines = growing && growing.name !== this.measure;
    const plot = isLines
      ? plotLines(groups, growing.name, this.measure)
      : plotDots(rows, tellApart(rows, columns).labels, this.measure);
    const [count, most, what] = isLines ? [groups.size, MOST_LINES, "groups"] : [rows.length, MOST_DOTS, "rows"];
    const note = count > most ? [make("p", { className: "muted" }, `The first ${most} of ${count} ${what} are plotted.`)] : [];
    return plot ? [plot, ...note] : [];
  }
}

// --- Sections -------------------------------------------------------------------------------

function listValues(entries) {
  const items = entries.flatMap(([key, value]) => {
    const text = isPlain(value) ? format(value) : value.map(format).join(", ") || NONE;
    return [make("dt", {}, nameOf(key)), make("dd", {}, text)];
  });
  return make("dl", {}, ...items);
}

// Lists of sentences are none.
function isShort(value) {
  const fits = (one) => String(one).length <= 40 && !String(one).endsWith(".");
  return isPlain(value) || (isPlainList(value) && value.length <= FEW_VALUES && value.every(fits));
}

function showList(name, values) {
  const figures = values.filter((value) => typeof value === "number");
  if (figures.length > FEW_VALUES && figures.length === values.filter((value) => value !== null).length) {
    const [low, high] = [Math.min, Math.max].map((find) => figures.reduce((one, other) => find(one, other)));
    const mean = figures.reduce((sum, value) => sum + value, 0) / figures.length;
    if (low === high) return [make("p", { className: "muted" }, `${values.length} values, all ${format(low)}`)];
    const told = `${values.length} values, mean ${format(mean)}, from ${format(low)} to ${format(high)}`;
    return [make("p", { className: "muted" }, told), plotHistogram(figures, name)];
  }
  const more = values.length > MOST_ROWS ? [make("p", { className: "muted" }, `The first ${MOST_ROWS} of ${values.length}.`)] : [];
  return [make("ul", {}, ...values.slice(0, MOST_ROWS).map((value) => make("li", {}, format(value)))), ...more];
}

function findSentences(verdict) {
  const sentences = Array.isArray(verdict) ? verdict : [verdict];
  return sentences.every((one) => typeof one === "string" && one !== "") ? sentences : [];
}

function showValue(name, value, level) {
  if (isPlain(value)) return [make("p", {}, format(value))];
  if (isPlainList(value)) return showList(name, value);
  const rows = findRows(value);
  if (rows) return [new Sheet(name, rows).element];
  const lead = findSentences(value.verdict), shown = lead.map((one) => make("p", { className: "lead" }, one));
  const entries = Object.entries(value).filter(([key]) => key !== "verdict" || lead.length === 0)
    .map(([key, one]) => [Array.isArray(value) ? `${Number(key) + 1}` : key, one]);
  const short = entries.filter(([, one]) => isShort(one));
  if (short.length > 0) shown.push(listValues(short));
  for (const [key, one] of entries.filter(([, other]) => !isShort(other))) {
    const title = nameOf(key);
    const heading = make(`h${Math.min(level, 5)}`, {}, title);
    shown.push(make("section", {}, heading, ...showValue(title, one, level + 1)));
  }
  return shown;
}

function showFile({ name, content }, at) {
  const text = JSON.stringify(content, null, 1);
  const save = make("a", { download: name.replace(/\.jsonl$/, ".json") }, "Save as JSON");
  save.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  const title = make("div", { className: "bar" }, make("h2", {}, name), save);
  return make("section", { id: `file-${at}`, className: "panel file" }, title, ...showValue(name, content, 3));
}

function start() {
  const names = data.files.map(({ name }) => name);
  document.title = `${names.join(", ")} – vae_aug`;
  parts.summary.textContent = names.join(", ");
  parts.files.append(...data.files.map(showFile));
  if (names.length > 1) {
    parts.contents.append(...names.map((name, at) => make("a", { href: `#file-${at}` }, name)));
  }
  form.addEventListener("submit", (event) => event.preventDefault());
  parts.theme.addEventListener("click", switchTheme);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
  showTheme();
  parts.main.ariaBusy = "false";
}

try {
  start();
} catch (error) {
  parts.problem.hidden = false;
  parts.problem.textContent = `This page cannot show its figures: ${error.message}. Browsers of 2024 and later can.`;
}
