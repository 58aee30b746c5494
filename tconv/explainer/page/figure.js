// Figure: input, kernel and output as grids of cells, highlighted by the selection.
const MOST_SIDE = 76, TALL_SIDE = 44; // pixels of a cell
const custom = () => ["x", "w"].some(key => spelled(state[key]) !== spelled(START[key]));

function drawFigure(sel, found) {
  const conv = state.lens === "conv", tall = F.canvas.length > 4 && !conv;
  byId("figure").classList.toggle("tall", tall);
  byId("custom").hidden = !custom();
  const most = tall ? TALL_SIDE : MOST_SIDE;
  if (conv) drawDilatedInput(sel, found);
  else drawInput(found, most);
  drawKernel(found, conv, most);
  drawOutput(sel, found, conv ? 350 : 400);
}
// Classes of a cell that is highlighted or pinned.
const marks = (lit, sel) => (lit ? " lit" : "") + (state.sel === sel ? " pinned" : "");

function inputCell(i, j, found, side, cut) {
  const sel = `i${i},${j}`, at = flat(sel), value = F.x[i][j];
  const label = () =>
    `input row ${i} column ${j}, value ${text(value)}` + (cut ? ", cropped" : "");
  const classes = (cut ? " crop" : "") + marks(found.x.has(at), sel);
  return content(short(value, side), sel, label, classes, found.x.get(at));
}
function drawInput(found, most) {
  const [v, h] = axes, side = sideFor(max(v.i, h.i), 210, most);
  setText("title-x", `Input x (${v.i}×${h.i})`);
  setText("hint-x", "");
  paint("grid-x", "input", v.i, h.i, side, (i, j) => inputCell(i, j, found, side));
  frame("grid-x", "window");
}

const SIDES = ["top", "bottom", "left", "right"];
// The dilated input: zeros between its cells and around them. A negative border crops.
function drawDilatedInput(sel, found) {
  const {stretched_size: size, border} = F.as_convolution;
  const before = border.map(([begin]) => max(begin, 0));
  const shape = border.map(([, end], n) => before[n] + size[n] + max(end, 0));
  const side = sideFor(max(...shape), 320, MOST_SIDE);
  const cellAt = (r, c) => {
    const at = [r - before[0], c - before[1]];
    const inside = at.every((u, n) => u >= 0 && u < size[n]);
    if (inside && at.every((u, n) => u % state.s[n] === 0)) {
      const cut = at.some((u, n) => u < -border[n][0] || u >= size[n] + border[n][1]);
      return inputCell(at[0] / state.s[0], at[1] / state.s[1], found, side, cut);
    }
    const label = () => inside ? "zero between inputs" : "zero of the border";
    const lit = inside && sel === "fs" ? " lit" : "";
    return content("0", undefined, label, (inside ? " zero" : " border") + lit);
  };
  setText("title-x", "Input x, spread by the stride");
  paint("grid-x", "input spread by the stride", ...shape, side, cellAt, 2);
  const [a, b] = pointOf(sel), tops = [a, b].map((o, n) => o - min(border[n][0], 0));
  frame("grid-x", "window", side, sel[0] === "o" && [...tops, axes[0].reach, axes[1].reach]);
  const gaps = state.s.map(s => s - 1), widths = border.flat();
  const crops = SIDES.map((name, n) => widths[n] < 0 ? `; crop ${-widths[n]} at the ${name}` : "");
  const between = some(gaps) ? `${plural(perAxis(gaps), "zero")} between cells, ` : "";
  const around = widths.map(n => max(n, 0)), width = perAxis(around);
  const sides = width === text(around[0]) ? "" : ` (${SIDES.join(", ")})`;
  setText("hint-x", `${between}border ${width}${sides}${crops.join("")}; the window moves by 1`);
}

function drawKernel(found, conv, most) {
  const [v, h] = axes, side = sideFor(max(v.k, h.k), 210, most);
  setText("title-w", `Kernel w (${v.k}×${h.k})`);
  paint("grid-w", "kernel", v.k, h.k, side, (r, c) => {
    const [k, l] = conv ? [v.k - 1 - r, h.k - 1 - c] : [r, c], sel = `k${k},${l}`, tap = flat(sel);
    const label = () =>
      `kernel row ${k} column ${l}, tap ${LETTERS[tap]}, value ${text(F.w[k][l])}`;
    return content(short(F.w[k][l], side), sel, label, marks(found.w.has(tap), sel), tap);
  });
  byId("flipped").hidden = !conv;
  setText("hint-w", state.d.some(d => d > 1) ? `its taps land ${cellsApart(state.d)}` : "");
}

// All computed cells; a frame separates the output from the cropped ones.
function drawOutput(sel, found, room) {
  const [v, h] = axes, rows = F.canvas.length, cols = F.canvas[0].length;
  const whole = rows === v.o && cols === h.o, side = sideFor(max(rows, cols), room, MOST_SIDE);
  const stamping = state.lens === "stamp" && (!hover || hover === stepSelection());
  const values = stamping ? stamped(state, axes, state.step) : F.canvas;
  // Numbers keep their digits in all lenses, and their size while stamps are added.
  const least = sideFor(max(rows, cols), 350, MOST_SIDE), brief = v => short(v, least);
  const longest = max(...F.canvas.flat().map(v => brief(v).length));
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
  byId("key-crop").hidden = whole;
  byId("key-extra").hidden = !v.extra && !h.extra;
  const all = v.i * h.i, growing = `sum of the first ${plural(state.step, "stamp")} of ${all}`;
  setText("hint-y", !stamping ? "" : state.step < all ? growing : "finished: all stamps are added");
}
