// Text below the figure: the selected sum, and the size formula with its numbers.
const BEYOND = " beyond what float64 holds, 1.8e308";
let speaking = 0;
function drawSum(sel) {
  const [whole, pieces] = sentencesOf(sel), equation = byId("equation");
  const sums = sel[0] === "o", [r, c, m] = pointOf(sel), many = isMany(state);
  const value = sums && (many ? channelFacts().y[m] : F.y)[r][c];
  const count = sums && (many ? channelCount(sel)
    : plural(pairsOf(flat(sel)).length, "contribution"));
  const beyond = sums && !isFinite(value) && "a sum" + BEYOND;
  equation.style.fontSize = sizeOfSum(wordsOf(pieces).length) + "px";
  equation.title = whole === pieces ? "" : wordsOf(whole);
  fill(equation, String(pieces), () => pieces.map(([piece, tap]) => tap === undefined ? piece
    : el("span", {class: `tap t${tap % 7}`}, piece)));
  const few = whole !== pieces && "rounded; point at it for all digits";
  const said = [count, beyond, few, state.sel && "pinned, Esc unpins"];
  setText("contributions", said.filter(Boolean).join(" · "));
  // Screen readers announce it at most every 300 ms.
  speaking ||= setTimeout(() => {
    speaking = 0;
    setText("live", equation.textContent);
  }, 300);
}

// The largest font in which so many characters fit the room of the sum.
function sizeOfSum(count) {
  const wide = room.width * .98, lines = size => Math.ceil(count * size * .62 / wide);
  const high = sumRoom();
  let size = room.folded ? 22 : min(40, round(high / 3));
  while (size > 11 && lines(size) * size * 1.4 > high - 20) size--;
  return size;
}
// Pixels for the longest sum of the state, so that no step moves what is below.
function sumRoom() {
  const most = max(...F.phase_counts.flat()) * (isMany(state) ? state.c[0] : 1);
  const {x, w} = OWN[state.lens] ? {x: {longest: 3}, w: {longest: 3}} : planned().grids;
  const lines = Math.ceil(most * (x.longest + w.longest + 6) * 9 / room.width);
  return max(lines * 21 + 20, innerHeight * (presents() ? .13 : .1));
}

function drawLaw() {
  const symbol = (name, sel, title) =>
    el("button", {class: "symbol", title, "data-sel": sel}, name);
  const alike = same(F.size_formulas[0], F.size_formulas[1]);
  const names = F.rank === 1 ? ["W"] : alike ? ["H"] : ["H", "W"];
  fill(byId("law"), String(F.size_formulas), () => names.map((name, n) => el("div", {},
    name, el("sub", {}, "out"), ` = (${name}`, el("sub", {}, "in"), " − 1)·",
    symbol("s", "fs", "stride"), " − (", symbol("p₀", "fp", "padding at the beginning"), " + ",
    symbol("p₁", "fp", "padding at the end"), ") + ",
    symbol("d", "fd", "dilation"), "·(K − 1) + ",
    symbol("op", "fo", "output padding"), ` + 1 = ${F.size_formulas[n]}`)));
}
