// State of the page: its limits, its spelling in the address, and the nearest state that is valid.
// Python puts the first state into the page; the address says what differs from it.
const LIMIT = {i: 8, k: 7, s: 5, d: 4, p: 6, o: 32, pixels: 400};
const LENSES = ["stamp", "collect", "conv", "channels", "picture"];
const EXAMPLE = {
  x: [[37, 47], [67, 77]], w: [[1, 2], [3, 4]], s: [1, 1], d: [1, 1], p: [[0, 0], [0, 0]],
  op: [0, 0], c: [2, 2], xc: [], wc: [], lens: "collect", step: 0, sel: "",
};
const START = {...EXAMPLE, ...JSON.parse(document.getElementById("start").textContent)};
// The picture's whole numbers; its lens starts with a kernel that makes a checkerboard.
const PHOTO = document.getElementById("photo").textContent.replace(/(.)([!-:])/g,
  (_, grey, count) => grey.repeat(count.charCodeAt() - 31));
const SIDE = Math.sqrt(PHOTO.length);
const CHECKERBOARD = {
  w: [[1, 1, 1], [1, 1, 1], [1, 1, 1]], s: [2, 2], p: [[0, 0], [0, 0]], d: [1, 1], op: [0, 0],
};
// The state that a page starts a lens with.
const startOf = (lens, page = START) => lens === page.lens ? page
  : {...page, ...(lens === "picture" && CHECKERBOARD), lens, step: 0, sel: ""};
const LONGEST = 4096; // characters of an address: 64 inputs and 49 taps of at most 25, and settings
const NUMBER = /^-?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?$/i;
// A whole number must be exact in float64; a fraction becomes the nearest float64.
const isNumber = word => NUMBER.test(word) && isFinite(word) &&
  (!/^-?\d+$/.test(word) || BigInt(word) === BigInt(Number(word)));
// A number as people type it, or why it is none: 1/2, 1,5, +3, the typographic minus, spaces.
function readTyped(typed) {
  const word = typed.replace(/\s/g, "").replace(/[\u2212\u2013]/g, "-").replace(/(^|\/)\+/g, "$1");
  if (!word) return {why: "an empty cell is no number; type 0 for nothing"};
  if (/^-?[1-9]\d{0,2},\d{3}$/.test(word)) {
    const [point, whole] = [".", ""].map(sign => word.replace(",", sign));
    return {why: `${typed} may be ${point} or ${whole}; type either`};
  }
  const parts = word.replace(/^(-?\d*),(\d+)$/, "$1.$2").split("/");
  if (parts.length > 2 || !parts.every(part => NUMBER.test(part))) {
    return {why: `${typed} is no number; type one such as 3, -1.5, 1/2 or 2e-3`};
  }
  if (Number(parts[1]) === 0) return {why: `${typed} divides by 0, which gives no number`};
  const value = parts[0] / (parts[1] ?? 1);
  if (!parts.every(isNumber) || !isFinite(value)) {
    const why = "is no number that float64 holds; of whole ones beyond 2^53 many are not";
    return {why: `${typed} ${why}`};
  }
  return {value: parts.length === 1 ? Number(parts[0]) : value};
}

const {abs, floor, max, min, round} = Math;
const range = n => [...Array(max(n, 0)).keys()];
const table = (rows, cols, at) => range(rows).map(r => range(cols).map(c => at(r, c)));
const PICTURE = table(SIDE, SIDE, (r, c) => PHOTO.charCodeAt(r * SIDE + c) - 63);
const copyOf = v => structuredClone(v);
const some = v => v.some(Boolean);
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

// ---- numbers as text ----------------------------------------------------------------------------
// All digits: Number() of this text is the same number.
const exact = v => Object.is(v, -0) ? "-0"
  : abs(v) > 2 ** 53 && abs(v) < 1e21 ? String(BigInt(v)) : String(v);
// The same without a sign of zero; sums may be inf, -inf or nan.
const text = v => v === 0 ? "0" : isFinite(v) ? exact(v) : v > 0 ? "inf" : v < 0 ? "-inf" : "nan";
// A number for a cell of so many pixels: all digits, in a small font, or else rounded to as many
// digits as fit in a larger font, at least one.
function short(v, side = 99) {
  let words = text(v);
  if (words.length <= min(8, floor(side * CHARACTER / 6))) return words;
  const most = min(8, floor(side * CHARACTER / 8));
  for (let digits = 5; words.length > most && digits; digits--) words = rounded(v, digits);
  return words;
}
const CHARACTER = 1.45; // characters that are as wide together as the font is high
function rounded(v, digits) {
  const words = v.toExponential(digits - 1), power = Number(words.split("e")[1]);
  return power < -3 || power >= digits ? words.replace(/\.?0*e\+?/, "e") : text(Number(words));
}
const signed = (v, write = text) => write(v).startsWith("-") ? `(${write(v)})` : write(v);
const tuple = v => `(${v.join(", ")}${v.length === 1 ? "," : ""})`;
const perAxis = v => v.every(n => n === v[0]) ? text(v[0]) : tuple(v);

// ---- sizes --------------------------------------------------------------------------------------
function withSizes(axis) {
  const reach = axis.d * (axis.k - 1) + 1, full = (axis.i - 1) * axis.s + reach;
  return {...axis, reach, full, o: full - axis.begin - axis.end + axis.extra};
}
const inputOf = st => st.lens === "picture" ? PICTURE : st.x;
function axisOf(st, n) {
  const [i, k] = [inputOf(st), st.w].map(rows => n ? rows[0].length : rows.length);
  const [begin, end] = st.p[n];
  return withSizes({i, k, s: st.s[n], d: st.d[n], begin, end, extra: st.op[n]});
}
const axesOf = st => [axisOf(st, 0), axisOf(st, 1)];
const mostOf = axis => axis.i > LIMIT.i ? LIMIT.pixels : LIMIT.o;
const isDrawable = axis =>
  axis.o >= 1 && axis.o <= mostOf(axis) && axis.extra < max(axis.s, axis.d);
const isRow = st => inputOf(st).length === 1 && st.w.length === 1;
function stepsOf(st) {
  const [v, h] = axesOf(st);
  return st.lens === "stamp" ? v.i * h.i : v.o * h.o * (isMany(st) ? st.c[1] : 1);
}
// The first step of a lens: all stamps, or the middle output cell.
function firstStep(st) {
  const [v, h] = axesOf(st);
  return st.lens === "stamp" ? stepsOf(st) : ((v.o - 1) >> 1) * h.o + ((h.o - 1) >> 1) + 1;
}
function exists(st, sel) {
  const [v, h] = axesOf(st), [a, b] = pointOf(sel);
  if (!hasChannels(st, sel)) return false;
  if (sel[0] === "m") return a < v.o * h.o && b < v.i * h.i;
  return a < v[sel[0]] && b < h[sel[0]];
}
const pointOf = sel => sel.slice(1).split(",").map(Number);

// The nearest state that can be drawn; a state that can be drawn stays.
function nearestState(given) {
  const st = copyOf(given), clip = (v, low, high) => min(max(v, low), high);
  const cut = (rows, most) => rows.slice(0, most).map(row => row.slice(0, most));
  st.x = cut(st.x, LIMIT.i);
  st.w = cut(st.w, LIMIT.k);
  for (const n of [0, 1]) {
    st.s[n] = clip(st.s[n], 1, LIMIT.s);
    st.d[n] = clip(st.d[n], 1, LIMIT.d);
    st.p[n] = st.p[n].map(v => clip(v, 0, LIMIT.p));
    for (;;) {
      st.op[n] = clip(st.op[n], 0, max(st.s[n], st.d[n]) - 1);
      const axis = axisOf(st, n);
      if (isDrawable(axis)) break;
      if (axis.o < 1) st.p[n][st.p[n][1] >= st.p[n][0] ? 1 : 0]--;
      else if (st.op[n]) st.op[n]--;
      else if (st.s[n] > st.d[n]) st.s[n]--;
      else st.d[n]--;
    }
  }
  st.step = st.step < 1 ? firstStep(st) : min(st.step, stepsOf(st));
  withChannels(st);
  if (st.sel && !exists(st, st.sel)) st.sel = "";
  return st;
}

// ---- the address --------------------------------------------------------------------------------
// Each setting: the spelling of one axis, its reader and writer, and the default.
const ends = ([begin, end]) => begin === end ? text(begin) : `${begin}-${end}`;
function readEnds(part) {
  const [begin, end = begin] = part.split("-").map(Number);
  return [begin, end];
}
const WHOLE = {spelled: /^\d{1,3}$/, read: Number, show: text};
const SETTINGS = {
  s: {...WHOLE, plain: 1},
  p: {spelled: /^\d{1,3}(-\d{1,3})?$/, read: readEnds, show: ends, plain: [0, 0]},
  d: {...WHOLE, plain: 1},
  op: {...WHOLE, plain: 0},
};

function readMatrix(value) {
  const rows = value.split(";").map(row => row.split(","));
  const right = row => row.length === rows[0].length && row.every(isNumber);
  return rows.every(right) ? rows.map(row => row.map(Number)) : null;
}
function readPair(value, {spelled, read, plain}, row) {
  const parts = value.split("x");
  if (parts.length > 2 || !parts.every(part => spelled.test(part))) return null;
  const [first, second] = parts.map(read);
  return parts.length === 2 ? [first, second] : [row ? plain : first, first];
}

// Read an address: its state, and notes about what is wrong in it.
function parse(hash) {
  const notes = [], found = new Map();
  let raw = String(hash).replace(/^#/, "");
  if (raw.length > LONGEST) {
    notes.push("the link is too long");
    raw = "";
  }
  for (const part of raw.split("&").filter(Boolean)) {
    try {
      const [, key, value] = /^([^=]+)=(.*)$/s.exec(part);
      found.set(key, decodeURIComponent(value));
    } catch {
      notes.push("a part of the link cannot be read");
    }
  }
  const lens = found.get("lens"), st = copyOf(startOf(LENSES.includes(lens) ? lens : START.lens));
  const take = (key, read) => {
    if (!found.has(key)) return;
    const value = read(found.get(key), st);
    if (value === null) notes.push(`${key} is not as it should be`);
    else st[key] = value;
  };
  take("x", readMatrix);
  take("w", readMatrix);
  for (const [key, setting] of Object.entries(SETTINGS)) {
    take(key, value => readPair(value, setting, isRow(st)));
  }
  takeChannels(take);
  take("lens", value => LENSES.includes(value) ? value : null);
  take("step", value => /^\d{1,4}$/.test(value) ? Number(value) : null);
  take("sel", value => /^([oikm]\d{1,4},\d{1,4}(,\d){0,2})?$/.test(value) ? value : null);
  const state = nearestState(st);
  if (["x", "w", ...Object.keys(SETTINGS)].some(key => !same(state[key], st[key]))) {
    notes.push("the settings do not fit each other; these are the nearest that do");
  } else if ((found.has("step") && state.step !== st.step) || state.sel !== st.sel) {
    notes.push("the step or the selection lies outside");
  }
  return {state, notes};
}

const spelled = rows => rows.map(row => row.map(exact).join(",")).join(";");
// Write the address of a state, without what equals the first state of the page.
function hashOf(st, start = START) {
  const parts = [], page = startOf(st.lens, start);
  for (const key of ["x", "w"]) {
    if (spelled(st[key]) !== spelled(page[key])) parts.push(`${key}=${spelled(st[key])}`);
  }
  for (const [key, {show, plain}] of Object.entries(SETTINGS)) {
    const [first, second] = st[key].map(show);
    const both = first === (isRow(st) ? show(plain) : second) ? second : `${first}x${second}`;
    if (!same(st[key], page[key])) parts.push(`${key}=${both}`);
  }
  parts.push(...spelledChannels(st, page));
  if (st.lens !== start.lens) parts.push("lens=" + st.lens);
  if (st.step !== nearestState({...st, step: page.step}).step) parts.push("step=" + st.step);
  if (st.sel !== page.sel) parts.push("sel=" + st.sel);
  return parts.length ? "#" + parts.join("&") : "";
}
