// Settings: selects that offer the valid values, and presets of numbers.
const upTo = (low, high) => range(high - low + 1).map(n => n + low);
// Each setting: label, fields of an axis, and values.
const CHOICES = [
  ["size", ["i"], upTo(1, LIMIT.i)], ["kernel", ["k"], upTo(1, LIMIT.k)],
  ["stride", ["s"], upTo(1, LIMIT.s)], ["padding", ["begin", "end"], upTo(0, LIMIT.p)],
  ["dilation", ["d"], upTo(1, LIMIT.d)], ["output padding", ["extra"], upTo(0, LIMIT.s - 1)],
];
const PRESETS = [
  ["Input", "x", ["1…n", "ones", "impulse", "random"]],
  ["Kernel", "w", ["example", "ones", "bilinear", "nearest", "random"]],
];
const selects = [];
let separateAxes = false; // whether rows and columns have selects of their own
const needsApart = st => isRow(st) ? st.p[1][0] !== st.p[1][1]
  : !same(...axesOf(st)) || st.p.some(([begin, end]) => begin !== end);

// The axes that a select changes, and their fields.
const changed = (key, n) => separateAxes ? [n] : F.rank === 1 ? [1] : [0, 1];
const fields = key => key === "begin" && !separateAxes ? ["begin", "end"] : [key];
function isPossible(key, n, value) {
  const set = Object.fromEntries(fields(key).map(field => [field, value]));
  return changed(key, n).every(axis => isDrawable(withSizes({...axes[axis], ...set})));
}
function choose(key, n, value) {
  const next = copyOf(state);
  for (const axis of changed(key, n)) {
    for (const field of fields(key)) assign(next, field, axis, value);
  }
  update(next);
}
function assign(st, field, axis, value) {
  if (field === "begin" || field === "end") st.p[axis][field === "begin" ? 0 : 1] = value;
  else if (field === "extra") st.op[axis] = value;
  else if (field === "s" || field === "d") st[field][axis] = value;
  else {
    const letter = field === "i" ? "x" : "w", old = st[letter];
    st[letter] = resized(st, letter, axis ? [old.length, value] : [value, old[0].length]);
  }
}

// The array of another size. One that grows continues its pattern: that of a preset, or equal steps
// along rows and columns, or else it repeats.
function resized(st, key, [rows, cols]) {
  const old = st[key], shape = [old.length, old[0].length];
  const sized = (height, width) => ({...st, [key]: table(height, width, () => 0)});
  const kept = table(rows, cols, (r, c) => old[r]?.[c]);
  if (rows <= shape[0] && cols <= shape[1]) return kept;
  for (const name of PRESETS.find(([, letter]) => letter === key)[2]) {
    if (name !== "random" && same(filled(key, name, sized(...shape))[key], old)) {
      return filled(key, name, sized(rows, cols))[key];
    }
  }
  const step = n => shape[n] > 1 ? (n ? old[0][1] : old[1][0]) - old[0][0] : null;
  const [down, right] = [step(0) ?? step(1), step(1) ?? step(0)];
  const line = (r, c) => old[0][0] + r * (down ?? 0) + c * (right ?? 0);
  const isLine = old.every((row, r) => row.every((value, c) => value === line(r, c)));
  return table(rows, cols, isLine ? line : (r, c) => old[r % shape[0]][c % shape[1]]);
}

const random = most => floor(Math.random() * most);
function filled(key, name, from = state) {
  const next = copyOf(from), rows = next[key].length, cols = next[key][0].length;
  const tent = (k, size, s) => max(0, 1 - abs(k - (size - 1) / 2) / s);
  const ramp = (r, c) => r * cols + c + 1;
  const value = {
    "1…n": ramp,
    example: ramp,
    ones: () => 1,
    impulse: (r, c) => r === rows >> 1 && c === cols >> 1 ? 1 : 0,
    bilinear: (r, c) => tent(r, rows, next.s[0]) * tent(c, cols, next.s[1]),
    nearest: (r, c) => r < next.s[0] && c < next.s[1] ? 1 : 0,
    random: () => key === "x" ? random(10) : random(19) - 9,
  }[name];
  next[key] = table(rows, cols, value);
  if (isMany(next)) {
    const again = each => each.map(() => table(rows, cols, value));
    if (key === "x") next.xc = again(next.xc);
    else next.wc = next.wc.map(again);
  }
  return next;
}

function makeSettings() {
  const listening = (node, change) => {
    on(node, "change", () => change(node));
    return node;
  };
  const selectFor = (key, n, label, values) => {
    const node = listening(el("select", {"data-control": key + n}),
      () => choose(key, n, Number(node.value)));
    selects.push({node, key, n, label, values});
    return node;
  };
  const preset = ([label, key, names]) => el("span", {}, `${label}: `, listening(
    el("select", {"aria-label": `${label} values`, "data-control": key},
      ...["–", ...names].map(name => el("option", {}, name))),
    node => node.value === "–" || update(filled(key, node.value))));
  const tick = listening(el("input", {type: "checkbox", "data-control": "apart"}), () => {
    separateAxes = tick.checked;
    drawSettings();
  });
  byId("controls").prepend(
    ...CHOICES.map(([label, keys, values]) => el("span", {}, label + " ",
      ...[0, 1].flatMap(n => keys.map(key => el("label", {}, el("i", {class: "hint"}),
        selectFor(key, n, label, values)))))),
    el("label", {}, tick, " rows ≠ columns"), ...PRESETS.map(preset));
}
function drawSettings() {
  byId("controls").querySelector("[data-control=apart]").checked = separateAxes;
  for (const {node, key, n, label, values} of selects) {
    node.hidden = !separateAxes && (n === 0 || key === "end");
    const place = [label, n ? "columns" : "rows", ...(label === "padding" ? [key] : [])].join(", ");
    node.ariaLabel = separateAxes ? place : label;
    node.previousSibling.textContent = label === "padding" && separateAxes
      ? ` ${SIDES[2 * n + (key === "end")]} ` : "";
    const now = axes[n][key], offered = values.filter(v => v === now || isPossible(key, n, v));
    const {s, d} = axes[n], alone = key === "extra" && offered.length === 1 && max(s, d) <= 1;
    node.title = key !== "extra" ? "" : "smaller than the larger of stride and dilation, " +
      max(s, d) + (alone ? ": only 0 fits, raise one of the two" : "");
    fill(node, String([offered, alone]), () => offered.map(v =>
      el("option", {value: v}, alone ? "0 (s = d = 1)" : text(v))));
    node.value = now;
  }
}
