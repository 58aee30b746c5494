// Details: overlap and phase sums, code snippets, and why it is not the inverse.
function tableOf(rows, caption, classes = () => "") {
  const cells = (row, r) =>
    row.map((v, c) => el("td", {class: classes(r, c), title: text(v)}, short(v)));
  return el("table", {}, el("caption", {}, caption),
    el("tbody", {}, ...rows.map((row, r) => el("tr", {}, ...cells(row, r)))));
}
function whyUneven(n) {
  const {k, s, d} = axes[n];
  if (F.even[n]) return "";
  if (gcd(d, s) > 1) return `dilation ${d} and stride ${s} share a divisor`;
  return `K=${k} is not a multiple of s=${s}`;
}
const corner = rows => rows.slice(0, LIMIT.o).map(row => row.slice(0, LIMIT.o));
const DETAILS = {
  overlap() {
    const [v, h] = axes, why = [0, 1].slice(2 - F.rank).map(whyUneven).filter(Boolean);
    const verdict = why.length ? `uneven: ${[...new Set(why)].join("; ")}` : "even";
    const starts = (at, axis) => (at + axis.begin) % axis.s === 0;
    const period = (r, c) => (starts(r, v) ? "top " : "") + (starts(c, h) ? "left" : "");
    const level = F.ripple === null ? "the mean is 0: all of it is ripple"
      : F.ripple === 0 ? "R = 0: every phase has the same sum"
      : `R = ${F.ripple.toPrecision(3)}, ${F.ripple_db.toFixed(1)} dB`;
    const bar = el("meter", {value: F.ripple ?? 1, "aria-label": "ripple"});
    const repeated = some(state.s.map(s => s > 1)) ? ", again and again" : "";
    return [
      el("p", {}, el("span", {class: why.length ? "chip bad" : "chip"}, verdict),
        " Taps that reach each output cell; heavy lines mark the stride. Even counts do not " +
        "suffice: only equal phase sums leave a constant input constant."),
      tableOf(corner(F.counts), "Overlap count", period),
      tableOf(F.phase_sums, `Phase sums (${v.s}×${h.s}) of this kernel`),
      el("div", {}, el("p", {}, "Ripple of a constant input, relative to its mean"), bar,
        el("p", {id: "ripple"}, level), el("p", {id: "constant"}, "constant input 1 gives, away " +
          `from the border: ${F.phase_sums.flat().map(v => short(v)).join("  ")}${repeated}`)),
    ];
  },
  code: ([ins, outs] = isMany(state) ? state.c : [1, 1]) => [
    el("p", {class: "hint"},
      `x has shape (1, ${ins}, …), w (${ins}, ${outs}, …). ` +
      "Each is exact, or says why it cannot be."),
    ...Object.entries(codeOf(axes.slice(2 - F.rank), outs)).map(([name, code]) =>
      el("div", {}, el("strong", {}, name), el("pre", {tabindex: 0}, code))),
  ],
  inverse() {
    const its = F.not_the_inverse, [small, large] = [its.inner_small, its.inner_large].map(text);
    const finite = isFinite(its.inner_small + its.inner_large), equal = finite && small === large;
    const arrow = by => el("div", {class: "arrow"}, "→", el("br"), by);
    const restored = same(its.start, its.back) ? "=" : "≠";
    return [
      el("p", {}, "Start from 1, 2, 3 …, convolve by the same kernel and take the result back. " +
        "It undoes the ", el("em", {}, "shape"), ", not the values."),
      tableOf(its.start, "r"), arrow("W*"), tableOf(its.convolved, "W* r"), arrow("(W*)ᵀ"),
      tableOf(its.back, `(W*)ᵀ W* r ${restored} r`),
      el("p", {}, "What does hold, for all r and x: ⟨W* r, x⟩ = ⟨r, (W*)ᵀ x⟩. Here ",
        el("strong", {id: "inner"}, `${small} ${equal ? "=" : finite ? "≈" : "and"} ${large}`),
        equal ? "." : finite ? "; the difference is rounding." : BEYOND),
    ];
  },
};
function drawDetails() {
  for (const [id, make] of Object.entries(DETAILS)) {
    if (byId(id).open) fill(byId(id).querySelector(".body"), F, make);
  }
}
