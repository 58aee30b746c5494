// Matrix view: W* or its transpose, with one row or column per cell.
const MOST_ENTRIES = 4096, ROWS_AROUND = 8; // a larger matrix shows rows around the selection
let firstRow = 0;

// Outputs whose rows are drawn: they follow a selection outside of the matrix.
function shownOutputs(sel) {
  const [outputs, inputs] = F.matrix.shape;
  if (outputs * inputs <= MOST_ENTRIES) return range(outputs);
  const row = sel[0] === "o" ? flat(sel)
    : sel[0] === "m" ? pointOf(sel)[0] : firstRow + ROWS_AROUND;
  const hidden = row < firstRow || row > firstRow + 2 * ROWS_AROUND;
  if (sel[0] === "o" || hidden) firstRow = row - ROWS_AROUND;
  firstRow = max(0, min(firstRow, outputs - 2 * ROWS_AROUND - 1));
  return range(2 * ROWS_AROUND + 1).map(n => n + firstRow);
}

function drawMatrix(sel, found) {
  const [outputs, inputs] = F.matrix.shape;
  setText("title-m", turned ? `W* (${inputs}×${outputs})` : `(W*)ᵀ (${outputs}×${inputs})`);
  if (!byId("panel-m").open) return;
  const os = shownOutputs(sel), is = range(inputs);
  const taps = new Map(os.flatMap(o => pairsOf(o).map(([i, k]) => [o * inputs + i, k])));
  const values = {x: F.x.flat(), w: F.w.flat(), y: F.y.flat()};
  const most = max(outputs, inputs), numbers = most <= 16;
  const [down, over, along, across] = turned ? [is, os, ..."xy"] : [os, is, ..."yx"];
  // The heads of rows and columns fit their cells.
  const heads = numbers ? 1 : 0, brief = v => short(v, 34), {width, height} = planned().matrix;
  const longest = numbers ? longestOf(Object.values(values), brief) : 1;
  const rows = down.length + heads, cols = over.length + heads;
  const fitting = floor(min(width / cols, height / rows));
  // Cells without letters are smaller: they are taken if all of them are seen then.
  const letters = most <= 64 && min(outputs, inputs) <= 36 && (fitting >= 14 || fitting < 8);
  const [least, largest] = numbers ? [leastSide(longest), 60] : letters ? [14, 28] : [8, 16];
  const side = max(least, min(largest, fitting));
  const rowOf = sel[0] === "o" && flat(sel), columnOf = sel[0] === "i" && flat(sel);
  const litOutputs = new Set([...found.m.keys()].map(at => floor(at / inputs)).concat(rowOf));
  const header = (letter, at, role) => {
    const name = {x: "input", y: "output"}[letter], lit = letter === "x" ? found.x : litOutputs;
    const value = values[letter][at], line = lit.has(at) ? " line" : "";
    const label = () => `${name} ${at}, value ${text(value)}`;
    return {...content(brief(value), undefined, label, " plain" + line), role};
  };
  const entry = (o, i) => {
    const at = o * inputs + i, tap = taps.get(at), name = `m${o},${i}`;
    const classes = marks(found.m.has(at), name) + (o === rowOf || i === columnOf ? " line" : "") +
      (down === os && o > os[0] && o % axes[1].o === 0 ? " block" : "");
    if (tap === undefined) {
      const label = () => `entry ${o},${i}: 0, not connected`;
      return content(numbers ? "0" : "", name, label, " zero" + classes);
    }
    const label = () => `entry ${o},${i}: tap ${LETTERS[tap]}, value ${text(values.w[tap])}`;
    const cell = content(numbers ? brief(values.w[tap]) : "", name, label, classes, tap);
    // A small cell has no letter.
    if (!letters) delete cell["data-tap"];
    return cell;
  };
  byId("grid-m").className = numbers || !letters ? "" : "letters";
  paint("grid-m", turned ? "matrix W*" : "matrix W* transposed",
    rows, cols, side, (r, c) => {
      const row = down[r - heads], column = over[c - heads];
      if ((row ?? column) === undefined) return content("", undefined, () => "", " plain");
      if (row === undefined) return header(across, column, "columnheader");
      if (column === undefined) return header(along, row, "rowheader");
      return down === is ? entry(column, row) : entry(row, column);
    });
  setBox("m", side, rows, cols, min(cols * side, width), min(rows * side, height));
  const part = os.length < outputs ? `; rows ${os[0]} to ${os.at(-1)} of ${outputs}` : "";
  const stamps = state.lens === "stamp", line = turned === stamps ? "row" : "column";
  const each = `each ${line} ${stamps ? "is the stamp of one input" : "makes one output"} cell`;
  const law = turned ? "W* vec(y) is the convolution; " : "vec(y) = (W*)ᵀ vec(x): ";
  byId("hint-m").parentNode.style.width = room.folded ? "" : width + "px";
  setText("hint-m", law + each + part);
  setText("turn", turned ? "show (W*)ᵀ" : "show W*");
  const lit = [...found.m.keys()].map(at => {
    const [o, i] = [os.indexOf(floor(at / inputs)), at % inputs];
    return turned ? [i, o] : [o, i];
  }).filter(place => min(...place) >= 0);
  if (!lit.length) return;
  const [tops, lefts] = [0, 1].map(n => lit.map(place => place[n] + heads));
  const span = all => max(...all) - min(...all) + 1;
  follow("m", min(...tops), min(...lefts), span(tops), span(lefts));
}
