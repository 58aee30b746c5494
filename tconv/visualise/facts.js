// What is true of a state: the arithmetic of facts.py once more, which it is tested against.
const gcd = (a, b) => b ? gcd(b, a % b) : a;
const sum = (all, of = v => v) => all.reduce((total, v, n) => total + of(v, n), 0);
const rowsOf = (flat, cols) => table(flat.length / cols, cols, (r, c) => flat[r * cols + c]);
const coords = (n, cols) => `${floor(n / cols)},${n % cols}`;

// Stamp the kernel of a state for its first few inputs: y[i*s + k*d] += x[i]*w[k], before the crop.
// What else is to be done where input i and tap k meet is told their place.
function stamped(st, axes, most, meet = () => {}) {
  const [v, h] = axes, canvas = table(...axes.map(a => max(a.full, a.begin + a.o)), () => 0);
  for (let i = 0; i < most; i++) {
    const r = floor(i / h.i), c = i % h.i;
    st.w.forEach((taps, k) => taps.forEach((tap, l) => {
      const row = r * v.s + k * v.d, col = c * h.s + l * h.d;
      canvas[row][col] += st.x[r][c] * tap;
      meet(i, k * h.k + l, row - v.begin, col - h.begin);
    }));
  }
  return canvas;
}

function compute(st) {
  const axes = axesOf(st), [v, h] = axes, x = st.x.flat(), w = st.w.flat();
  const pairs = range(v.o * h.o).map(() => []);
  const canvas = stamped(st, axes, x.length, (i, k, row, col) => {
    if (row >= 0 && col >= 0 && row < v.o && col < h.o) pairs[row * h.o + col].push([i, k]);
  });
  const y = canvas.slice(v.begin, v.begin + v.o).map(row => row.slice(h.begin, h.begin + h.o));
  const nonzeros = pairs.flatMap((of, o) => of.map(pair => [o, ...pair]));
  const trivial = same(v, sized({i: 1, k: 1, s: 1, d: 1, begin: 0, end: 0, extra: 0}));
  const own = trivial ? [h] : axes;
  return {
    rank: own.length, x: st.x, w: st.w, y, canvas, input_size: [v.i, h.i],
    kernel_size: [v.k, h.k], output_size: [v.o, h.o], full_size: [v.full, h.full],
    stride: st.s, dilation: st.d, padding: st.p, output_padding: st.op,
    size_formulas: own.map(a => `(${a.i} − 1)·${a.s} − (${a.begin} + ${a.end}) + ` +
      `${a.d}·(${a.k} − 1) + ${a.extra} + 1 = ${a.o}`),
    contributions: pairs,
    equations: pairs.map((of, o) => {
      const name = `y[${coords(o, h.o)}]`;
      const terms = of.map(([i, k]) => `${signed(w[k])}·${signed(x[i])}`);
      if (!of.length) return `${name} = 0, as no tap reaches this cell`;
      return `${name} = ${terms.join(" + ")} = ${text(y[floor(o / h.o)][o % h.o])}`;
    }),
    counts: rowsOf(pairs.map(of => of.length), h.o),
    matrix: {shape: [v.o * h.o, v.i * h.i], nonzeros},
    ...phasesOf(st.w, v, h),
    as_convolution: {
      stretched_size: axes.map(a => (a.i - 1) * a.s + 1),
      border: axes.map(a => [a.reach - 1 - a.begin, a.reach - 1 - a.end + a.extra]),
    },
    get not_the_inverse() { return thereAndBack(x, w, y.flat(), nonzeros, v, h); },
    get code() { return codeOf(own); },
  };
}

function phasesOf(kernel, v, h) {
  const sums = table(v.s, h.s, () => 0), counts = table(v.s, h.s, () => 0);
  kernel.forEach((taps, k) => taps.forEach((tap, l) => {
    sums[k * v.d % v.s][l * h.d % h.s] += tap;
    counts[k * v.d % v.s][l * h.d % h.s]++;
  }));
  const all = sums.flat(), mean = sum(all) / all.length;
  const spread = sum(all, each => (each - mean) ** 2) / all.length;
  const ripple = spread === 0 ? 0 : mean === 0 ? null : Math.sqrt(spread) / abs(mean);
  return {
    phase_counts: counts, phase_sums: sums, ripple,
    ripple_db: ripple ? 20 * Math.log10(ripple) : null,
    even: [v, h].map(a => gcd(a.d, a.s) === 1 && a.k % a.s === 0),
  };
}

// A ramp r of y's shape, W* r and (W*)ᵀ W* r, and both sides of <W* r, x> = <r, y>.
function thereAndBack(x, w, y, nonzeros, v, h) {
  const ramp = y.map((_, o) => o + 1), down = x.map(() => 0), back = y.map(() => 0);
  for (const [o, i, k] of nonzeros) down[i] += w[k] * ramp[o];
  for (const [o, i, k] of nonzeros) back[o] += w[k] * down[i];
  return {
    start: rowsOf(ramp, h.o), convolved: rowsOf(down, h.i), back: rowsOf(back, h.o),
    inner_small: sum(x, (each, i) => each * down[i]),
    inner_large: sum(y, (each, o) => each * ramp[o]),
  };
}
