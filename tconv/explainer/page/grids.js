// How cells are drawn: grids of nodes that stay, of which only what changed is written again.
const byId = id => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
function made(node, attributes = {}, ...children) {
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}
const el = (name, ...parts) => made(document.createElement(name), ...parts);
const drawn = (name, ...parts) => made(document.createElementNS(SVG, name), ...parts);
function say(id, words) {
  if (byId(id).textContent !== words) byId(id).textContent = words;
}
// Fill a place with nodes, unless it holds what was made of the same facts.
function fill(place, facts, make) {
  if (place.facts !== facts) place.replaceChildren(...make());
  place.facts = facts;
}
// The first so many children; those that are too many wait for when they are wanted again.
function children(parent, count, make) {
  const all = parent.all ||= [], now = parent.childElementCount;
  while (all.length < count) all.push(make(all.length));
  all.slice(count, now).forEach(node => node.remove());
  parent.append(...all.slice(now, count));
  return all.slice(0, count);
}

let held = ""; // what the cell selects that lost focus as its grid was sent to wait
// The grid of a place that has this name. The one shown before waits, still laid out.
function shownGrid(place, name) {
  const grids = place.grids ||= {}, before = place.grid;
  const make = () => place.appendChild(el("div", {role: "grid", "aria-label": name}));
  place.grid = grids[name] ||= make();
  place.grid.classList.remove("away");
  if (before && before !== place.grid) {
    const cell = document.activeElement;
    if (before.contains(cell)) {
      held = cell.dataset.sel;
      cell.blur();
    }
    before.classList.add("away");
  }
  return place.grid;
}
// Draw a grid: what `tell` says of each cell is its text and attributes.
function paint(id, name, rows, cols, side, tell, longest = 1) {
  const grid = shownGrid(byId(id), name);
  const cellAt = (r, c) => Object.assign(el("div", {tabindex: -1}, ""),
    {told: {}, label: () => grid.tell(r, c).label()});
  grid.tell = tell;
  children(grid, rows, () => el("div", {role: "row"})).forEach((row, r) => {
    children(row, cols, c => cellAt(r, c)).forEach((cell, c) => {
      const told = tell(r, c);
      longest = max(longest, told.text.length);
      write(cell, told);
    });
  });
  // Whole pixels: a number more seldom makes all others change their size, which takes longest.
  const most = floor(min(side * ([, .54, .44][longest] || .38), side * 1.38 / longest, 30));
  // A size that is known spares the browser to ask every cell.
  grid.style.cssText = `--side:${side}px;font-size:${max(6, most)}px;` +
    `width:${cols * side}px;height:${rows * side}px`;
  if (!grid.stop?.isConnected || !grid.stop.dataset.sel) moveStop(grid.querySelector("[data-sel]"));
}
const ATTRIBUTES = ["class", "role", "data-sel", "data-tap"];
// A label is another one where the facts, the number or the place that it names are others.
function write(cell, told) {
  const had = cell.told;
  if (had.facts !== F || had.text !== told.text || had["data-sel"] !== told["data-sel"]) {
    had.facts = F;
    labels.add(cell);
  }
  if (had.text !== told.text) cell.firstChild.data = had.text = told.text;
  for (const name of ATTRIBUTES) {
    if (had[name] === told[name]) continue;
    if ((had[name] = told[name]) === undefined) cell.removeAttribute(name);
    else cell.setAttribute(name, told[name]);
  }
}
// What is seen goes first: labels are made and written after it, but at once where focus is in a
// grid. Thousands that are made and wait are what a collector of garbage is slow at.
const labels = new Set();
let labelling = 0;
function writeLabels() {
  clearTimeout(labelling);
  labelling = 0;
  for (const cell of labels) cell.ariaLabel = cell.label();
  labels.clear();
}
function keepLabels() {
  if (document.activeElement.matches(".cell")) writeLabels();
  else labelling ||= setTimeout(writeLabels);
}
// What is told of a cell: its number, what it selects, its label, its classes, the tap it shows.
function told(value, sel, label, classes, tap) {
  return {
    text: value, class: (tap === undefined ? "cell" : `cell tap t${tap % 7}`) + classes,
    role: "gridcell", label, "data-sel": sel, "data-tap": LETTERS[tap],
  };
}
const sideFor = (n, room, most) => round(min(most, max(24, room / n)));

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
function moveStop(cell) {
  const grid = cell.closest("[role=grid]");
  if (grid.stop) grid.stop.tabIndex = -1;
  cell.tabIndex = 0;
  grid.stop = cell;
}
// Give focus to the like of the cell that had it and waits now; that does not look at it.
function keepFocus() {
  const like = held && document.querySelector(`:not(.away) > * > [data-sel="${held}"]`);
  if (like) {
    moveStop(like);
    like.focus();
  }
  held = "";
}
const WAYS = {ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0]};
// The cell that a key leads to, past those that hold nothing to select.
function reached(cell, {key, ctrlKey}) {
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
