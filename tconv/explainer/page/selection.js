// Selection: the cells that it highlights, and the sentence about it.
// A selection is a letter and two numbers: o, i and k are a cell of the output, the input and the
// kernel, m is an entry of the matrix, c a cell before the crop; fs, fp, fd and fo are the symbols
// s, p, d and op of the formula.
const LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
let state, axes, F, pairsOf, outputOf, equationOf, hover = "", turned = false;

function stepSelection() {
  if (isMany(state)) return channelStep();
  const stamp = state.lens === "stamp", cols = axes[1][stamp ? "i" : "o"];
  return (stamp ? "i" : "o") + coords(state.step - 1, cols);
}
const active = () => hover || state.sel || stepSelection();
const flat = sel => {
  const [a, b] = pointOf(sel);
  return a * axes[1][sel[0]] + b;
};
const canvasIndex = o => {
  const [v, h] = axes;
  return (floor(o / h.o) + v.begin) * F.canvas[0].length + o % h.o + h.begin;
};
// The products that a selected cell takes part in, as [output, input, tap].
function contributionsOf(sel) {
  const kind = sel[0], at = flat(sel), [a, b] = pointOf(sel);
  const meet = (i, k) => [outputOf(i, k), i, k];
  const met = kind === "o" ? pairsOf(at).map(pair => [at, ...pair])
    : kind === "m" ? pairsOf(a).filter(([i]) => i === b).map(pair => [a, ...pair])
    : kind === "i" ? F.w.flat().map((_, k) => meet(at, k))
    : kind === "k" ? F.x.flat().map((_, i) => meet(i, at)) : [];
  return met.filter(([o]) => o >= 0);
}

// Highlighted inputs, taps, cells of the canvas and entries of the matrix: maps from flat indices
// to taps, or to undefined.
function highlightsOf(sel) {
  const x = new Map(), w = new Map(), y = new Map(), m = new Map();
  const kind = sel[0], at = flat(sel), [a, b] = pointOf(sel), cols = F.canvas[0].length;
  const light = (o, i, k) => {
    x.set(i, k);
    y.set(canvasIndex(o), k);
    m.set(o * F.matrix.shape[1] + i, k);
    if (k !== undefined) w.set(k, k);
  };
  if (kind === "m") light(a, b);
  for (const contribution of contributionsOf(sel)) light(...contribution);
  if (kind === "o") y.set(canvasIndex(at));
  if (kind === "i") x.set(at);
  if (kind === "k") w.set(at, at);
  if (kind === "c") y.set(a * cols + b);
  const [v, h] = axes;
  if (sel === "fs") F.x.forEach((row, i) => row.forEach((_, j) => y.set(i * v.s * cols + j * h.s)));
  if (sel === "fd") {
    F.w.forEach((taps, k) => taps.forEach((_, l) => y.set(k * v.d * cols + l * h.d, k * h.k + l)));
  }
  return {x, w, y, m};
}

// ---- the sentence, in pieces [text, tap] --------------------------------------------------------
function joined(pieces, between, most = Infinity) {
  const all = pieces.slice(0, most).flatMap((piece, n) => n ? [[between], piece] : [piece]);
  return pieces.length > most ? [...all, [`, and ${pieces.length - most} more`]] : all;
}
const nameX = i => `x[${coords(i, axes[1].i)}]`, nameY = o => `y[${coords(o, axes[1].o)}]`;
const MOST_TOLD = 16;

const SENTENCES = {
  o([a, b], of, write) {
    const [name, equals, ...rest] = equationOf(a * axes[1].o + b, write).split(/( [=≈] )/);
    const [terms, , value] = rest;
    if (!value) return [[name + equals + terms]];
    const pieces = terms.split(" + ").map((term, n) => [term, of[n][2]]);
    return [[name + equals], ...joined(pieces, " + "), [equals + value]];
  },
  i([a, b], of, write) {
    const x = signed(F.x[a][b], write), w = F.w.flat();
    const places = of.map(([o, , k]) => [`${signed(w[k], write)}·${x} onto ${nameY(o)}`, k]);
    const pieces = of.length ? joined(places, ", ", MOST_TOLD) : [["all of it is cropped away"]];
    return [[`x[${a},${b}] = ${text(F.x[a][b])} is stamped through the kernel: `], ...pieces];
  },
  k([a, b], of) {
    const k = a * axes[1].k + b, uses = of.map(([o, i]) => [`${nameX(i)} → ${nameY(o)}`, k]);
    const name = `w[${a},${b}] = ${text(F.w[a][b])} is tap `, often = plural(of.length, "time");
    return [[name], [LETTERS[k], k], [`, used ${often}: `], ...joined(uses, ", ", MOST_TOLD)];
  },
  m([a, b], [contribution]) {
    const name = turned ? `W*[${b},${a}]` : `(W*)ᵀ[${a},${b}]`;
    if (!contribution) return [[`${name} = 0: ${nameX(b)} and ${nameY(a)} are not connected`]];
    const k = contribution[2], joins = ` joins ${nameX(b)} to ${nameY(a)}`;
    return [[`${name} = ${text(F.w.flat()[k])}: tap `], [LETTERS[k], k], [joins]];
  },
  c([a, b]) {
    const value = text(F.canvas[a][b]);
    return [[`This cell is computed, as ${value}, and then cropped away by the padding`]];
  },
};
const SYMBOLS = {
  fs: () => `stride: copies of the kernel start ${cellsApart(F.stride)}`,
  fp: () => "padding crops the output: the dashed cells are computed and dropped",
  fd: () => `dilation: neighbouring taps land ${cellsApart(F.dilation)}`,
  fo: () => "output_padding adds cells at the end; they are computed like all others",
};
const plural = (n, word) => `${n} ${word}${n == 1 ? "" : "s"}`;
const cellsApart = v => `${plural(perAxis(v), "cell")} apart`;
const LONGEST_SUM = 240; // characters of a sum with all its digits
const wordsOf = pieces => pieces.map(([piece]) => piece).join("");
// The sentence with all digits, and the shown one, whose numbers are rounded if it is long.
function sentencesOf(sel) {
  if (SYMBOLS[sel]) return Array(2).fill([[SYMBOLS[sel]()]]);
  const sentences = isMany(state) ? CHANNEL_SENTENCES : SENTENCES;
  const tell = write => sentences[sel[0]](pointOf(sel), contributionsOf(sel), write);
  const whole = tell(text), isLong = wordsOf(whole).length > LONGEST_SUM;
  return [whole, isLong ? tell(v => short(v)) : whole];
}
