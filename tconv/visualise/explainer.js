// How it is seen: drawing, highlighting, stepping, editing and exporting.
const byId = id => document.getElementById(id);

// ---- what is lit ---------------------------------------------------------------------------------------
let state, F, hover = "", playing = 0, drawing = false, edited = false, turned = false, apart = false, cells = {};
const split = sel => sel.slice(1).split(",").map(Number);
const stepSel = () => { const n = state.step - 1, cols = state.lens === "stamp" ? F.input_size[1] : F.output_size[1]; return `${state.lens === "stamp" ? "i" : "o"}${Math.floor(n / cols)},${n % cols}`; };
const active = () => hover || state.sel || stepSel();
function lit(sel) {
  const found = {x: new Map(), w: new Set(), y: new Map(), m: new Set()}, [a, b] = split(sel);
  const add = ([o, i, k]) => { found.x.set(i, found.x.has(i) ? -1 : k); found.w.add(k); found.y.set(o, found.y.has(o) ? -1 : k); found.m.add(o + "," + i); };
  const at = a * ({o: F.output_size, i: F.input_size, k: F.kernel_size}[sel[0]] || [0, 0])[1] + b;
  if (sel[0] === "o") { F.contributions[at].forEach(([i, k]) => add([at, i, k])); found.y.set(at, -1); }
  if (sel[0] === "i" || sel[0] === "k") F.matrix.nonzeros.filter(e => e[sel[0] === "i" ? 1 : 2] === at).forEach(add);
  if (sel[0] === "i") found.x.set(at, -1);
  if (sel[0] === "k") { found.w.add(at); for (const i of found.x.keys()) found.x.set(i, at); for (const o of found.y.keys()) found.y.set(o, at); }
  if (sel[0] === "m") { F.matrix.nonzeros.filter(e => e[0] === a && e[1] === b).forEach(add); found.x.set(b, found.x.get(b) ?? -1); found.y.set(a, found.y.get(a) ?? -1); found.m.add(a + "," + b); }
  return found;
}
const coords = (n, cols) => `${Math.floor(n / cols)},${n % cols}`;
// The sentence of a selection, as pieces [text, tap].
function sentence(sel) {
  const [a, b] = split(sel), oc = F.output_size[1], ic = F.input_size[1], x1 = F.x.flat(), w1 = F.w.flat();
  const few = (of, show) => { const pieces = of.slice(0, 16).flatMap((e, n) => [...(n ? [[", "]] : []), show(e)]); return of.length > 16 ? [...pieces, [`, and ${of.length - 16} more`]] : pieces; };
  if (sel[0] === "o") {
    const o = a * oc + b, of = F.contributions[o];
    if (!of.length) return [[F.equations[o]]];
    return [[`y[${a},${b}] = `], ...of.flatMap(([i, k], n) => [...(n ? [[" + "]] : []), [`${signed(w1[k])}·${signed(x1[i])}`, k]]), [` = ${text(F.y[a][b])}`]];
  }
  if (sel[0] === "i") {
    const of = F.matrix.nonzeros.filter(e => e[1] === a * ic + b);
    return [[`x[${a},${b}] = ${text(F.x[a][b])} is stamped through the kernel: `], ...few(of, ([o, i, k]) => [`${signed(w1[k])}·${signed(x1[i])} onto y[${coords(o, oc)}]`, k]), ...(of.length ? [] : [["all of it is cropped away"]])];
  }
  if (sel[0] === "k") {
    const k = a * F.kernel_size[1] + b, of = F.matrix.nonzeros.filter(e => e[2] === k);
    return [[`w[${a},${b}] = ${text(F.w[a][b])} is tap `], [LETTERS[k], k], [`, used ${of.length} times: `], ...few(of, ([o, i]) => [`x[${coords(i, ic)}] → y[${coords(o, oc)}]`, k])];
  }
  if (sel[0] === "m") {
    const e = F.matrix.nonzeros.find(e => e[0] === a && e[1] === b), name = turned ? `W*[${b},${a}]` : `(W*)ᵀ[${a},${b}]`;
    return e ? [[`${name} = ${text(w1[e[2]])}: tap `], [LETTERS[e[2]], e[2]], [` joins x[${coords(b, ic)}] to y[${coords(a, oc)}]`]] : [[`${name} = 0: x[${coords(b, ic)}] and y[${coords(a, oc)}] are not connected`]];
  }
  if (sel[0] === "c") return [[`This cell is computed, as ${text(F.canvas[a][b])}, and then cropped away by the padding`]];
  return [[{fs: `stride: copies of the kernel start ${perAxis(F.stride)} cells apart`, fp: "padding crops the output: the dashed cells are computed and dropped",
    fd: `dilation: neighbouring taps land ${perAxis(F.dilation)} cells apart`, fo: "output_padding adds cells at the end; they are computed like all others"}[sel]]];
}

// ---- drawing -------------------------------------------------------------------------------------------
function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") node.className = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== false && value !== undefined) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}
function grid(id, label, rows, cols, side, cellAt) {
  const host = byId(id), had = host.contains(document.activeElement) ? document.activeElement.dataset.at : null;
  const before = host.dataset.tab, table = el("div", {class: "grid", role: "grid", "aria-label": label});
  let longest = 1, first = null;
  const map = new Map();
  table.style.setProperty("--side", side + "px");
  for (const r of range(rows)) {
    const row = el("div", {class: "row", role: "row"});
    for (const c of range(cols)) {
      const made = cellAt(r, c);
      const cell = el("div", {class: "cell " + (made.cls || ""), role: made.role || "gridcell", "aria-label": made.label, tabindex: made.sel ? -1 : undefined, title: id === "grid-m" ? undefined : made.label, "data-at": `${r},${c}`, "data-sel": made.sel || undefined, "data-edit": made.edit}, made.text);
      if (made.tap !== undefined) { cell.classList.add("tap", "t" + made.tap % 7); if (made.letter) cell.append(el("small", {"aria-hidden": true}, LETTERS[made.tap])); }
      longest = Math.max(longest, made.text.length);
      if (made.sel) { if (!first || `${r},${c}` === before) first = cell; map.set(made.sel, cell); }
      row.append(cell);
    }
    table.append(row);
  }
  table.style.fontSize = Math.max(6, Math.min(side * (longest > 1 ? .38 : .64), side * 1.45 / longest, 21)) + "px";
  if (first) first.tabIndex = 0;
  drawing = true; // focus that leaves and returns with the cells selects nothing
  host.replaceChildren(table);
  const again = had && table.querySelector(`[data-at="${had}"]`);
  if (again && again.dataset.sel) { table.querySelectorAll('[tabindex="0"]').forEach(c => { c.tabIndex = -1; }); again.tabIndex = 0; again.focus(); }
  drawing = false;
  return map;
}
const sideFor = (n, room, most = 60) => Math.round(Math.min(most, Math.max(24, room / n)));
function box(host, cls, top, left, height, width, side) {
  const node = el("div", {class: cls, "aria-hidden": true});
  Object.assign(node.style, {top: top * side - 1 + "px", left: left * side - 1 + "px", height: height * side + 2 + "px", width: width * side + 2 + "px"});
  host.append(node);
}
function drawFigure() {
  const [ir, ic] = F.input_size, [kr, kc] = F.kernel_size, [or, oc] = F.output_size, conv = state.lens === "conv";
  const tall = F.canvas.length > 4 && !conv, most = tall ? 44 : 60;
  byId("figure").classList.toggle("tall", tall);
  byId("title-x").textContent = conv ? "Input x, spread by the stride" : `Input x (${ir}×${ic})`;
  if (conv) drawSpread(); else cells.x = grid("grid-x", "input", ir, ic, sideFor(Math.max(ir, ic), 210, most), (r, c) => ({text: short(F.x[r][c]), sel: `i${r},${c}`, edit: "x", label: `input row ${r} column ${c}, value ${text(F.x[r][c])}`}));
  byId("hint-x").textContent = conv ? spreadHint() : edited ? "custom numbers" : "F2 or double-click edits";
  byId("hint-x").classList.toggle("badge", edited && !conv);
  byId("title-w").textContent = `Kernel w (${kr}×${kc})`;
  cells.w = grid("grid-w", "kernel", kr, kc, sideFor(Math.max(kr, kc), 210, most), (r, c) => {
    const [k, l] = conv ? [kr - 1 - r, kc - 1 - c] : [r, c];
    return {text: short(F.w[k][l]), sel: `k${k},${l}`, edit: "w", tap: k * kc + l, letter: true, label: `kernel row ${k} column ${l}, tap ${LETTERS[k * kc + l]}, value ${text(F.w[k][l])}`};
  });
  byId("hint-w").replaceChildren(...(conv ? [el("span", {class: "badge"}, "flipped 180°"), " "] : []), state.d.some(d => d > 1) ? `its taps land ${perAxis(state.d)} cells apart` : "");
  drawOutput();
  drawMatrix();
}
// Where the cells of the spread input lie: its border, which may be negative, comes first.
const spread = () => { const {stretched_size: size, border} = F.as_convolution; return {size, border, shape: size.map((n, a) => n + Math.max(border[a][0], 0) + Math.max(border[a][1], 0)), off: border.map(b => Math.max(b[0], 0))}; };
function drawSpread() {
  const {size, border, shape, off} = spread(), side = sideFor(Math.max(...shape), 320);
  cells.x = grid("grid-x", "input spread by the stride", ...shape, side, (r, c) => {
    const at = [r - off[0], c - off[1]], inside = at.every((v, n) => v >= 0 && v < size[n]);
    const cut = at.some((v, n) => v < -border[n][0] || v >= size[n] + border[n][1]);
    if (inside && at.every((v, n) => v % state.s[n] === 0)) {
      const [i, j] = at.map((v, n) => v / state.s[n]);
      return {text: short(F.x[i][j]), sel: `i${i},${j}`, edit: "x", cls: cut ? "crop" : "", label: `input row ${i} column ${j}, value ${text(F.x[i][j])}${cut ? ", cropped" : ""}`};
    }
    return {text: "0", cls: inside ? "zero gap" : "border", label: inside ? "zero between inputs" : "zero of the border"};
  });
}
function spreadHint() {
  const {border} = F.as_convolution, names = ["top", "bottom", "left", "right"];
  const crops = border.flat().map((b, n) => b < 0 ? `crop ${-b} at the ${names[n]}` : "").filter(Boolean);
  const gaps = state.s.some(s => s > 1) ? `${perAxis(state.s.map(s => s - 1))} zeros between cells, ` : "";
  return `${gaps}border ${border.flat().map(b => Math.max(b, 0)).join(", ")} (top, bottom, left, right)` + (crops.length ? "; " + crops.join(", ") : "") + "; the window moves by 1";
}
function partial() {
  const x = F.x.map((row, r) => row.map((v, c) => r * F.input_size[1] + c < state.step ? v : 0));
  const ax = [0, 1].map(n => ({s: state.s[n], d: state.d[n]}));
  return scatter(x, F.w, ax, [F.canvas.length, F.canvas[0].length], [0, 0]);
}
const outputSide = () => sideFor(Math.max(F.canvas.length, F.canvas[0].length), state.lens === "conv" ? 350 : 400);
function drawOutput() {
  const [or, oc] = F.output_size, [pt, pl] = state.p.map(p => p[0]), rows = F.canvas.length, cols = F.canvas[0].length;
  byId("title-y").textContent = `Output y (${or}×${oc})`;
  cells.y = grid("grid-y", "output", rows, cols, outputSide(), (u, v) => {
    const r = u - pt, c = v - pl, value = F.canvas[u][v], inside = r >= 0 && c >= 0 && r < or && c < oc;
    if (!inside) return {text: short(value), sel: `c${u},${v}`, cls: "crop", label: ""};
    return {text: short(value), sel: `o${r},${c}`, cls: r >= or - state.op[0] || c >= oc - state.op[1] ? "extra" : "", label: ""};
  });
  if (rows !== or || cols !== oc) box(byId("grid-y"), "frame", pt, pl, or, oc, outputSide());
  fillOutput();
}
// The numbers alone, so that a cell keeps the pointer and the focus while sums grow.
function fillOutput() {
  const [or, oc] = F.output_size, host = byId("grid-y"), sel = active(), stamping = state.lens === "stamp" && (!hover || hover === stepSel()), values = stamping ? partial() : F.canvas;
  for (const [at, cell] of cells.y) {
    const [u, v] = split("@" + cell.dataset.at), value = values[u][v], [r, c] = split(at), n = at[0] === "o" ? F.contributions[r * oc + c].length : 0;
    if (cell.firstChild.data !== short(value)) cell.firstChild.data = short(value);
    const label = at[0] === "c" ? `cropped cell, value ${text(value)}` : `output row ${r} column ${c}, value ${text(value)}, ${n} contribution${n === 1 ? "" : "s"}${cell.classList.contains("extra") ? ", extra, still computed" : ""}`;
    cell.setAttribute("aria-label", label); cell.title = label;
  }
  host.querySelectorAll(".window").forEach(node => node.remove());
  if (state.lens === "stamp" && sel[0] === "i") { const [i, j] = split(sel), reach = n => state.d[n] * (F.kernel_size[n] - 1) + 1; box(host, "window", i * state.s[0], j * state.s[1], reach(0), reach(1), outputSide()); }
  byId("hint-y").textContent = [F.canvas.length !== or || F.canvas[0].length !== oc ? "dashed: cropped away by the padding" : "", state.op.some(Boolean) ? "dotted: extra, still computed" : "", stamping ? (state.step < stepsOf(state) ? `sum of the first ${state.step} stamps` : "finished: all stamps are added") : ""].filter(Boolean).join(" · ");
}
function drawMatrix() {
  const [n, m] = F.matrix.shape, tap = new Map(F.matrix.nonzeros.map(([o, i, k]) => [o * m + i, k])), w1 = F.w.flat(), y1 = F.y.flat(), x1 = F.x.flat();
  const sel = active(), around = sel[0] === "o" ? split(sel)[0] * F.output_size[1] + split(sel)[1] : sel[0] === "m" ? split(sel)[0] : 0;
  const low = n * m > 4096 ? Math.max(0, around - 8) : 0, high = n * m > 4096 ? Math.min(n, around + 9) : n;
  const os = range(high - low).map(v => v + low), is = range(m), numbers = n <= 16 && m <= 16, letters = n <= 64 && m <= 64 && Math.min(n, m) <= 36;
  const [down, over] = turned ? [is, os] : [os, is], head = numbers ? 1 : 0, side = numbers ? (Math.max(n, m) > 10 ? 26 : 28) : letters ? 15 : 8;
  byId("title-m").textContent = turned ? `W* (${m}×${n})` : `(W*)ᵀ (${n}×${m})`;
  cells.m = grid("grid-m", turned ? "matrix W*" : "matrix W* transposed", down.length + head, over.length + head, side, (r, c) => {
    if (head && !(r && c)) {
      const which = r || c ? (!!c === turned ? "y" : "x") : "", at = r ? down[r - 1] : over[c - 1];
      if (!which) return {text: "", cls: "plain", label: "corner", role: "columnheader"};
      return {text: short((which === "y" ? y1 : x1)[at]), cls: `plain head-${which}-${at}`, role: r ? "rowheader" : "columnheader", label: `${which === "y" ? "output" : "input"} ${at}`};
    }
    const [o, i] = turned ? [over[c - head], down[r - head]] : [down[r - head], over[c - head]], k = tap.get(o * m + i);
    const block = r > head && !turned && o % F.output_size[1] === 0 ? "block" : "";
    if (k === undefined) return {text: numbers ? "0" : "", cls: "zero " + block, sel: `m${o},${i}`, label: `entry ${o},${i}: 0, not connected`};
    return {text: numbers ? short(w1[k]) : letters ? LETTERS[k] : "", tap: k, letter: numbers, cls: block, sel: `m${o},${i}`, label: `entry ${o},${i}: tap ${LETTERS[k]}, value ${text(w1[k])}`};
  });
  byId("hint-m").textContent = (turned ? "W* y is the convolution" : `vec(y) = (W*)ᵀ vec(x): each row makes one output cell`) + (low || high < n ? `; rows ${low} to ${high - 1} of ${n}` : "");
  byId("turn").textContent = turned ? "show (W*)ᵀ instead" : "show W* instead";
  byId("turn").setAttribute("aria-pressed", turned);
}
let marked = [];
function highlight() {
  for (const [node, ...names] of marked) { node.classList.remove(...names); node.querySelector("small.now")?.remove(); }
  document.querySelectorAll(".window.moving").forEach(node => node.remove());
  marked = [];
  const sel = active(), found = lit(sel), oc = F.output_size[1], ic = F.input_size[1], kc = F.kernel_size[1];
  const mark = (node, tap, ...names) => {
    if (!node) return;
    if (tap >= 0 && !node.classList.contains("tap")) { names.push("tap", "t" + tap % 7); node.append(el("small", {class: "now", "aria-hidden": true}, LETTERS[tap])); }
    node.classList.add(...names); marked.push([node, ...names]);
  };
  found.x.forEach((k, i) => mark(cells.x.get("i" + coords(i, ic)), k, "lit"));
  found.w.forEach(k => mark(cells.w.get("k" + coords(k, kc)), -1, "lit"));
  found.y.forEach((k, o) => mark(cells.y.get("o" + coords(o, oc)), k, "lit"));
  found.m.forEach(at => mark(cells.m.get("m" + at), -1, "lit"));
  const [a, b] = split(sel), [n, m] = F.matrix.shape, row = sel[0] === "o" ? a * oc + b : -1, column = sel[0] === "i" ? a * ic + b : -1;
  if (row >= 0) range(m).forEach(i => mark(cells.m.get(`m${row},${i}`), -1, "line"));
  if (column >= 0) range(n).forEach(o => mark(cells.m.get(`m${o},${column}`), -1, "line"));
  found.y.forEach((k, o) => mark(byId("grid-m").querySelector(`.head-y-${o}`), -1, "line"));
  found.x.forEach((k, i) => mark(byId("grid-m").querySelector(`.head-x-${i}`), -1, "line"));
  if (sel === "fp") byId("grid-y").querySelectorAll(".crop").forEach(c => mark(c, -1, "lit"));
  if (sel === "fo") byId("grid-y").querySelectorAll(".extra").forEach(c => mark(c, -1, "lit"));
  if (sel === "fs") { byId("grid-x").querySelectorAll(".gap").forEach(c => mark(c, -1, "lit"));
    range(F.input_size[0]).forEach(i => range(ic).forEach(j => { const u = i * state.s[0], v = j * state.s[1]; mark(byId("grid-y").querySelector(`[data-at="${u},${v}"]`), -1, "lit"); })); }
  if (sel === "fd") F.w.forEach((taps, k) => taps.forEach((t, l) => mark(byId("grid-y").querySelector(`[data-at="${k * state.d[0]},${l * state.d[1]}"]`), k * kc + l, "lit")));
  if (sel[0] === "c") mark(cells.y.get(sel), -1, "lit");
  if (state.sel) mark(cells[{o: "y", i: "x", k: "w", m: "m"}[state.sel[0]]].get(state.sel), -1, "pinned");
  if (state.lens === "conv" && sel[0] === "o") {
    const {border, shape} = spread(), host = byId("grid-x"), side = sideFor(Math.max(...shape), 320), reach = q => state.d[q] * (F.kernel_size[q] - 1) + 1;
    box(host, "window moving", a - Math.min(border[0][0], 0), b - Math.min(border[1][0], 0), reach(0), reach(1), side);
  }
  const scroller = byId("scroll-m"), first = scroller.querySelector(".lit");
  if (first && F.matrix.shape[0] > 24 && !byId("grid-m").matches(":hover, :focus-within")) scroller.scrollTop = first.offsetTop - scroller.clientHeight / 2;
  const pieces = sentence(sel);
  byId("equation").replaceChildren(...pieces.map(([t, k]) => k === undefined ? t : el("span", {class: `tap t${k % 7}`}, t)));
  const count = sel[0] === "o" ? F.contributions[a * oc + b].length : -1;
  byId("contributions").textContent = (count >= 0 ? `${count} contribution${count === 1 ? "" : "s"}` : "") + (state.sel ? (count >= 0 ? " · " : "") + "pinned, Esc unpins" : "");
  announce(pieces.map(piece => piece[0]).join(""));
}
let said = 0, waiting = 0;
function announce(sentence) {
  clearTimeout(waiting);
  const wait = Math.max(0, said + 300 - Date.now());
  const say = () => { said = Date.now(); if (byId("live").textContent !== sentence) byId("live").textContent = sentence; };
  if (wait) waiting = setTimeout(say, wait); else say();
}
function drawLaw() {
  const symbol = (name, sel, title) => el("button", {type: "button", class: "symbol", title, "data-f": sel, onmouseenter: () => look(sel), onmouseleave: () => look(""), onfocus: () => look(sel), onblur: () => look("")}, name);
  const names = F.rank === 1 ? ["W"] : same(F.size_formulas[0], F.size_formulas[1]) ? ["H"] : ["H", "W"];
  byId("law").replaceChildren(...names.flatMap((name, n) => [...(n ? [el("br")] : []), `${name}`, el("sub", {}, "out"), ` = (${name}`, el("sub", {}, "in"), " − 1)·", symbol("s", "fs", "stride"), " − (", symbol("p₀", "fp", "padding at the beginning"), " + ", symbol("p₁", "fp", "padding at the end"), ") + ", symbol("d", "fd", "dilation"), "·(K − 1) + ", symbol("op", "fo", "output padding"), ` + 1 = ${F.size_formulas[n]}`]));
}
function drawControls() {
  const controls = byId("controls"), axes = apart && !(F.rank === 1) ? [0, 1] : [1], had = document.activeElement && document.activeElement.dataset.control;
  const one = F.rank === 1 && !apart;
  const change = (key, axis, end, value) => { const next = copyOf(state); for (const n of apart ? [axis] : one ? [1] : [0, 1]) assign(next, key, n, apart ? end : -1, value); return next; };
  const choose = (key, axis, end, label, values, current) => {
    const id = `${key}${axis}${end}`, select = el("select", {"aria-label": label, "data-control": id, onchange: event => { const v = Number(event.target.value); update(change(key, axis, end, v)); }});
    for (const v of values) { const next = change(key, axis, end, v); if (v === current || fits(next)) select.append(el("option", {value: v, selected: v === current}, text(v))); }
    return select;
  };
  const rows = [["input", "size", range(LIMIT.input).map(v => v + 1), n => sizeOf(state, n).i], ["kernel", "kernel", range(LIMIT.kernel).map(v => v + 1), n => sizeOf(state, n).k],
    ["s", "stride", range(LIMIT.s).map(v => v + 1), n => state.s[n]], ["p", "padding", range(LIMIT.p + 1), (n, e) => state.p[n][e]], ["d", "dilation", range(LIMIT.d).map(v => v + 1), n => state.d[n]], ["op", "output padding", range(5), n => state.op[n]]];
  const made = rows.map(([key, label, values, now]) => el("label", {}, label + " ", ...(apart ? [0, 1] : [1]).flatMap(n => (key === "p" && apart ? [0, 1] : [0]).map(e => choose(key, n, e, apart ? `${label}, ${n ? "columns" : "rows"}${key === "p" ? (e ? ", end" : ", begin") : ""}` : label, values, now(n, e))))));
  const tick = el("input", {type: "checkbox", "data-control": "apart", onchange: event => { apart = event.target.checked; drawControls(); }});
  tick.checked = apart;
  const preset = (key, label, names) => el("label", {}, label + " ", el("select", {"aria-label": label + " values", "data-control": "preset" + key, onchange: event => { if (event.target.value) update(filled(key, event.target.value)); }}, el("option", {value: ""}, "–"), ...names.map(name => el("option", {value: name}, name))));
  controls.replaceChildren(...made, el("label", {}, tick, " rows ≠ columns"), preset("x", "Input:", ["1…n", "ones", "impulse", "random"]), preset("w", "Kernel:", ["example", "ones", "bilinear", "nearest", "random"]), el("button", {type: "button", "data-control": "reset", onclick: () => { edited = false; update(copyOf(EXAMPLE)); }}, "Example"));
  if (had) (controls.querySelector(`[data-control="${had}"]`) || controls.querySelector("select")).focus();
}
const fits = st => [0, 1].every(n => { const o = outputOf(st, n); return o >= 1 && o <= LIMIT.output && st.op[n] < Math.max(st.s[n], st.d[n]); });
function assign(st, key, n, end, value) {
  if (key === "input" || key === "kernel") {
    const letter = key === "input" ? "x" : "w", rows = n === 0 ? value : st[letter].length, cols = n === 1 ? value : st[letter][0].length, old = st[letter];
    st[letter] = range(rows).map(r => range(cols).map(c => old[r] && old[r][c] !== undefined ? old[r][c] : r * cols + c + 1));
  } else if (key === "p") st.p[n] = end < 0 ? [value, value] : st.p[n].map((v, e) => e === end ? value : v);
  else st[key][n] = value;
}
let seed = 1;
const random = () => (seed = seed * 48271 % 2147483647) / 2147483647;
function filled(key, name) {
  const next = copyOf(state), rows = next[key].length, cols = next[key][0].length;
  const tent = (k, n, axis) => Math.max(0, 1 - Math.abs(k - (n - 1) / 2) / state.s[axis]);
  next[key] = next[key].map((row, r) => row.map((_, c) => ({"1…n": r * cols + c + 1, example: r * cols + c + 1, ones: 1, impulse: r === rows >> 1 && c === cols >> 1 ? 1 : 0,
    random: Math.floor(random() * (key === "x" ? 10 : 19)) - (key === "x" ? 0 : 9), bilinear: tent(r, rows, 0) * tent(c, cols, 1), nearest: r < state.s[0] && c < state.s[1] ? 1 : 0}[name])));
  return next;
}
const tableOf = (rows, caption, cls = () => "", show = short) => el("table", {}, el("caption", {}, caption), el("tbody", {}, ...rows.map((row, r) => el("tr", {}, ...row.map((v, c) => el("td", {class: cls(r, c)}, show(v)))))));
function drawOverlap() {
  const why = range(2).map(n => n < 2 - F.rank || F.even[n] ? "" : gcd(state.d[n], state.s[n]) > 1 ? `dilation ${state.d[n]} and stride ${state.s[n]} share a divisor` : `K=${F.kernel_size[n]} is not a multiple of s=${state.s[n]}`).filter(Boolean);
  const lines = (r, c) => ((r + state.p[0][0]) % state.s[0] ? "" : "top ") + ((c + state.p[1][0]) % state.s[1] ? "" : "left");
  const strong = F.ripple === null ? 1 : Math.min(F.ripple, 1), bar = el("div", {class: "bar", role: "img", "aria-label": "ripple"}, el("div"));
  bar.firstChild.style.width = strong * 100 + "%";
  const level = F.ripple === null ? "the mean is 0: all of it is ripple" : F.ripple === 0 ? "R = 0: every phase has the same sum" : `R = ${F.ripple.toPrecision(3)}, ${F.ripple_db.toFixed(1)} dB`;
  byId("overlap").querySelector(".body").replaceChildren(
    el("p", {}, el("span", {class: "chip" + (why.length ? " bad" : "")}, why.length ? "uneven: " + [...new Set(why)].join("; ") : "even"), " Taps that reach each output cell; heavy lines mark the stride. Even counts do not suffice: only equal phase sums leave a constant input constant."),
    tableOf(F.counts, "Overlap count", lines, text), tableOf(F.phase_sums, `Phase sums (${state.s[0]}×${state.s[1]}) of this kernel`),
    el("div", {}, el("p", {}, "Ripple of a constant input, relative to its mean"), bar, el("p", {id: "ripple"}, level), el("p", {id: "constant"}, `constant input 1 gives, away from the border: ${F.phase_sums.flat().map(short).join("  ")}${state.s.some(s => s > 1) ? ", again and again" : ""}`)));
}
function drawCode() {
  byId("code").querySelector(".body").replaceChildren(el("p", { class: "hint" }, "x has shape (1, 1, …), w (1, 1, …). Each is exact, or says why it cannot be."), ...Object.entries(F.code).map(([name, code]) => el("div", {}, el("strong", {}, name), el("pre", {tabindex: 0}, code))));
}
function drawInverse() {
  const t = F.not_the_inverse, arrow = said => el("p", {class: "arrow"}, "→", el("br"), said);
  byId("inverse").querySelector(".body").replaceChildren(
    el("p", {}, "Start from 1, 2, 3 …, convolve by the same kernel and take the result back. It undoes the ", el("em", {}, "shape"), ", not the values."),
    tableOf(t.start, "r"), arrow("W*"), tableOf(t.convolved, "W* r"), arrow("(W*)ᵀ"), tableOf(t.back, "(W*)ᵀ W* r ≠ r"),
    el("p", {}, "What does hold, for all r and x: ⟨W* r, x⟩ = ⟨r, (W*)ᵀ x⟩. Here ", el("strong", {id: "inner"}, `${text(t.inner_small)} = ${text(t.inner_large)}`), "."));
}
const DETAILS = {overlap: drawOverlap, code: drawCode, inverse: drawInverse};
const drawDetails = () => { for (const [id, draw] of Object.entries(DETAILS)) if (byId(id).open) draw(); };
function drawSteps() {
  const n = stepsOf(state), slider = byId("step");
  slider.max = n; slider.value = state.step;
  slider.setAttribute("aria-valuetext", `${state.step} of ${n}`);
  byId("count").textContent = `${state.step}/${n}`;
  byId("back").disabled = state.step <= 1 && document.activeElement !== byId("back");
  byId("next").disabled = state.step >= n && document.activeElement !== byId("next");
  byId("play").textContent = playing ? "❚❚ Pause" : "▶ Play";
  byId("play").setAttribute("aria-pressed", !!playing);
  for (const radio of byId("lenses").children) { const on = radio.dataset.lens === state.lens; radio.setAttribute("aria-checked", on); radio.tabIndex = on ? 0 : -1; }
}
function drawAll() { drawSteps(); drawFigure(); drawLaw(); drawControls(); drawDetails(); highlight(); }

// ---- changes -------------------------------------------------------------------------------------------
function update(next, notes = []) {
  state = fit(next);
  F = compute(state);
  hover = "";
  byId("note").hidden = !notes.length;
  byId("note").textContent = notes.length ? `This link was not quite right: ${[...new Set(notes)].join("; ")}.` : "";
  drawAll();
  keep();
}
let kept = 0, last = 0;
function keep() {
  clearTimeout(kept);
  kept = setTimeout(() => {
    last = Date.now();
    try { history.replaceState(null, "", hashOf(state) || location.pathname + location.search); } catch { /* in a srcdoc frame there is no address */ }
  }, Math.max(0, last + 200 - Date.now()));
}
function load(hash) { const {state: next, notes} = parse(hash); edited = false; apart = next.s[0] !== next.s[1] || next.d[0] !== next.d[1] || next.op[0] !== next.op[1] || !same(...next.p) || next.p.some(p => p[0] !== p[1]) || next.x.length !== next.x[0].length || next.w.length !== next.w[0].length; if (next.x.length === 1 && next.w.length === 1) apart = next.p[1][0] !== next.p[1][1]; update(next, notes); }
function look(sel) {
  if (drawing || sel === hover) return;
  const big = F.matrix.shape[0] * F.matrix.shape[1] > 4096;
  hover = sel;
  // A shorter sentence must not pull the formula away from under the pointer.
  byId("equation").style.minHeight = sel[0] === "f" ? byId("equation").offsetHeight + "px" : "";
  if (state.lens === "stamp") fillOutput();
  if (big && sel && sel[0] !== "m") drawMatrix();
  highlight();
}
function step(to) {
  state.step = Math.min(Math.max(to, 1), stepsOf(state));
  hover = "";
  if (state.step >= stepsOf(state)) stop();
  if (state.lens === "stamp") fillOutput();
  if (F.matrix.shape[0] * F.matrix.shape[1] > 4096) drawMatrix();
  drawSteps(); highlight(); keep();
}
function stop() { clearInterval(playing); playing = 0; drawSteps(); }
function play() {
  if (playing) return stop();
  state.sel = "";
  if (state.step >= stepsOf(state)) step(1); else highlight();
  playing = setInterval(() => step(state.step + 1), Number(byId("speed").value));
  drawSteps();
}
function setLens(lens) { stop(); update({...state, lens, step: lens === "stamp" ? 1 : state.lens === "stamp" ? 0 : state.step}); }
function pin(sel) { if (!/^[oikm]/.test(sel)) return; stop(); state.sel = state.sel === sel ? "" : sel; highlight(); keep(); }
function edit(cell) {
  const letter = cell.dataset.edit, [r, c] = split(cell.dataset.sel), at = cell.dataset.at, host = cell.closest(".grid").parentNode;
  const input = el("input", {type: "text", inputmode: "decimal", "aria-label": "new value", value: text(state[letter][r][c])});
  let done = false;
  const finish = (keepIt, refocus) => {
    if (done) return;
    done = true;
    const value = input.value.trim();
    if (keepIt && NUMBER.test(value) && Number.isFinite(Number(value)) && Number(value) !== state[letter][r][c]) { const next = copyOf(state); next[letter][r][c] = Number(value); edited = true; update(next); } else { drawFigure(); highlight(); }
    if (refocus) focusCell(host.firstChild, at);
  };
  input.addEventListener("keydown", event => { event.stopPropagation(); if (event.key === "Enter" || event.key === "Escape") { event.preventDefault(); finish(event.key === "Enter", true); } });
  input.addEventListener("blur", () => finish(true, false));
  cell.replaceChildren(input);
  input.focus(); input.select();
}
function focusCell(table, at) {
  const cell = table.querySelector(`[data-at="${at}"]`);
  if (!cell || !cell.dataset.sel) return false;
  table.querySelectorAll('[tabindex="0"]').forEach(c => { c.tabIndex = -1; });
  cell.tabIndex = 0; table.parentNode.dataset.tab = at; cell.focus();
  return true;
}
function onGridKey(event) {
  const cell = event.target.closest(".cell[data-sel]");
  if (!cell || event.target !== cell) return;
  const table = cell.closest(".grid"), all = [...table.querySelectorAll(".cell[data-sel]")].map(c => c.dataset.at.split(",").map(Number)), [r, c] = cell.dataset.at.split(",").map(Number);
  const go = (dr, dc) => all.filter(([a, b]) => dr ? b === c && (a - r) * dr > 0 : a === r && (b - c) * dc > 0).sort((p, q) => Math.abs(p[0] - r) + Math.abs(p[1] - c) - Math.abs(q[0] - r) - Math.abs(q[1] - c))[0];
  const row = all.filter(p => p[0] === r), far = event.ctrlKey ? all : row;
  const to = {ArrowRight: () => go(0, 1), ArrowLeft: () => go(0, -1), ArrowDown: () => go(1, 0), ArrowUp: () => go(-1, 0), Home: () => far[0], End: () => far[far.length - 1]}[event.key];
  if (to) { event.preventDefault(); const at = to(); if (at) focusCell(table, at.join(",")); }
  else if (event.key === "Enter") { event.preventDefault(); pin(cell.dataset.sel); }
  else if (event.key === "F2" && cell.dataset.edit) { event.preventDefault(); edit(cell); }
}

// ---- export: what is on the page, as SVG ---------------------------------------------------------------
const escape = s => String(s).replace(/[&<>"]/g, c => ({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}[c]));
function plainColor(value) {
  const found = /^color\(srgb ([\d.e-]+) ([\d.e-]+) ([\d.e-]+)/.exec(value);
  return found ? `rgb(${found.slice(1, 4).map(v => Math.round(v * 255)).join(",")})` : value === "rgba(0, 0, 0, 0)" ? "none" : value;
}
const wrap = (sentence, most) => sentence.split(" ").reduce((lines, word) => { const line = `${lines.at(-1)} ${word}`; if (line.length <= most || !lines.at(-1)) lines[lines.length - 1] = line.trim(); else lines.push(word); return lines; }, [""]);
function svgText() {
  const figure = byId("figure"), sums = byId("equation"), base = figure.getBoundingClientRect(), foot = sums.getBoundingClientRect();
  const width = Math.ceil(base.width) + 24, height = Math.ceil(foot.bottom - base.top) + 24, parts = [];
  const place = node => { const r = node.getBoundingClientRect(); return {x: r.left - base.left + 12, y: r.top - base.top + 12, w: r.width, h: r.height}; };
  const write = (t, x, y, style, anchor, size) => parts.push(`<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" font-size="${size || style.fontSize}" font-weight="${style.fontWeight}" fill="${plainColor(style.color)}" text-anchor="${anchor}" dominant-baseline="central">${escape(t)}</text>`);
  const view = byId("scroll-m").getBoundingClientRect(), cut = node => byId("scroll-m").contains(node) && (node.getBoundingClientRect().bottom > view.bottom || node.getBoundingClientRect().top < view.top);
  const nodes = [...figure.querySelectorAll(".cell:not(.lit)"), ...figure.querySelectorAll(".lit"), ...figure.querySelectorAll(".frame, .window")].filter(node => !cut(node));
  nodes.forEach(node => {
    const style = getComputedStyle(node), {x, y, w, h} = place(node), chosen = node.classList.contains("lit");
    if (!w) return;
    const border = node.classList.contains("plain") ? "none" : plainColor(chosen ? style.outlineColor : style.borderLeftColor), thick = chosen ? 3 : parseFloat(style.borderLeftWidth);
    const dash = {dashed: "4 3", dotted: "2 2"}[style.borderTopStyle];
    parts.push(`<rect x="${x.toFixed(1)}" y="${y.toFixed(1)}" width="${w.toFixed(1)}" height="${h.toFixed(1)}" fill="${plainColor(style.backgroundColor)}" stroke="${border}" stroke-width="${thick}"${dash && !chosen ? ` stroke-dasharray="${dash}"` : ""}/>`);
    if (node.classList.contains("block")) parts.push(`<path d="M${x.toFixed(1)} ${y.toFixed(1)}h${w.toFixed(1)}" stroke="${plainColor(style.borderTopColor)}" stroke-width="2"/>`);
    const own = node.firstChild && node.firstChild.nodeType === 3 ? node.firstChild.data : "";
    if (own) write(own, x + w / 2, y + h / 2, style, "middle");
    const small = node.querySelector("small");
    if (small) write(small.textContent, x + 4, y + 8, getComputedStyle(small), "start");
  });
  figure.querySelectorAll("h2, .hint").forEach(node => { const p = place(node); const lines = wrap(node.textContent, node.matches("h2") ? 99 : p.w / 6.6); if (p.w) lines.forEach((line, n) => write(line, p.x, p.y + 10 + 18 * n, getComputedStyle(node), "start")); });
  const at = place(sums), lines = wrap(sums.textContent, width / 12);
  lines.slice(0, Math.max(1, Math.round(at.h / 30))).forEach((line, n) => write(line, at.x, at.y + 16 + 30 * n, getComputedStyle(sums), "start", "20px"));
  return {width, height, text: `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" font-family="system-ui, 'DejaVu Sans', sans-serif"><title>Transposed convolution</title><desc>${escape(sums.textContent)}; ${escape(hashOf(state))}</desc><rect width="100%" height="100%" fill="${plainColor(getComputedStyle(document.body).backgroundColor)}"/>${parts.join("")}</svg>`};
}
function offer(blob, name) {
  const url = URL.createObjectURL(blob);
  el("a", {href: url, download: name}).click();
  setTimeout(() => URL.revokeObjectURL(url), 5000);
}
const saveSvg = () => offer(new Blob([svgText().text], {type: "image/svg+xml"}), "transposed-convolution.svg");
function savePng() {
  const {width, height, text: source} = svgText(), image = new Image();
  image.onload = () => {
    const canvas = el("canvas", {width: 2 * width, height: 2 * height}), pen = canvas.getContext("2d");
    pen.scale(2, 2); pen.drawImage(image, 0, 0, width, height);
    canvas.toBlob(blob => offer(blob, "transposed-convolution.png"), "image/png");
  };
  image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(source);
}
async function copyLink() {
  const framed = location.protocol === "about:", link = framed ? hashOf(state) || "#" : location.href.split("#")[0] + hashOf(state);
  const field = byId("link").querySelector("input");
  field.value = link;
  let copied = false;
  try { await navigator.clipboard.writeText(link); copied = !framed; } catch { /* shown instead */ }
  byId("link").hidden = copied;
  if (!copied) field.select();
  byId("copy").textContent = copied ? "Copied" : "Copy link";
  setTimeout(() => { byId("copy").textContent = "Copy link"; }, 1500);
}

// ---- listening -----------------------------------------------------------------------------------------
for (const [lens, name] of Object.entries(LENSES)) byId("lenses").append(el("button", {type: "button", role: "radio", "data-lens": lens, onclick: () => setLens(lens)}, name));
byId("lenses").addEventListener("keydown", event => {
  const turn = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: 2, ArrowUp: 2}[event.key], names = Object.keys(LENSES);
  if (turn) { event.preventDefault(); setLens(names[(names.indexOf(state.lens) + turn) % 3]); byId("lenses").querySelector('[tabindex="0"]').focus(); }
});
byId("back").addEventListener("click", () => { stop(); state.sel = ""; step(state.step - 1); });
byId("next").addEventListener("click", () => { stop(); state.sel = ""; step(state.step + 1); });
byId("play").addEventListener("click", play);
byId("step").addEventListener("input", event => { const to = Number(event.target.value); stop(); state.sel = ""; step(to); });
byId("speed").addEventListener("change", () => { if (playing) { stop(); play(); } });
byId("copy").addEventListener("click", copyLink);
byId("svg").addEventListener("click", saveSvg);
byId("png").addEventListener("click", savePng);
byId("turn").addEventListener("click", () => { turned = !turned; drawMatrix(); highlight(); });
for (const id of ["grid-x", "grid-w", "grid-y", "grid-m"]) {
  const host = byId(id), selOf = event => { const cell = event.target.closest && event.target.closest(".cell[data-sel]"); return cell ? cell.dataset.sel : ""; };
  host.addEventListener("mouseover", event => { if (!playing) look(selOf(event)); });
  host.addEventListener("mouseleave", () => look(""));
  host.addEventListener("focusin", event => { if (!playing && event.target.matches(".cell")) look(event.target.dataset.sel); });
  host.addEventListener("focusout", () => { if (!playing) look(""); });
  host.addEventListener("click", event => { const sel = selOf(event); if (sel && event.target.tagName !== "INPUT") { pin(sel); const at = event.target.closest(".cell").dataset.at; if (host.firstChild) focusCell(host.firstChild, at); } });
  host.addEventListener("dblclick", event => { const cell = event.target.closest(".cell[data-edit]"); if (cell && cell.isConnected) edit(cell); });
  host.addEventListener("keydown", onGridKey);
}
document.addEventListener("keydown", event => {
  if (event.key === "Escape") { if (state.sel) { state.sel = ""; highlight(); keep(); } return; }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const target = event.target, typing = target.matches("select, input:not([type=range])");
  if (event.key === " " && !typing && !target.matches("button, summary")) { event.preventDefault(); play(); }
  else if (!typing && /^[123]$/.test(event.key)) setLens(Object.keys(LENSES)[event.key - 1]);
});
window.addEventListener("hashchange", () => load(location.hash));
const narrow = matchMedia("(max-width: 699px)"), fold = () => { byId("panel-m").open = !narrow.matches; };
narrow.addEventListener("change", fold); fold();
let opened = [];
window.addEventListener("beforeprint", () => { opened = [...document.querySelectorAll("details:not([open])")]; opened.forEach(d => { d.open = true; }); drawDetails(); });
for (const [id, draw] of Object.entries(DETAILS)) byId(id).addEventListener("toggle", () => { if (byId(id).open) draw(); });
window.addEventListener("afterprint", () => { opened.forEach(d => { d.open = false; }); });

document.documentElement.className = "live";
byId("still").remove();
if (START.hash) { const first = parse(START.hash).state; INITIAL = first; INITIAL.settings = true; }
load(location.hash || START.hash || "");
const plainLit = () => { const f = lit(active()); return {x: [...f.x.keys()].sort((a, b) => a - b), w: [...f.w].sort((a, b) => a - b), y: [...f.y.keys()].sort((a, b) => a - b), m: [...f.m].sort()}; };
window.tconv = {set: value => typeof value === "string" ? load(value) : update({...copyOf(EXAMPLE), ...value}), facts: () => copyOf(F), state: () => copyOf(state), hash: () => hashOf(state), lit: plainLit};
