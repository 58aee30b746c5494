// Figure: input, kernel and output as grids of cells, highlighted by the selection.
const custom = () => ["x", "w"].some(key => spelled(state[key]) !== spelled(START[key]));

const longestOf = (numbers, brief) => max(...numbers.flat().map(v => brief(v).length));
// Numbers keep their digits in all lenses and windows: those of a cell of so many pixels.
const briefFor = (n, all) => v => short(v, max(24, min(76, all / n)));
let plan = {};
// The layout of the facts, of a lens, in the room of the window.
function planned() {
  const {lens} = state;
  if (plan.facts === F && plan.lens === lens && plan.room === room) return plan;
  const [v, h] = axes, conv = lens === "conv", grids = {}, {canvas} = F;
  const add = (name, rows, cols, longest, around) => {
    grids[name] = {rows, cols, longest, around};
  };
  const {stretched_size: size, border} = F.as_convolution;
  const spread = size.map((n, at) => n + sum(border[at], each => max(each, 0)));
  const brief = {
    x: briefFor(max(v.i, h.i), 210), w: briefFor(max(v.k, h.k), 210),
    y: briefFor(max(canvas.length, canvas[0].length), 350),
  };
  add("x", ...(conv ? spread : [v.i, h.i]), longestOf(F.x, brief.x), conv ? 82 : 46);
  add("w", v.k, h.k, longestOf(F.w, brief.w), conv || some(state.d.map(d => d - 1)) ? 54 : 32);
  add("y", canvas.length, canvas[0].length, longestOf(canvas, brief.y),
    some(state.p.flat()) || some(state.op) ? 76 : 54);
  const [outputs, inputs] = F.matrix.shape, cells = turned ? outputs : inputs;
  const width = max(200, cells * (max(outputs, inputs) <= 16 ? 30 : 15));
  const matrix = {width, open: byId("panel-m").open};
  plan = {facts: F, lens, room, grids, brief, matrix: layoutOf(grids, matrix)};
  return plan;
}
const box = (id, {side, rows, cols, boxWidth, boxHeight}) =>
  setBox(id, side, rows, cols, boxWidth, boxHeight);

function drawFigure(sel, found) {
  const {grids, brief, matrix} = planned(), conv = state.lens === "conv";
  if (byId("figure").className !== matrix.name) byId("figure").className = matrix.name;
  if (conv) drawDilatedInput(sel, found, grids.x, brief.x);
  else drawInput(found, grids.x, brief.x);
  drawKernel(found, conv, grids.w, brief.w);
  drawOutput(sel, found, grids.y, brief.y);
  for (const id in grids) box(id, grids[id]);
}
// Classes of a cell that is highlighted or pinned.
const marks = (lit, sel) => (lit ? " lit" : "") + (state.sel === sel ? " pinned" : "");

function inputCell(i, j, found, brief, cut) {
  const sel = `i${i},${j}`, at = flat(sel), value = F.x[i][j];
  const label = () =>
    `input row ${i} column ${j}, value ${text(value)}` + (cut ? ", cropped" : "");
  const classes = (cut ? " crop" : "") + marks(found.x.has(at), sel);
  return content(brief(value), sel, label, classes, found.x.get(at));
}
function drawInput(found, {side, longest}, brief) {
  const [v, h] = axes;
  setText("title-x", `Input x (${v.i}×${h.i})`);
  setText("hint-x", "");
  paint("grid-x", "input", v.i, h.i, side, (i, j) => inputCell(i, j, found, brief), longest);
  frame("grid-x", "window");
}

const SIDES = ["top", "bottom", "left", "right"];
// The dilated input: zeros between its cells and around them. A negative border crops.
function drawDilatedInput(sel, found, {side, longest}, brief) {
  const {stretched_size: size, border} = F.as_convolution;
  const before = border.map(([begin]) => max(begin, 0));
  const shape = border.map(([, end], n) => before[n] + size[n] + max(end, 0));
  const cellAt = (r, c) => {
    const at = [r - before[0], c - before[1]];
    const inside = at.every((u, n) => u >= 0 && u < size[n]);
    if (inside && at.every((u, n) => u % state.s[n] === 0)) {
      const cut = at.some((u, n) => u < -border[n][0] || u >= size[n] + border[n][1]);
      return inputCell(at[0] / state.s[0], at[1] / state.s[1], found, brief, cut);
    }
    const label = () => inside ? "zero between inputs" : "zero of the border";
    const lit = inside && sel === "fs" ? " lit" : "";
    return content("0", undefined, label, (inside ? " zero" : " border") + lit);
  };
  setText("title-x", "Input x, spread by the stride");
  paint("grid-x", "input spread by the stride", ...shape, side, cellAt, max(longest, 2));
  const [a, b] = pointOf(sel), tops = [a, b].map((o, n) => o - min(border[n][0], 0));
  frame("grid-x", "window", side, sel[0] === "o" && [...tops, axes[0].reach, axes[1].reach]);
  if (sel[0] === "o") follow("x", ...tops, axes[0].reach, axes[1].reach);
  const gaps = state.s.map(s => s - 1), widths = border.flat();
  const crops = SIDES.map((name, n) => widths[n] < 0 ? `; crop ${-widths[n]} at the ${name}` : "");
  const between = some(gaps) ? `${plural(perAxis(gaps), "zero")} between cells, ` : "";
  const around = widths.map(n => max(n, 0)), width = perAxis(around);
  const sides = width === text(around[0]) ? "" : ` (${SIDES.join(", ")})`;
  setText("hint-x", `${between}border ${width}${sides}${crops.join("")}; the window moves by 1`);
}

function drawKernel(found, conv, {side, longest}, brief) {
  const [v, h] = axes;
  setText("title-w", `Kernel w (${v.k}×${h.k})`);
  paint("grid-w", "kernel", v.k, h.k, side, (r, c) => {
    const [k, l] = conv ? [v.k - 1 - r, h.k - 1 - c] : [r, c], sel = `k${k},${l}`, tap = flat(sel);
    const label = () =>
      `kernel row ${k} column ${l}, tap ${LETTERS[tap]}, value ${text(F.w[k][l])}`;
    return content(brief(F.w[k][l]), sel, label, marks(found.w.has(tap), sel), tap);
  }, longest);
  byId("flipped").hidden = !conv;
  setText("hint-w", state.d.some(d => d > 1) ? `its taps land ${cellsApart(state.d)}` : "");
}

// All computed cells; a frame separates the output from the cropped ones.
function drawOutput(sel, found, {side, longest}, brief) {
  const [v, h] = axes, rows = F.canvas.length, cols = F.canvas[0].length;
  const whole = rows === v.o && cols === h.o;
  const stamping = state.lens === "stamp" && (!hover || hover === stepSelection());
  const values = stamping ? stamped(state, axes, state.step) : F.canvas;
  setText("title-y", `Output y (${v.o}×${h.o})`);
  const name = state.lens === "stamp" ? "output, stamp by stamp" : "output";
  paint("grid-y", name, rows, cols, side, (u, c) => {
    const value = values[u][c], at = u * cols + c, lit = found.y.has(at), tap = found.y.get(at);
    const [row, col] = [u - v.begin, c - h.begin];
    if (row < 0 || col < 0 || row >= v.o || col >= h.o) {
      const label = () => `cropped cell, value ${text(value)}`, name = `c${u},${c}`;
      return content(brief(value), name, label, " crop" + marks(lit || sel === "fp"), tap);
    }
    const name = `o${row},${col}`, extra = row >= v.o - v.extra || col >= h.o - h.extra;
    const label = () => `output row ${row} column ${col}, value ${text(value)}, ` +
      plural(F.counts[row][col], "contribution") + (extra ? ", extra, still computed" : "");
    const classes = (extra ? " extra" : "") + marks(lit || extra && sel === "fo", name);
    return content(brief(value), name, label, classes, tap);
  }, longest);
  frame("grid-y", "frame", side, !whole && [v.begin, h.begin, v.o, h.o]);
  const [i, j] = pointOf(sel), stamp = state.lens === "stamp" && sel[0] === "i";
  frame("grid-y", "window", side, stamp && [i * v.s, j * h.s, v.reach, h.reach]);
  if (stamp) follow("y", i * v.s, j * h.s, v.reach, h.reach);
  if (sel[0] === "o") follow("y", i + v.begin, j + h.begin, 1, 1);
  byId("key-crop").hidden = whole;
  byId("key-extra").hidden = !v.extra && !h.extra;
  const all = v.i * h.i, growing = `sum of the first ${plural(state.step, "stamp")} of ${all}`;
  setText("hint-y", !stamping ? "" : state.step < all ? growing : "finished: all stamps are added");
}
