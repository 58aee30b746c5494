// What is drawn: the state of the page, how its address spells it, and which states fit.
const LIMIT = {input: 8, kernel: 7, s: 5, d: 4, p: 6, output: 32};
const LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const LENSES = {stamp: "Stamp", collect: "Collect", conv: "As a convolution"};
const START = JSON.parse(document.getElementById("start").textContent);
let INITIAL;                                          // what the page starts with
const range = n => [...Array(Math.max(n, 0)).keys()];
const copyOf = v => JSON.parse(JSON.stringify(v));
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

// ---- numbers as text ------------------------------------------------------------------------------
const text = v => Object.is(v, -0) ? "0" : String(v);
const short = v => text(Number.isInteger(v) && Math.abs(v) < 1e5 ? v : Number(v.toPrecision(5)));
const signed = v => text(v).startsWith("-") ? `(${text(v)})` : text(v);
const tuple = v => `(${v.join(", ")}${v.length === 1 ? "," : ""})`;
const perAxis = v => v.every(n => n === v[0]) ? text(v[0]) : tuple(v);
const list = v => `[${v.join(", ")}]`;

// ---- the state and its address ---------------------------------------------------------------------
const EXAMPLE = {x: [[37, 47], [67, 77]], w: [[1, 2], [3, 4]], s: [1, 1], d: [1, 1],
  p: [[0, 0], [0, 0]], op: [0, 0], lens: "collect", step: 0, sel: ""};
INITIAL = EXAMPLE;
const NUMBER = /^-?(\d{1,16}(\.\d{0,16})?|\.\d{1,16})(e[+-]?\d{1,3})?$/i;

function readMatrix(value) {
  const rows = value.split(";").map(row => row.split(",").map(cell => NUMBER.test(cell) ? Number(cell) : NaN));
  const fits = rows.every(row => row.length === rows[0].length && row.every(Number.isFinite));
  return fits ? rows : null;
}
function readPair(value, one, read) {
  const parts = value.split("x");
  if (parts.length > 2 || !parts.every(part => (read === readEnds ? /^\d{1,3}(-\d{1,3})?$/ : /^\d{1,3}$/).test(part))) return null;
  const numbers = parts.map(read);
  return parts.length === 2 ? numbers : [one === null ? copyOf(numbers[0]) : one, numbers[0]];
}
const readEnds = part => { const ends = part.split("-").map(Number); return ends.length === 2 ? ends : [ends[0], ends[0]]; };

function parse(hash) {
  const notes = [], pairs = {};
  let raw = String(hash).replace(/^#/, "");
  if (raw.length > 2048) { notes.push("the link is too long"); raw = ""; }
  for (const part of raw.split("&")) {
    const at = part.indexOf("=");
    if (at < 1) { if (part) notes.push("a part of the link says nothing"); continue; }
    try { pairs[part.slice(0, at)] = decodeURIComponent(part.slice(at + 1)); }
    catch { notes.push("a part of the link is damaged"); }
  }
  const has = key => Object.hasOwn(pairs, key);
  const base = has("x") || has("w") || START.hash === undefined ? EXAMPLE : INITIAL;
  const st = copyOf(base);
  for (const key of ["x", "w"]) if (has(key)) {
    const rows = readMatrix(pairs[key]);
    if (rows) st[key] = rows; else notes.push(`${key} holds something that is no number`);
  }
  const single = st.x.length === 1 && st.w.length === 1;
  for (const [key, read, trivial] of [["s", Number, 1], ["d", Number, 1], ["p", readEnds, [0, 0]], ["op", Number, 0]]) if (has(key)) {
    const pair = readPair(pairs[key], single ? copyOf(trivial) : null, read);
    if (pair) st[key] = pair; else notes.push(`${key} is no whole number`);
  }
  if (has("lens")) { if (Object.hasOwn(LENSES, pairs.lens)) st.lens = pairs.lens; else notes.push("there is no such lens"); }
  if (has("step")) { if (/^\d{1,4}$/.test(pairs.step)) st.step = Number(pairs.step); else notes.push("step is no whole number"); }
  if (has("sel")) { if (/^[oikm]\d{1,4},\d{1,4}$/.test(pairs.sel)) st.sel = pairs.sel; else notes.push("sel selects nothing"); }
  const fitted = fit(st);
  if (!same([fitted.x, fitted.w, fitted.s, fitted.d, fitted.p, fitted.op], [st.x, st.w, st.s, st.d, st.p, st.op])) notes.push("the settings do not fit each other; these are the nearest that do");
  else if ((has("step") && fitted.step !== st.step) || fitted.sel !== st.sel) notes.push("the step or the selection lies outside");
  return {state: fitted, notes};
}
const sizeOf = (st, n) => ({i: n ? st.x[0].length : st.x.length, k: n ? st.w[0].length : st.w.length});
const outputOf = (st, n) => { const {i, k} = sizeOf(st, n); return (i - 1) * st.s[n] + st.d[n] * (k - 1) + 1 - st.p[n][0] - st.p[n][1] + st.op[n]; };

// The nearest state that can be drawn; of one that can be, the same.
function fit(given) {
  const st = copyOf(given), clip = (v, low, high) => Math.min(Math.max(Math.trunc(v) || 0, low), high);
  st.x = st.x.slice(0, LIMIT.input).map(row => row.slice(0, LIMIT.input));
  st.w = st.w.slice(0, LIMIT.kernel).map(row => row.slice(0, LIMIT.kernel));
  for (const n of [0, 1]) {
    st.s[n] = clip(st.s[n], 1, LIMIT.s); st.d[n] = clip(st.d[n], 1, LIMIT.d);
    st.p[n] = st.p[n].map(v => clip(v, 0, LIMIT.p));
    for (;;) {
      st.op[n] = clip(st.op[n], 0, Math.max(st.s[n], st.d[n]) - 1);
      const o = outputOf(st, n);
      if (o >= 1 && o <= LIMIT.output) break;
      if (o < 1) st.p[n][st.p[n][1] >= st.p[n][0] ? 1 : 0]--;
      else if (st.op[n]) st.op[n]--;
      else if (st.s[n] > st.d[n]) st.s[n]--; else st.d[n]--;
    }
  }
  const n = stepsOf(st);
  st.step = st.step < 1 ? (st.lens === "stamp" ? n : middle(st)) : Math.min(st.step, n);
  if (st.sel && !exists(st, st.sel)) st.sel = "";
  return st;
}
const middle = st => { const [rows, cols] = [outputOf(st, 0), outputOf(st, 1)]; return ((rows - 1) >> 1) * cols + ((cols - 1) >> 1) + 1; };
const stepsOf = st => st.lens === "stamp" ? st.x.length * st.x[0].length : outputOf(st, 0) * outputOf(st, 1);
function exists(st, sel) {
  const [a, b] = sel.slice(1).split(",").map(Number), o = [outputOf(st, 0), outputOf(st, 1)];
  const [rows, cols] = {o, i: [st.x.length, st.x[0].length], k: [st.w.length, st.w[0].length], m: [o[0] * o[1], st.x.length * st.x[0].length]}[sel[0]];
  return a < rows && b < cols;
}
function hashOf(st) {
  const parts = [], single = st.x.length === 1 && st.w.length === 1;
  const custom = !same(INITIAL.x, EXAMPLE.x) || !same(INITIAL.w, EXAMPLE.w) || INITIAL.settings;
  for (const key of ["x", "w"]) if (!same(st[key], EXAMPLE[key]) || (custom && key === "x")) parts.push(`${key}=${st[key].map(row => row.map(text).join(",")).join(";")}`);
  const ends = v => v[0] === v[1] ? text(v[0]) : v.join("-");
  for (const [key, show, normal] of [["s", text, "1"], ["p", ends, "0"], ["d", text, "1"], ["op", text, "0"]]) {
    const [a, b] = st[key].map(show), alike = single ? a === normal : a === b;
    if (!alike || b !== normal) parts.push(`${key}=${alike ? b : a + "x" + b}`);
  }
  if (st.lens !== "collect") parts.push("lens=" + st.lens);
  if (st.step !== fit({...st, step: 0}).step) parts.push("step=" + st.step);
  if (st.sel) parts.push("sel=" + st.sel);
  return parts.length ? "#" + parts.join("&") : "";
}
