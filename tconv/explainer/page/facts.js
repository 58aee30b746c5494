// Facts of a state, the same arithmetic as that of facts.py; a test compares the bits.
const gcd = (a, b) => b ? gcd(b, a % b) : a;
const sum = (all, of = v => v) => all.reduce((total, v, n) => total + of(v, n), 0);
const rowsOf = (flat, cols) => table(flat.length / cols, cols, (r, c) => flat[r * cols + c]);
const coords = (n, cols) => `${floor(n / cols)},${n % cols}`;

// Scatter-add the stamps of the first few inputs, before the crop: y[i*s + k*d] += x[i]*w[k].
function stamped(st, axes, most) {
  const [v, h] = axes, x = inputOf(st);
  const canvas = table(...axes.map(a => max(a.full, a.begin + a.o)), () => 0);
  for (let i = 0; i < most; i++) {
    const r = floor(i / h.i), c = i % h.i, value = x[r][c];
    st.w.forEach((taps, k) => {
      const row = canvas[r * v.s + k * v.d];
      taps.forEach((tap, l) => { row[c * h.s + l * h.d] += value * tap; });
    });
  }
  return canvas;
}
// For each output along an axis, the pairs of input and tap that it sums.
function pairsAlong({i, k, s, d, o, begin}) {
  const met = range(o).map(() => []);
  for (let a = 0; a < i; a++) for (let b = 0; b < k; b++) met[a * s + b * d - begin]?.push([a, b]);
  return met;
}

// The facts of a state, and functions of one output. Long lists are made when they are read: the
// garbage collector is slow with thousands of small arrays that stay alive.
function compute(st) {
  const axes = axesOf(st), [v, h] = axes, x = inputOf(st).flat(), w = st.w.flat();
  const canvas = stamped(st, axes, x.length), [down, over] = axes.map(pairsAlong);
  const y = canvas.slice(v.begin, v.begin + v.o).map(row => row.slice(h.begin, h.begin + h.o));
  const each = make => range(v.o * h.o).map(make);
  const pairsOf = o => down[floor(o / h.o)].flatMap(
    ([i, k]) => over[o % h.o].map(([j, l]) => [i * h.i + j, k * h.k + l]));
  const outputOf = (i, k) => {
    const row = floor(i / h.i) * v.s + floor(k / h.k) * v.d - v.begin;
    const col = i % h.i * h.s + k % h.k * h.d - h.begin;
    return row >= 0 && col >= 0 && row < v.o && col < h.o ? row * h.o + col : -1;
  };
  const nonzeros = () => each(o => pairsOf(o).map(pair => [o, ...pair])).flat();
  const equationOf = (o, write = text) => {
    const name = `y[${coords(o, h.o)}]`, equals = write === text ? " = " : " ≈ ";
    const terms = pairsOf(o).map(([i, k]) => `${signed(w[k], write)}·${signed(x[i], write)}`);
    if (!terms.length) return `${name} = 0, as no tap reaches this cell`;
    return name + equals + terms.join(" + ") + equals + write(y[floor(o / h.o)][o % h.o]);
  };
  const trivial = same(v, withSizes({i: 1, k: 1, s: 1, d: 1, begin: 0, end: 0, extra: 0}));
  const own = trivial ? [h] : axes;
  const facts = {
    rank: own.length, x: inputOf(st), w: st.w, y, canvas, input_size: [v.i, h.i],
    kernel_size: [v.k, h.k], output_size: [v.o, h.o], full_size: [v.full, h.full],
    stride: st.s, dilation: st.d, padding: st.p, output_padding: st.op,
    size_formulas: own.map(a => `(${a.i} − 1)·${a.s} − (${a.begin} + ${a.end}) + ` +
      `${a.d}·(${a.k} − 1) + ${a.extra} + 1 = ${a.o}`),
    get contributions() { return each(pairsOf); },
    get equations() { return each(o => equationOf(o)); },
    counts: table(v.o, h.o, (r, c) => down[r].length * over[c].length),
    matrix: {shape: [v.o * h.o, v.i * h.i], get nonzeros() { return nonzeros(); }},
    ...phasesOf(st.w, v, h),
    as_convolution: {
      stretched_size: axes.map(a => (a.i - 1) * a.s + 1),
      border: axes.map(a => [a.reach - 1 - a.begin, a.reach - 1 - a.end + a.extra]),
    },
    get not_the_inverse() { return notTheInverse(x, w, y.flat(), nonzeros(), v, h); },
    get code() { return codeOf(own); },
  };
  return {facts, pairsOf, outputOf, equationOf};
}

function phasesOf(kernel, v, h) {
  const sumByPhase = of => {
    const sums = table(v.s, h.s, () => 0);
    kernel.forEach((taps, k) => taps.forEach((tap, l) => {
      sums[k * v.d % v.s][l * h.d % h.s] += of(tap);
    }));
    return sums;
  };
  // Ripple does not depend on the scale of the kernel; at this one, no square overflows.
  const biggest = max(...kernel.flat().map(abs));
  const scale = 2 ** min(floor(Math.log2(biggest || 1)), 1e3);
  const all = sumByPhase(tap => tap / scale).flat(), mean = sum(all) / all.length;
  const spread = sum(all, each => (each - mean) ** 2) / all.length;
  const ripple = spread === 0 ? 0 : mean === 0 ? null : Math.sqrt(spread) / abs(mean);
  return {
    phase_counts: sumByPhase(() => 1), phase_sums: sumByPhase(tap => tap), ripple,
    ripple_db: ripple ? 20 * Math.log10(ripple) : null,
    even: [v, h].map(a => gcd(a.d, a.s) === 1 && a.k % a.s === 0),
  };
}

// A ramp r of y's shape, W* r, (W*)ᵀ W* r, and both sides of <W* r, x> = <r, y>.
function notTheInverse(x, w, y, nonzeros, v, h) {
  const ramp = y.map((_, o) => o + 1), down = x.map(() => 0), back = y.map(() => 0);
  for (const [o, i, k] of nonzeros) down[i] += w[k] * ramp[o];
  for (const [o, i, k] of nonzeros) back[o] += w[k] * down[i];
  return {
    start: rowsOf(ramp, h.o), convolved: rowsOf(down, h.i), back: rowsOf(back, h.o),
    inner_small: sum(x, (each, i) => each * down[i]),
    inner_large: sum(y, (each, o) => each * ramp[o]),
  };
}
