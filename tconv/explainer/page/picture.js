// Lens "A picture": all pixels of a small picture through the kernel, and the numbers of a few.
const ZOOM = 7; // cells along a side of the enlarged part of the output
const KERNELS = [[3, 2], [4, 2], [2, 2]]; // sizes and strides that are offered
const pictures = {}; // canvases by "x" and "y"
let laid = false; // whether overlap counts are laid over the output
let zoomed = [0, 0], read = [0, 0]; // top left cells of the enlarged parts of output and input
let kind = "ones", before = null;

// The state with which a lens is entered. What the picture's lens began with is undone behind it.
const settingsOf = ({w, s, p, d, op}) => ({w, s, p, d, op});
function enter(lens, next) {
  if (lens === "picture" && state.lens !== lens && next.s.every(s => s === 1)) {
    before = settingsOf(state);
    return {...next, ...CHECKERBOARD};
  }
  const untouched = before && same(settingsOf(state), CHECKERBOARD);
  return lens !== "picture" && untouched ? {...next, ...before} : next;
}

function makePicture() {
  for (const letter of "xy") {
    const canvas = pictures[letter] = el("canvas", {role: "img", tabindex: 0});
    const place = el("div", {id: "pixels-" + letter, class: "pixels"}, canvas);
    byId("grid-" + letter).after(place);
    const name = {x: "i", y: "o"}[letter];
    const at = event => {
      const box = canvas.getBoundingClientRect(), [v, h] = axes.map(axis => axis[name]);
      const along = (part, n) => min(max(floor(part * n), 0), n - 1);
      return name + [along((event.clientY - box.top) / box.height, v),
        along((event.clientX - box.left) / box.width, h)];
    };
    on(canvas, "mousemove", event => playing || setHover(at(event)));
    on(canvas, "mouseleave", () => setHover(""));
    on(canvas, "click", event => pin(at(event)));
    on(canvas, "focus", () => playing || hover || setHover(walked(name, [0, 0])));
    on(canvas, "blur", () => setHover(""));
    on(canvas, "keydown", event => {
      const way = WAYS[event.key];
      if (way) setHover(walked(name, way.map(n => n * (event.shiftKey ? 8 : 1))));
      else if (event.key === "Enter") pin(active());
      else return;
      event.preventDefault();
    });
  }
  const choose = (k, s) => {
    const size = {...state, ...CHECKERBOARD, s: [s, s], w: table(k, k, () => 1)};
    update({...size, w: filled("w", kind, size).w});
  };
  const button = (words, react) => {
    const node = el("button", {}, words);
    on(node, "click", react);
    return node;
  };
  const box = el("input", {type: "checkbox", id: "laid"});
  on(box, "change", () => { laid = box.checked; draw(); });
  byId("tools").append(el("span", {id: "tools-picture"}, "Kernel and stride: ",
    ...KERNELS.map(([k, s]) => button(`K=${k}, s=${s}: ${k % s ? "uneven" : "even"}`,
      () => choose(k, s))),
    " of ", ...["ones", "bilinear", "random"].map(name => button(name, () => {
      kind = name;
      update(filled("w", name));
    })), el("label", {}, box, " overlap counts laid over the output")));
}
// The pixel beside the active one, or the first that a canvas walks from.
function walked(name, way) {
  const sel = active(), from = sel[0] === name ? pointOf(sel) : name === "o" ? middleOf(zoomed, ZOOM)
    : middleOf(read, 2);
  return name + from.map((at, n) => min(max(at + way[n], 0), axes[n][name] - 1));
}
const middleOf = (corner, size) => corner.map(at => at + (size >> 1));

// Grey of a number, from 0 to 1, between the least (at most 0) and the greatest.
function greyOf(rows) {
  const all = rows.flat().filter(isFinite);
  let low = 0, high = 0;
  for (const v of all) {
    low = min(low, v);
    high = max(high, v);
  }
  return {low, high, at: v => high > low && isFinite(v) ? (v - low) / (high - low) : 0};
}
const hueOf = name => getComputedStyle(document.documentElement).getPropertyValue(name)
  .match(/[0-9a-f]{2}/gi).map(part => parseInt(part, 16));
// Draw a pixel for each number; counts, if they are given, as a tint that grows with them.
function drawPixels(letter, rows, grey, counts, room) {
  const canvas = pictures[letter], [height, width] = [rows.length, rows[0].length];
  const scale = max(1, floor(room / max(height, width)));
  if (canvas.rows !== rows || canvas.counts !== counts) {
    Object.assign(canvas, {rows, counts, width, height});
    const pen = canvas.getContext("2d"), image = pen.createImageData(width, height);
    const hue = hueOf("--tap-5"), most = counts && max(...counts.flat());
    rows.forEach((row, r) => row.forEach((v, c) => {
      const share = counts ? .5 * counts[r][c] / most : 0, at = 4 * (r * width + c);
      for (let n = 0; n < 3; n++) {
        image.data[at + n] = grey.at(v) * 255 * (1 - share) + hue[n] * share;
      }
      image.data[at + 3] = 255;
    }));
    pen.putImageData(image, 0, 0);
  }
  canvas.style.cssText = `width:${width * scale}px;height:${height * scale}px`;
  return scale;
}

const clipTo = (at, size, n, name) => min(max(at, 0), max(axes[n][name] - size, 0));
// Move the enlarged parts of output and input to what is selected, if it lies outside of them.
function follow(sel, sizes) {
  const [a, b] = [pointOf(sel), axes], letter = sel[0];
  const inside = (corner, size, at) => at.every((u, n) => u >= corner[n] && u < corner[n] + size[n]);
  const around = letter === "o" ? a
    : b.map((axis, n) => a[n] * axis.s - axis.begin + (axis.reach >> 1));
  if (letter !== "o" && letter !== "i") return;
  const held = document.activeElement.matches("#grid-z .cell") || byId("grid-z").matches(":hover");
  if (!inside(zoomed, [ZOOM, ZOOM], around) || (letter === "o" && !held)) {
    zoomed = around.map((u, n) => clipTo(u - (ZOOM >> 1), ZOOM, n, "o"));
  }
  if (letter === "i" && inside(read, sizes, a)) return;
  read = b.map((axis, n) => {
    const middle = letter === "i" ? a[n] : (a[n] + axis.begin - (axis.reach - 1) / 2) / axis.s;
    return clipTo(round(middle - (sizes[n] - 1) / 2), sizes[n], n, "i");
  });
}

function drawPicture(sel, found) {
  const [v, h] = axes, grey = greyOf(F.y), dark = greyOf(F.x), roomy = pictureRoom();
  byId("figure").classList.remove("tall");
  const sizes = axes.map(axis => min(axis.i, max(4, min(7, Math.ceil(axis.reach / axis.s)))));
  follow(sel, sizes);
  byId("custom").hidden = true;
  setText("title-x", `Input x, a picture (${v.i}×${h.i})`);
  setText("hint-x", `numbers ${dark.low} (black) to ${dark.high} (white)`);
  setText("title-y", `Output y (${v.o}×${h.o})`);
  const small = drawPixels("x", F.x, dark, null, roomy * .6);
  const large = drawPixels("y", F.y, grey, laid ? F.counts : null, roomy);
  frame("pixels-x", "window", small, [...read, ...sizes]);
  const shown = axes.map(axis => min(axis.o, ZOOM));
  frame("pixels-y", "window", large, [...zoomed, ...shown]);
  const side = round(roomy / 9.7);
  drawKernel(found, false, side);
  drawZoom(found, shown, grey, side);
  drawRead(found, sizes, dark, side);
  const per = [...new Set(F.phase_counts.flat())].sort((a, b) => a - b).join(", ");
  const verdict = some(F.even.map(each => !each)) ? "uneven" : "even";
  byId("key-crop").hidden = byId("key-extra").hidden = true;
  setText("hint-y", `${short(grey.low)} (black) to ${short(grey.high)} (white); inside, each pixel ` +
    `has ${per} taps: ${verdict}${laid ? "; the more taps, the stronger the tint" : ""}`);
  const [r, c] = sel[0] === "o" ? pointOf(sel) : middleOf(zoomed, ZOOM);
  pictures.y.ariaLabel = `output, ${v.o} by ${h.o} grey pixels; row ${r} column ${c}: ` +
    `value ${text(F.y[r]?.[c])}, ${plural(F.counts[r]?.[c], "contribution")}; arrows walk over it`;
  pictures.x.ariaLabel = `input, a landscape of ${v.i} by ${h.i} grey pixels; arrows walk over it`;
}
const pictureRoom = () => max(194, min(innerHeight - 400, (byId("figure").clientWidth - 110) / 2.85));

// A cell as grey as its pixel, with black or white ink.
function pixelCell(cell, share) {
  const dim = share < .46 ? " dim" : "";
  return {...cell, class: cell.class + " grey" + dim, style: `--v:${round(share * 100)}`};
}
function drawZoom(found, [rows, cols], grey, side) {
  const [top, left] = zoomed;
  setText("title-z", `Its pixels ${top},${left} to ${top + rows - 1},${left + cols - 1}`);
  paint("grid-z", "part of the output", rows, cols, side, (u, c) => {
    const [row, col] = [top + u, left + c], name = `o${row},${col}`, value = F.y[row][col];
    const at = canvasIndex(flat(name)), count = F.counts[row][col], tap = found.y.get(at);
    const label = () => `output row ${row} column ${col}, value ${text(value)}, ` +
      plural(count, "contribution");
    const marked = marks(found.y.has(at), name);
    const cell = content(short(value, side), name, label, marked, tap);
    if (tap !== undefined) return cell;
    return {...pixelCell(cell, grey.at(value)), "data-tap": `${count}×`};
  }, 4);
  setText("hint-z", "4× : an overlap count of 4, the taps that reach the pixel");
}
function drawRead(found, [rows, cols], grey, side) {
  const [top, left] = read;
  setText("title-n", `Input ${top},${left} to ${top + rows - 1},${left + cols - 1}`);
  paint("grid-n", "part of the input", rows, cols, side, (u, c) => {
    const cell = inputCell(top + u, left + c, found, side);
    return cell["data-tap"] ? cell : pixelCell(cell, grey.at(F.x[top + u][left + c]));
  }, 3);
}
