// Grids of cells: nodes that are kept, and updated only where they change.
const byId = id => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
function build(node, attributes = {}, ...children) {
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}
const el = (name, ...parts) => build(document.createElement(name), ...parts);
const svgEl = (name, ...parts) => build(document.createElementNS(SVG, name), ...parts);
function setText(id, words) {
  if (byId(id).textContent !== words) byId(id).textContent = words;
}
// Fill a place with nodes, unless it has those of the same facts.
function fill(place, facts, make) {
  if (place.facts !== facts) place.replaceChildren(...make());
  place.facts = facts;
}
// The first `count` children; further ones are removed and kept for later.
function children(parent, count, make) {
  const all = parent.all ||= [], now = parent.childElementCount;
  while (all.length < count) all.push(make(all.length));
  all.slice(count, now).forEach(node => node.remove());
  parent.append(...all.slice(now, count));
  return all.slice(0, count);
}

let focusLost = ""; // selection of the cell that lost focus when its grid was hidden
// Show the grid of this name in a place. The one before stays in the layout, but hidden.
function shownGrid(place, name) {
  const grids = place.grids ||= {}, before = place.grid;
  const make = () => place.appendChild(el("div", {role: "grid", "aria-label": name}));
  place.grid = grids[name] ||= make();
  place.grid.classList.remove("away");
  if (before && before !== place.grid) {
    const cell = document.activeElement;
    if (before.contains(cell)) {
      focusLost = cell.dataset.sel;
      cell.blur();
    }
    before.classList.add("away");
  }
  return place.grid;
}
// Draw a grid; `contentAt` gives text and attributes of each cell.
function paint(id, name, rows, cols, side, contentAt, longest = 1) {
  const grid = shownGrid(byId(id), name);
  const cellAt = (r, c) => Object.assign(el("div", {tabindex: -1}, ""),
    {content: {}, label: () => grid.contentAt(r, c).label()});
  grid.contentAt = contentAt;
  children(grid, rows, () => el("div", {role: "row"})).forEach((row, r) => {
    children(row, cols, c => cellAt(r, c)).forEach((cell, c) => {
      const content = contentAt(r, c);
      longest = max(longest, content.text.length);
      write(cell, content);
    });
  });
  // Whole pixels: a longer number changes the size of all others less often, which is slow.
  const most = floor(min(side * ([, .54, .44][longest] || .38), side * 1.38 / longest, 60));
  // With a fixed size, the browser need not measure each cell.
  grid.style.cssText = `--side:${side}px;font-size:${max(6, most)}px;` +
    `width:${cols * side}px;height:${rows * side}px`;
  const {stop} = grid;
  if (!stop?.isConnected || !stop.dataset.sel) setTabStop(grid.querySelector("[data-sel]"));
}
const ATTRIBUTES = ["class", "role", "style", "data-sel", "data-tap"];
// A cell needs another label if its facts, its number or its selection change.
function write(cell, content) {
  const had = cell.content;
  if (had.facts !== F || had.text !== content.text || had["data-sel"] !== content["data-sel"]) {
    had.facts = F;
    labels.add(cell);
  }
  if (had.text !== content.text) cell.firstChild.data = had.text = content.text;
  for (const name of ATTRIBUTES) {
    if (had[name] === content[name]) continue;
    if ((had[name] = content[name]) === undefined) cell.removeAttribute(name);
    else cell.setAttribute(name, content[name]);
  }
}
// Labels are made and written after the drawing, but at once if a grid has focus. They are not made
// before: the garbage collector is slow with thousands of waiting strings.
const labels = new Set();
let labelling = 0;
function writeLabels() {
  clearTimeout(labelling);
  labelling = 0;
  for (const cell of labels) cell.ariaLabel = cell.label();
  labels.clear();
}
function scheduleLabels() {
  if (document.activeElement.matches(".cell")) writeLabels();
  else labelling ||= setTimeout(writeLabels);
}
// Content of a cell: number, selection, label, classes and tap.
function content(value, sel, label, classes, tap) {
  return {
    text: value, class: (tap === undefined ? "cell" : `cell tap t${tap % 7}`) + classes,
    role: "gridcell", label, "data-sel": sel, "data-tap": LETTERS[tap],
  };
}

// A frame over a grid, [top, left, height, width] in cells, or none.
function frame(id, name, side, place) {
  const host = byId(id);
  let node = host.querySelector("." + name);
  if (!node) host.append(node = el("div", {class: name, "aria-hidden": true}));
  node.hidden = !place;
  if (!place) return;
  const [top, left, height, width] = place.map((n, at) => n * side + (at < 2 ? -1 : 2));
  node.style.cssText = `top:${top}px;left:${left}px;height:${height}px;width:${width}px`;
}

// ---- one tab stop for each grid, walked by arrows -----------------------------------------------
function setTabStop(cell) {
  const grid = cell.closest("[role=grid]");
  if (grid.stop) grid.stop.tabIndex = -1;
  cell.tabIndex = 0;
  grid.stop = cell;
}
// Move the focus from a hidden cell to the shown one of the same selection, without a hover.
function restoreFocus() {
  const shown = focusLost && document.querySelector(`:not(.away) > * > [data-sel="${focusLost}"]`);
  if (shown) {
    setTabStop(shown);
    shown.focus();
  }
  focusLost = "";
}
const WAYS = {ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0]};
// The cell that a key leads to; cells without a selection are skipped.
function targetOf(cell, {key, ctrlKey}) {
  const row = cell.parentNode, grid = row.parentNode;
  if (key === "Home" || key === "End") {
    return [...(ctrlKey ? grid : row).querySelectorAll("[data-sel]")].at(key === "Home" ? 0 : -1);
  }
  if (!WAYS[key]) return undefined;
  let r = [...grid.children].indexOf(row), c = [...row.children].indexOf(cell), next;
  do {
    r += WAYS[key][0];
    c += WAYS[key][1];
    next = grid.children[r]?.children[c];
  } while (next && !next.dataset.sel);
  return next || cell;
}
