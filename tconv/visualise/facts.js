// What is true of a state: the arithmetic of facts.py once more, which it is tested against.
// ---- the arithmetic -----------------------------------------------------------------------------------
const zeros = (rows, cols) => range(rows).map(() => Array(cols).fill(0));
function scatter(x, w, ax, size, begin) {              // y[i*s - p + k*d] += x[i]*w[k]
  const y = zeros(...size);
  x.forEach((row, i) => row.forEach((v, j) => w.forEach((taps, k) => taps.forEach((t, l) => {
    const a = i * ax[0].s + k * ax[0].d - begin[0], b = j * ax[1].s + l * ax[1].d - begin[1];
    if (a >= 0 && b >= 0 && a < size[0] && b < size[1]) y[a][b] += v * t;
  }))));
  return y;
}
function gather(y, w, ax, size) {                      // x[i] += y[i*s - p + k*d]*w[k]
  return range(size[0]).map(i => range(size[1]).map(j => {
    let sum = 0;
    w.forEach((taps, k) => taps.forEach((t, l) => {
      const v = (y[i * ax[0].s + k * ax[0].d - ax[0].begin] || [])[j * ax[1].s + l * ax[1].d - ax[1].begin];
      if (v !== undefined) sum += v * t;
    }));
    return sum;
  }));
}
const inner = (a, b) => a.flat().reduce((sum, v, n) => sum + v * b.flat()[n], 0);
const ones = rows => rows.map(row => row.map(() => 1));
const gcd = (a, b) => b ? gcd(b, a % b) : a;

function compute(st) {
  const ax = [0, 1].map(n => { const {i, k} = sizeOf(st, n), [begin, end] = st.p[n];
    return {i, k, s: st.s[n], d: st.d[n], begin, end, extra: st.op[n], o: outputOf(st, n), full: (i - 1) * st.s[n] + st.d[n] * (k - 1) + 1}; });
  const [v, h] = ax, size = [v.o, h.o], begin = [v.begin, h.begin];
  const rank = v.i === 1 && v.k === 1 && v.s === 1 && v.d === 1 && v.o === 1 && !v.begin && !v.end && !v.extra ? 1 : 2;
  const own = rank === 1 ? [h] : ax;
  const y = scatter(st.x, st.w, ax, size, begin);
  const pairs = range(v.o * h.o).map(() => []);
  for (const i of range(v.i)) for (const j of range(h.i)) for (const k of range(v.k)) for (const l of range(h.k)) {
    const a = i * v.s + k * v.d - v.begin, b = j * h.s + l * h.d - h.begin;
    if (a >= 0 && b >= 0 && a < v.o && b < h.o) pairs[a * h.o + b].push([i * h.i + j, k * h.k + l]);
  }
  const x1 = st.x.flat(), w1 = st.w.flat(), y1 = y.flat();
  const sums = zeros(v.s, h.s), counts = zeros(v.s, h.s);
  st.w.forEach((taps, k) => taps.forEach((t, l) => { const a = k * v.d % v.s, b = l * h.d % h.s; sums[a][b] += t; counts[a][b]++; }));
  const all = sums.flat(), mean = all.reduce((a, b) => a + b) / all.length;
  const spread = all.reduce((a, b) => a + (b - mean) ** 2, 0) / all.length;
  const ripple = spread === 0 ? 0 : mean === 0 ? null : Math.sqrt(spread) / Math.abs(mean);
  const ramp = range(v.o).map(r => range(h.o).map(c => r * h.o + c + 1));
  const down = gather(ramp, st.w, ax, [v.i, h.i]);
  const canvas = ax.map(a => Math.max(a.full, a.begin + a.o));
  return {
    rank, x: st.x, w: st.w, y, input_size: [v.i, h.i], kernel_size: [v.k, h.k], output_size: size,
    stride: st.s, dilation: st.d, padding: st.p, output_padding: st.op,
    full_size: [v.full, h.full], canvas: scatter(st.x, st.w, ax, canvas, [0, 0]),
    size_formulas: own.map(a => `(${a.i} − 1)·${a.s} − (${a.begin} + ${a.end}) + ${a.d}·(${a.k} − 1) + ${a.extra} + 1 = ${a.o}`),
    contributions: pairs,
    equations: pairs.map((of, o) => { const name = `y[${Math.floor(o / h.o)},${o % h.o}]`;
      return of.length ? `${name} = ${of.map(([i, k]) => `${signed(w1[k])}·${signed(x1[i])}`).join(" + ")} = ${text(y1[o])}` : `${name} = 0, as no tap reaches this cell`; }),
    counts: scatter(ones(st.x), ones(st.w), ax, size, begin),
    matrix: {shape: [v.o * h.o, v.i * h.i], nonzeros: pairs.flatMap((of, o) => of.map(pair => [o, ...pair]))},
    phase_counts: counts, phase_sums: sums, even: ax.map(a => gcd(a.d, a.s) === 1 && a.k % a.s === 0),
    ripple, ripple_db: ripple ? 20 * Math.log10(ripple) : null,
    as_convolution: {stretched_size: ax.map(a => (a.i - 1) * a.s + 1), border: ax.map(a => [a.d * (a.k - 1) - a.begin, a.d * (a.k - 1) - a.end + a.extra])},
    not_the_inverse: {start: ramp, convolved: down, back: scatter(down, st.w, ax, size, begin), inner_small: inner(down, st.x), inner_large: inner(ramp, y)},
    code: codeOf(own),
  };
}

// ---- code in other libraries ---------------------------------------------------------------------------
function codeOf(ax) {
  const of = f => ax.map(f), rank = ax.length, strides = of(a => a.s), dilations = of(a => a.d);
  const strided = Math.max(...strides) > 1, dilated = Math.max(...dilations) > 1;
  const stride = strided ? `, stride=${perAxis(strides)}` : "", dilation = dilated ? `, dilation=${perAxis(dilations)}` : "";
  const extras = (padding, v) => padding + (v.some(Boolean) ? `, output_padding=${perAxis(v)}` : "");
  const more = said => said === "padding=0" ? "" : ", " + said;
  const ends = ax.every(a => a.begin === a.end) ? perAxis(of(a => a.begin)) : tuple(of(a => tuple([a.begin, a.end])));
  const own = extras("padding=" + ends, of(a => a.extra));
  const grown = of(a => a.begin - a.end + a.extra);
  const torch = grown.every((e, n) => e >= 0 && e < Math.max(ax[n].s, ax[n].d)) ? extras("padding=" + perAxis(of(a => a.begin)), grown) : "";
  const onnx = ax.every(a => a.extra < a.s) ? `pads=${list([...of(a => a.begin), ...of(a => a.end)])}` + (ax.some(a => a.extra) ? `, output_padding=${list(of(a => a.extra))}` : "") : "";
  const space = "HW".slice(2 - rank), crop = kerasCrop(ax);
  return {
    tconv: `y = tconv.conv_transpose(x, w${stride}${more(own)}${dilation})`,
    PyTorch: torch ? `y = torch.nn.functional.conv_transpose${rank}d(x, w${stride}${more(torch)}${dilation})`
      : "not expressible: needs asymmetric crop, and PyTorch crops both sides alike\n# crop y afterwards",
    ONNX: onnx ? `node = onnx.helper.make_node(\n    "ConvTranspose", ["x", "w"], ["y"], strides=${list(strides)}, ${onnx}${dilated ? `, dilations=${list(dilations)}` : ""}\n)`
      : "not expressible: ONNX wants output_padding smaller than the stride",
    Keras: strided && dilated ? "not expressible: Keras refuses dilation together with a stride"
      : !crop ? 'not expressible: Keras crops as "valid" or "same" does, and not by number'
      : `layer = keras.layers.Conv${rank}DTranspose(\n    1, ${tuple(of(a => a.k))}, strides=${tuple(strides)}, ${crop}${dilated ? `, dilation_rate=${tuple(dilations)}` : ""}, use_bias=False\n)\n# its kernel is w[0, 0][..., None, None], x is channels last`,
    JAX: `y = jax.lax.conv_transpose(\n    x, w, strides=${tuple(strides)}, padding=${tuple(of(a => tuple([a.d * (a.k - 1) - a.begin, a.d * (a.k - 1) - a.end + a.extra])))},${dilated ? ` rhs_dilation=${tuple(dilations)},` : ""}\n    dimension_numbers=("NC${space}", "OI${space}", "NC${space}"), transpose_kernel=True,\n)\n# without transpose_kernel=True JAX leaves the kernel unflipped: another result`,
  };
}
function kerasCrop(ax) {
  const reach = a => a.d * (a.k - 1) + 1, parity = a => reach(a) % 2, below = (v, a) => v >= 0 && v < a.s;
  if (ax.every(a => !a.begin && a.o === a.full + Math.max(a.s - reach(a), 0))) return 'padding="valid"';
  if (ax.every(a => a.begin === Math.floor(Math.max(reach(a) - a.s, 0) / 2) && a.o === a.i * a.s)) return 'padding="same"';
  let extras = ax.map(a => a.o - a.full);
  if (ax.every((a, n) => !a.begin && below(extras[n], a))) return `padding="valid", output_padding=${perAxis(extras)}`;
  extras = ax.map(a => a.o - (a.i - 1) * a.s - parity(a));
  if (ax.every((a, n) => below(extras[n], a) && a.begin === Math.max(Math.floor((reach(a) - parity(a) - extras[n]) / 2), 0))) return `padding="same", output_padding=${perAxis(extras)}`;
  return "";
}
