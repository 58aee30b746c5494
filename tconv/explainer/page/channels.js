// Lens "Channels": x[c] through w[c,m] gives part c of y[m], and the parts are added.
// Selections carry channels behind the place: o and i one, k the input's and the output's.
const MOST_CHANNELS = 3;
const channelOf = sel => pointOf(sel).slice(2);
const isChannels = st => st.lens === "channels";

// Fill what a state lacks of the channels beyond x and w with a pattern; adapt the selection.
function withChannels(st) {
  const [ins, outs] = st.c;
  const grown = (rows, like, at) => like.map((row, r) =>
    row.map((_, c) => rows?.[r]?.[c] ?? at(r * row.length + c)));
  st.xc = range(ins - 1).map(c => grown(st.xc[c], st.x, n => (n * (c + 2) + c + 1) % 10));
  st.wc = table(ins, outs, (c, m) =>
    c + m ? grown(st.wc[c]?.[m], st.w, n => (n + 2 * c + 3 * m) % 5 - 1) : []);
  if (!st.sel) return;
  const [a, b, ...more] = pointOf(st.sel), most = {o: 1, i: 1, k: 2}[st.sel[0]] || 0;
  const channels = isChannels(st) ? range(most).map(n => more[n] ?? 0) : [];
  st.sel = st.sel[0] + [a, b, ...channels];
}
function hasChannels(st, sel) {
  const [c = 0, m = 0] = channelOf(sel), [ins, outs] = st.c;
  return !isChannels(st) || (sel[0] === "o" ? c < outs : sel[0] !== "m" && c < ins && m < outs);
}
// The rows of numbers in which a cell of an input or a kernel stands.
function rowsAt(st, sel) {
  const [c = 0, m = 0] = channelOf(sel);
  if (sel[0] === "i") return c ? st.xc[c - 1] : st.x;
  return c + m ? st.wc[c][m] : st.w;
}
const othersOf = st => ({xc: st.xc, wc: st.wc.flat().slice(1)});

// In the address: c=2x3, and the numbers of further channels with "|" between the matrices.
function takeChannels(take) {
  take("c", value => /^[1-3]x[1-3]$/.test(value) ? value.split("x").map(Number) : null);
  const read = value => {
    const all = value.split("|").map(readMatrix);
    return all.includes(null) ? null : all;
  };
  take("xc", read);
  take("wc", (value, st) => {
    const all = read(value), [ins, outs] = st.c;
    return all && table(ins, outs, (c, m) => all[c * outs + m - 1] || []);
  });
}
function spelledChannels(st, page) {
  const parts = same(st.c, page.c) ? [] : [`c=${st.c.join("x")}`];
  const start = {...copyOf(page), x: st.x, w: st.w, c: st.c};
  withChannels(start);
  const [now, before] = [st, start].map(othersOf);
  for (const key of ["xc", "wc"]) {
    const [words, others] = [now, before].map(each => each[key].map(spelled).join("|"));
    if (words !== others) parts.push(`${key}=${words}`);
  }
  return parts;
}

// ---- facts: parts[m][c], and their sums y[m] ----------------------------------------------------
let channelled = {};
function channelFacts() {
  if (channelled.of === F) return channelled;
  const [ins, outs] = state.c, [v, h] = axes, {s, d} = state;
  const x = range(ins).map(c => rowsAt(state, `i0,0,${c}`));
  const w = table(ins, outs, (c, m) => rowsAt(state, `k0,0,${c},${m}`));
  const cropped = rows => rows.slice(v.begin, v.begin + v.o)
    .map(row => row.slice(h.begin, h.begin + h.o));
  const parts = table(outs, ins, (m, c) =>
    cropped(stamped({x: x[c], w: w[c][m], s, d}, axes, v.i * h.i)));
  const y = parts.map(([first, ...others]) => first.map((row, r) =>
    row.map((value, c) => others.reduce((total, part) => total + part[r][c], value))));
  channelled = {of: F, x, w, parts, y};
  return channelled;
}
const channelStep = () => {
  const [v, h] = axes, at = state.step - 1, size = v.o * h.o;
  return `o${coords(at % size, h.o)},${floor(at / size)}`;
};
function channelCount(sel) {
  const [v, h] = axes, [ins, outs] = state.c, size = v.o * h.o, [m] = channelOf(sel);
  const each = pairsOf(flat(sel)).length, rows = outs * size, cols = ins * v.i * h.i;
  return `${plural(ins * each, "contribution")}: ${each} of each input channel; ` +
    `row ${m * size + flat(sel)} of the ${rows}×${cols} matrix (W*)ᵀ`;
}
const CHANNEL_SENTENCES = {
  o([a, b, m], of, write) {
    const {x, w, parts, y} = channelFacts(), name = `y[${m},${a},${b}]`;
    if (!of.length) return [[`${name} = 0, as no tap reaches this cell`]];
    const equals = write === text ? " = " : " ≈ ", many = x.length > 1;
    const groups = x.map((rows, c) => {
      const values = rows.flat(), taps = w[c][m].flat();
      const terms = of.map(([, i, k]) => [`${signed(taps[k], write)}·${signed(values[i], write)}`, k]);
      return many ? [["("], ...joined(terms, " + "), [")"]] : joined(terms, " + ");
    });
    const totals = parts[m].map(part => signed(part[a][b], write)).join(" + ");
    const sums = groups.flatMap((group, c) => c ? [[" + "], ...group] : group);
    return [[name + equals], ...sums, [many ? equals + totals : ""], [equals + write(y[m][a][b])]];
  },
  i([a, b, c], of) {
    const value = text(channelFacts().x[c][a][b]), [, outs] = state.c;
    const places = of.map(([o, , k]) => [`w[${c},m,${coords(k, axes[1].k)}] onto ${coords(o, axes[1].o)}`, k]);
    return [[`x[${c},${a},${b}] = ${value} is stamped through ${plural(outs, "kernel")} onto every y[m]: `],
      ...places.length ? joined(places, ", ", MOST_TOLD) : [["all of it is cropped away"]]];
  },
  k([a, b, c, m], of) {
    const k = a * axes[1].k + b, value = text(channelFacts().w[c][m][a][b]);
    const uses = of.map(([o, i]) => [`${coords(i, axes[1].i)} → ${coords(o, axes[1].o)}`, k]);
    return [[`w[${c},${m},${a},${b}] = ${value} is tap `], [LETTERS[k], k],
      [` from x[${c}] to y[${m}], used ${plural(of.length, "time")}: `], ...joined(uses, ", ", MOST_TOLD)];
  },
};

// ---- drawing ------------------------------------------------------------------------------------
let output = 0; // the output channel whose parts are shown
function makeChannels() {
  const numbers = range(MOST_CHANNELS).map(n => n + 1);
  byId("tools").append(el("span", {id: "tools-channels"}, ...["in", "out"].flatMap((name, n) => {
    const node = el("select", {"aria-label": `channels ${name}`, "data-control": "c" + n},
      ...numbers.map(each => el("option", {}, text(each))));
    on(node, "change", () => update({...state, c: state.c.map((c, at) => at === n ? +node.value : c)}));
    return [` channels ${name} `, node];
  }), el("span", {class: "hint"}, "  part c of y[m] is x[c] through w[c,m]; the parts are added")));
}
// Panels by name, each at a row and a column of the layout; the others are hidden.
function channelPanel(name, title, row, column) {
  const id = "grid-" + name;
  if (!byId(id)) {
    byId("channels").append(el("div", {class: "panel"}, el("h2"), el("div", {id})));
  }
  const panel = byId(id).parentNode, [head] = panel.children;
  panel.hidden = false;
  panel.style.gridArea = `${row + 1} / ${column + 1}`;
  if (head.textContent !== title) head.textContent = title;
  return id;
}
function drawChannels(sel) {
  const {x, w, parts, y} = channelFacts(), [v, h] = axes, [ins, outs] = state.c, kind = sel[0];
  const [first, second] = channelOf(sel), of = contributionsOf(sel);
  output = min(kind === "o" ? first : kind === "k" ? second : output, outs - 1);
  const room = max(300, innerHeight - 430) / max(ins, outs) - 30;
  for (const panel of byId("channels").children) panel.hidden = true;
  document.querySelectorAll("[data-control=c0], [data-control=c1]").forEach((node, n) => {
    node.value = state.c[n];
  });
  // Draw a grid: its numbers, what it lights by flat index, and the words and name of a cell.
  const put = (id, name, rows, lit, word, cellName, tapped) => {
    const [height, width] = [rows.length, rows[0].length];
    const side = sideFor(max(height, width), room, 60);
    paint(id, name, height, width, side, (r, c) => {
      const at = r * width + c, its = cellName(r, c), tap = tapped ? at : lit.get(at);
      const label = () => `${word} row ${r} column ${c}, value ${text(rows[r][c])}` +
        (tap === undefined ? "" : `, tap ${LETTERS[tap]}`);
      return content(short(rows[r][c], side), its, label, marks(lit.has(at), its), tap);
    });
  };
  // What is lit in the grids of a letter: places and taps of the contributions.
  const light = (name, n, own) => new Map([...of.map(each => [each[n], own === name ? undefined : each[2]]),
    ...(own === name ? [[flat(sel)]] : [])]);
  const none = new Map(), isOn = (letter, c) => kind !== letter || first === c;
  const throughs = c => kind === "o" || first === c;
  x.forEach((rows, c) => {
    put(channelPanel("x" + c, `Input x[${c}]`, c, 0), `input channel ${c}`, rows,
      throughs(c) ? light("i", 1, kind) : none, `input ${c}`, (r, k) => `i${r},${k},${c}`);
    w[c].forEach((kernel, m) => {
      const lit = throughs(c) && (kind === "i" || m === (kind === "k" ? second : first));
      put(channelPanel(`w${c}-${m}`, `w[${c},${m}]`, c, 1 + m), `kernel ${c},${m}`, kernel,
        lit ? light("t", 2, kind) : none, `kernel ${c},${m}`, (r, k) => `k${r},${k},${c},${m}`, true);
    });
    put(channelPanel("p" + c, `${c ? "+ part" : "Part"} ${c} of y[${output}]`, c, 1 + outs),
      `part ${c} of output channel ${output}`, parts[output][c],
      throughs(c) ? light("o", 0, kind) : none, `part ${c}`, (r, k) => `o${r},${k},${output}`);
  });
  y.forEach((rows, m) => {
    const lit = kind === "i" || m === (kind === "k" ? second : first);
    put(channelPanel("y" + m, `${m === output ? "= " : ""}Output y[${m}]`, m, 2 + outs),
      `output channel ${m}`, rows, lit ? light("o", 0, kind) : none, `output ${m}`,
      (r, k) => `o${r},${k},${m}`);
  });
}
