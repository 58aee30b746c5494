// Lens "Channels": x[c] through w[c,m] gives part c of y[m], and the parts are added.
// Selections name channels behind the place: o and i one, k those of the input and the output.
const isMany = st => st.lens === "channels";
const channelOf = sel => pointOf(sel).slice(2);

// Fill what a state lacks of the channels beyond x and w with a pattern; adapt the selection.
function withChannels(st) {
  const grown = (rows, like, value) => like.map((row, r) =>
    row.map((_, k) => rows?.[r]?.[k] ?? value(2 * r + k)));
  st.xc = range(st.c[0] - 1).map(c => grown(st.xc[c], st.x, n => (n * (c + 2) + c + 1) % 10));
  st.wc = table(...st.c, (c, m) =>
    c + m ? grown(st.wc[c]?.[m], st.w, n => (n + 2 * c + 3 * m) % 5 - 1) : []);
  if (!st.sel) return st;
  const [a, b, ...more] = pointOf(st.sel), count = isMany(st) && {o: 1, i: 1, k: 2}[st.sel[0]] || 0;
  st.sel = st.sel[0] + [a, b, ...range(count).map(n => more[n] || 0)];
  return st;
}
function hasChannels(st, sel) {
  const [c = 0, m = 0] = channelOf(sel), [ins, outs] = st.c;
  return !isMany(st) || (sel[0] === "o" ? c < outs : sel[0] !== "m" && c < ins && m < outs);
}
// The rows of numbers in which a cell of an input or a kernel stands.
function rowsAt(st, sel) {
  const [c = 0, m = 0] = channelOf(sel);
  return sel[0] === "i" ? c ? st.xc[c - 1] : st.x : c + m ? st.wc[c][m] : st.w;
}

// In the address: c=2x3, and the numbers of further channels, with "|" between the matrices.
function takeChannels(take) {
  const read = value => {
    const all = value.split("|").map(readMatrix);
    return all.includes(null) ? null : all;
  };
  take("c", value => /^[1-3]x[1-3]$/.test(value) ? value.split("x").map(Number) : null);
  take("xc", read);
  take("wc", (value, {c}) => {
    const all = read(value);
    return all && table(...c, (n, m) => all[n * c[1] + m - 1]);
  });
}
function spelledChannels(st, page) {
  const {x, w, c} = st, start = withChannels({...copyOf(page), x, w, c});
  const words = (from, key) => from[key].flat(key === "wc" ? 1 : 0).slice(key === "wc" ? 1 : 0)
    .map(spelled).join("|");
  const others = ["xc", "wc"].filter(key => words(st, key) !== words(start, key));
  return [...same(c, page.c) ? [] : [`c=${c.join("x")}`],
    ...others.map(key => `${key}=${words(st, key)}`)];
}

// ---- facts: parts[m][c], and their sums y[m], the same as those of channels.py ------------------
let many = {};
function channelFacts() {
  if (many.of === F) return many;
  const [v, h] = axes, [ins, outs] = state.c;
  const x = range(ins).map(c => rowsAt(state, `i0,0,${c}`));
  const w = table(ins, outs, (c, m) => rowsAt(state, `k0,0,${c},${m}`));
  const parts = table(outs, ins, (m, c) =>
    stamped({...state, x: x[c], w: w[c][m]}, axes, v.i * h.i)
      .slice(v.begin, v.begin + v.o).map(row => row.slice(h.begin, h.begin + h.o)));
  const y = parts.map(of => table(v.o, h.o, (r, k) =>
    of.slice(1).reduce((total, part) => total + part[r][k], of[0][r][k])));
  return many = {of: F, x, w, parts, y};
}
function channelStep() {
  const [v, h] = axes, at = state.step - 1, size = v.o * h.o;
  return `o${coords(at % size, h.o)},${floor(at / size)}`;
}
function channelCount(sel) {
  const [v, h] = axes, [ins, outs] = state.c, size = v.o * h.o;
  const each = pairsOf(flat(sel)).length, row = channelOf(sel)[0] * size + flat(sel);
  return `${plural(ins * each, "contribution")}, ${each} of each input channel; ` +
    `row ${row} of (W*)ᵀ (${outs * size}×${ins * v.i * h.i})`;
}
const cropped = [["all of it is cropped away"]];
const usesOf = uses => uses.length ? joined(uses, ", ", MOST_TOLD) : cropped;
const place = (name, ...at) => `${name}[${at}]`;
const CHANNEL_SENTENCES = {
  o([a, b, m], of, write) {
    const {x, w, parts, y} = channelFacts(), name = `y[${m},${a},${b}]`;
    const equals = write === text ? " = " : " ≈ ", [left, right] = x.length > 1 ? "()" : ["", ""];
    if (!of.length) return [[`${name} = 0, as no tap reaches this cell`]];
    const groups = x.flatMap((rows, c) => {
      const values = rows.flat(), taps = w[c][m].flat();
      const term = (tap, value) => `${signed(tap, write)}·${signed(value, write)}`;
      const terms = of.map(([, i, k]) => [term(taps[k], values[i]), k]);
      return [[(c ? " + " : "") + left], ...joined(terms, " + "), [right]];
    });
    const sums = parts[m].map(part => signed(part[a][b], write)).join(" + ");
    return [[name + equals], ...groups, [(left && equals + sums) + equals + write(y[m][a][b])]];
  },
  i([a, b, c], of) {
    const value = text(channelFacts().x[c][a][b]), [, {k: wide, o: across}] = axes;
    const uses = of.map(([o, , k]) =>
      [`${place("w", c, "m", coords(k, wide))} onto ${place("y", "m", coords(o, across))}`, k]);
    return [[`${place("x", c, a, b)} = ${value}, for every m: `], ...usesOf(uses)];
  },
  k([a, b, c, m], of) {
    const value = text(channelFacts().w[c][m][a][b]), k = flat(`k${a},${b}`);
    const uses = of.map(([o, i]) =>
      [`${place("x", c, coords(i, axes[1].i))} → ${place("y", m, coords(o, axes[1].o))}`, k]);
    return [[`${place("w", c, m, a, b)} = ${value} is tap `], [LETTERS[k], k], [", used: "],
      ...usesOf(uses)];
  },
};

// ---- drawing ------------------------------------------------------------------------------------
const sideFor = (n, room, most) => round(min(most, max(24, room / n)));
const MOST_SHOWN = 12; // cells along a side of an output; of a larger one a part is shown
let shownOutput = 0, shownFrom = [0, 0]; // the channel whose parts are shown, the first cell
function makeChannels() {
  const choice = n => {
    const name = "channels " + ["in", "out"][n];
    const node = el("select", {"aria-label": name, "data-control": "c" + n},
      ...[1, 2, 3].map(each => el("option", {}, text(each))));
    on(node, "change", () => update({...state, c: state.c.with(n, Number(node.value))}));
    return node;
  };
  byId("tools").append(el("span", {"data-for": "channels"}, "channels in ", choice(0), " out ",
    choice(1), el("span", {class: "hint"}, " part c of y[m] is x[c] through w[c,m]")));
}
function drawChannels(sel) {
  const {x, w, parts, y} = channelFacts(), [ins, outs] = state.c, kind = sel[0];
  const [first, second] = channelOf(sel), of = contributionsOf(sel);
  const chosen = kind === "o" ? first : kind === "k" ? second : shownOutput;
  const m = shownOutput = min(chosen ?? 0, outs - 1);
  const room = max(300, innerHeight - 430) / max(ins, outs) - 30;
  // Side by side if they fit; else parts and outputs stand below the kernels.
  const wide = axes[1], kernels = wide.i + outs * wide.k, free = innerWidth - 60 - 26 * outs;
  const fits = (free - 100) / (kernels + 2 * min(wide.o, MOST_SHOWN));
  const narrow = fits < 24 || innerWidth < 400 + 90 * outs; // where titles need the room
  // The places that the contributions have in inputs, kernels and outputs, with their taps.
  const lit = (letter, n) => new Map([...of.map(each => [each[n], each[2]]),
    ...letter === kind ? [[flat(sel), letter === "k" ? flat(sel) : undefined]] : []]);
  const [onX, onW, onY] = [lit("i", 1), lit("k", 2), lit("o", 0)], none = new Map();
  const through = c => kind === "o" || first === c, to = n => kind === "i" || n === m;
  for (const panel of byId("channels").children) panel.hidden = true;
  document.querySelectorAll("[data-control^=c]").forEach((node, n) => { node.value = state.c[n]; });
  shownFrom = axes.map((a, n) => {
    const at = kind === "o" ? pointOf(sel)[n] : shownFrom[n], last = shownFrom[n] + MOST_SHOWN - 1;
    const from = at >= shownFrom[n] && at <= last ? shownFrom[n] : at - (MOST_SHOWN >> 1);
    return max(0, min(from, a.o - MOST_SHOWN));
  });
  const put = (name, row, column, title, rows, found, cellName, sign = "") => {
    const id = "grid-" + name, full = [rows.length, rows[0].length];
    const [height, width] = full.map(n => min(n, MOST_SHOWN));
    const [top, left] = full.map((n, at) => n > MOST_SHOWN ? shownFrom[at] : 0);
    const cut = full.some(n => n > MOST_SHOWN) && ` from ${top},${left}, of ${full.join("×")}`;
    if (!byId(id)) {
      const head = el("h2", {id: "title-" + name});
      byId("channels").append(el("div", {class: "panel"}, head, el("div", {id})));
    }
    const panel = byId(id).parentNode, below = narrow && column > outs;
    const most = below ? 34 : min(60, narrow ? free / kernels : fits);
    const side = sideFor(max(height, width), room, most);
    panel.hidden = false;
    panel.style.gridArea = below
      ? `${(column - outs) * ins + row + 1} / 1 / auto / span ${outs + 1}`
      : `${row + 1} / ${column + 1}`;
    setText("title-" + name, sign + title + (cut || ""));
    paint(id, title, height, width, side, (u, v) => {
      const r = top + u, k = left + v, at = r * full[1] + k, its = cellName(r, k);
      const tap = its[0] === "k" ? at : found.get(at);
      const label = () => `${title} row ${r} column ${k}, value ${text(rows[r][k])}` +
        (tap === undefined ? "" : `, tap ${LETTERS[tap]}`);
      return content(short(rows[r][k], side), its, label, marks(found.has(at), its), tap);
    });
  };
  for (const c of range(ins)) {
    put("x" + c, c, 0, `Input x[${c}]`, x[c], through(c) ? onX : none, (r, k) => `i${r},${k},${c}`);
    for (const n of range(outs)) {
      put(`w${c}-${n}`, c, 1 + n, `w[${c},${n}]`, w[c][n], through(c) && to(n) ? onW : none,
        (r, k) => `k${r},${k},${c},${n}`);
    }
    put("p" + c, c, 1 + outs, `part ${c}`, parts[m][c], through(c) ? onY : none,
      (r, k) => `o${r},${k},${m}`, c ? "+ " : `y[${m}] = `);
  }
  for (const n of range(outs)) {
    put("y" + n, n, 2 + outs, `Output y[${n}]`, y[n], to(n) ? onY : none,
      (r, k) => `o${r},${k},${n}`, n === m ? "= " : "");
  }
}
