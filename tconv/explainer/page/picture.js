// Lens "Picture": all pixels of a small picture through the kernel, and the numbers of a few.
const ZOOM = 7; // cells along a side of the enlarged part of the output
const OFFERED = [[3, 2], [4, 2], [2, 2]]; // kernel sizes and strides
const canvases = {}; // by the letter of what they show, "i" or "o"
let laid = false; // whether overlap counts are laid over the output
let zoomed = [0, 0], read = [0, 0]; // top left cells of the enlarged parts of output and input
let kind = "ones", before = null;

// The state with which a lens is entered. What the picture's lens began with is undone behind it.
function enter(lens, next) {
  const settings = ({w, s, p, d, op}) => ({w, s, p, d, op});
  if (lens === "picture" && state.lens !== lens && same(next.s, [1, 1])) {
    before = settings(state);
    return {...next, ...CHECKERBOARD};
  }
  const untouched = before && same(settings(state), CHECKERBOARD);
  return lens !== "picture" && untouched ? {...next, ...before} : next;
}

function makePicture() {
  for (const [name, id] of [["i", "scroll-x"], ["o", "scroll-y"]]) {
    const canvas = canvases[name] = el("canvas", {role: "img", tabindex: 0});
    byId(id).after(el("div", {id: "pixels-" + name, "data-for": "picture"}, canvas));
    const inside = (at, n) => min(max(floor(at), 0), axes[n][name] - 1);
    const under = ({offsetX, offsetY}) => name + [offsetY, offsetX].map((at, n) =>
      inside(at / canvas.scale, n));
    const beside = way => {
      const from = active()[0] === name ? pointOf(active()) : name === "o" ? zoomed : read;
      return name + from.map((at, n) => inside(at + way[n], n));
    };
    on(canvas, "mousemove", event => playing || setHover(under(event)));
    on(canvas, "click", event => pin(under(event)));
    on(canvas, "focus", () => playing || setHover(hover || beside([0, 0])));
    for (const end of ["mouseleave", "blur"]) on(canvas, end, () => playing || setHover(""));
    on(canvas, "keydown", event => {
      if (WAYS[event.key]) setHover(beside(WAYS[event.key]));
      else if (event.key === "Enter") pin(active());
      else return;
      event.preventDefault();
    });
  }
  const button = (words, change) => {
    const node = el("button", {}, words);
    on(node, "click", change);
    return node;
  };
  const ofSize = (k, s) => ({...state, ...CHECKERBOARD, s: [s, s], w: table(k, k, () => 1)});
  const box = el("input", {type: "checkbox", id: "laid"});
  on(box, "change", () => { laid = box.checked; draw(); });
  const offer = ([k, s]) => button(`K=${k}, s=${s}: ${k % s ? "uneven" : "even"}`,
    () => update(filled("w", kind, ofSize(k, s))));
  byId("tools").append(el("span", {"data-for": "picture"}, ...OFFERED.map(offer),
    " of ", ...["ones", "bilinear", "random"].map(name =>
      button(name, () => update(filled("w", kind = name)))),
    el("label", {}, box, " overlap counts laid over the output")));
}

// The numbers that are black, at most 0, and white, and the share of white of a number.
function greyOf(rows) {
  let low = 0, high = 0;
  for (const row of rows) {
    for (const v of row) {
      if (v < low && isFinite(v)) low = v;
      if (v > high && isFinite(v)) high = v;
    }
  }
  return {low, high, at: v => high > low && isFinite(v) ? (v - low) / (high - low) : 0};
}
// Draw a pixel for each number; counts, if they are given, as a tint that grows with them.
function drawPixels(name, rows, grey, counts, room, window) {
  const canvas = canvases[name], [height, width] = [rows.length, rows[0].length];
  const scale = canvas.scale = max(1, floor(room / max(height, width)));
  if (canvas.rows !== rows || canvas.counts !== counts) {
    Object.assign(canvas, {rows, counts, width, height});
    const pen = canvas.getContext("2d"), image = pen.createImageData(width, height);
    const hue = getComputedStyle(document.documentElement).getPropertyValue("--tap-5")
      .match(/\w\w/g).map(part => parseInt(part, 16));
    const scaled = counts && greyOf(counts);
    rows.forEach((row, r) => row.forEach((value, c) => {
      const share = counts ? scaled.at(counts[r][c]) / 2 : 0, light = 255 * grey.at(value);
      const at = 4 * (r * width + c);
      for (let n = 0; n < 3; n++) image.data[at + n] = light + (hue[n] - light) * share;
      image.data[at + 3] = 255;
    }));
    pen.putImageData(image, 0, 0);
  }
  canvas.style.cssText = `width:${width * scale}px;height:${height * scale}px`;
  frame("pixels-" + name, "window", scale, window);
}

function drawPicture(sel, found) {
  const [v, h] = axes, grey = greyOf(F.y), dark = greyOf(F.x), letter = sel[0], at = pointOf(sel);
  // Panels stand side by side in a wide window, and below each other in a narrow one.
  const width = byId("figure").clientWidth, wide = innerWidth >= 1240;
  const room = max(194, wide ? min(innerHeight - 400, (width - 110) / 2.85) : min(width - 10, 400));
  const side = max(36, round(room / 9.7)), shown = axes.map(a => min(a.o, ZOOM));
  const sizes = axes.map(a => min(a.i, max(4, min(ZOOM, Math.ceil(a.reach / a.s)))));
  // The enlarged parts follow the selection, but not away from pointer or focus.
  const follows = id => /[oi]/.test(letter) && !byId(id).matches(":hover, :focus-within");
  const around = (u, n, size, name) => min(max(round(u - (size - 1) / 2), 0), axes[n][name] - size);
  if (follows("grid-z")) zoomed = axes.map((a, n) =>
    around(letter === "o" ? at[n] : at[n] * a.s - a.begin + (a.reach - 1) / 2, n, shown[n], "o"));
  if (follows("grid-n")) read = axes.map((a, n) =>
    around(letter === "i" ? at[n] : (at[n] + a.begin - (a.reach - 1) / 2) / a.s, n, sizes[n], "i"));
  for (const id of ["key-crop", "key-extra"]) byId(id).hidden = true;
  drawPixels("i", F.x, dark, null, room * .6, [...read, ...sizes]);
  drawPixels("o", F.y, grey, laid ? F.counts : null, room, [...zoomed, ...shown]);
  const brief = v => short(v, side);
  drawKernel(found, false, {side, longest: longestOf(F.w, brief)}, brief);
  setBox("w", side, v.k, h.k, h.k * side, v.k * side);
  const part = (from, size) => `${from} to ${from.map((at, n) => at + size[n] - 1)}`;
  const pixel = (cell, share) => ({
    ...cell, class: cell.class + (share < .46 ? " grey dim" : " grey"),
    style: `--v:${round(share * 100)}`,
  });
  paint("grid-z", "part of the output", ...shown, side, (u, k) => {
    const row = zoomed[0] + u, col = zoomed[1] + k, name = `o${row},${col}`, value = F.y[row][col];
    const index = canvasIndex(flat(name)), tap = found.y.get(index), count = F.counts[row][col];
    const label = () => `output row ${row} column ${col}, value ${text(value)}, ` +
      plural(count, "contribution");
    const cell = content(short(value, side), name, label, marks(found.y.has(index), name), tap);
    return tap === undefined ? {...pixel(cell, grey.at(value)), "data-tap": count + "×"} : cell;
  }, 4);
  paint("grid-n", "part of the input", ...sizes, side, (u, k) => {
    const [row, col] = [read[0] + u, read[1] + k], cell = inputCell(row, col, found, brief);
    return cell["data-tap"] ? cell : pixel(cell, dark.at(F.x[row][col]));
  }, 3);
  const counts = [...new Set(F.phase_counts.flat())].sort((a, b) => a - b).join(", ");
  const whole = axes.some((_, n) => !F.even[n]) ? "uneven" : "even";
  setText("title-x", `Input x, a picture (${v.i}×${h.i})`);
  setText("hint-x", `${dark.low} (black) to ${dark.high} (white)`);
  setText("title-y", `Output y (${v.o}×${h.o})`);
  setText("hint-y", `${short(grey.low)} (black) to ${short(grey.high)} (white); ` +
    `${counts} taps reach a pixel: ${whole}${laid ? "; the more, the stronger the tint" : ""}`);
  setText("title-z", `Its pixels ${part(zoomed, shown)}`);
  setText("title-n", `Input ${part(read, sizes)}`);
  canvases.i.ariaLabel = `input, a landscape of ${v.i} by ${h.i} grey pixels; arrows walk`;
  canvases.o.ariaLabel = `output, ${v.o} by ${h.o} grey pixels; arrows walk, the sum is told below`;
}
