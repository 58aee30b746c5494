// Layout: the arrangement of the grids and the sides of their cells, for the room of the window.
const GAP = 30, TITLE = 200, TALLEST = 20; // pixels between grids, of a narrow column, of a cell
const narrow = matchMedia("(max-width: 699px)");
let room = {words: 1, width: 1200, height: 400, most: 76};

// The room of the figure: what header, sum and settings leave of the window.
function measure() {
  const high = innerHeight, present = document.documentElement.matches(".present");
  const others = ["header", "#note", "#link", "#tools", "#sums", "#controls", "#more"];
  const taken = sum(others, name => document.querySelector(name)?.offsetHeight || 0);
  const most = round(min(high / (present ? 5 : 9), 160)), folded = narrow.matches;
  room = {
    words: present ? 1.4 : 1, // of titles and hints
    width: byId("figure").clientWidth, most: folded ? 56 : max(most, 56), folded,
    height: folded ? high * .8 : max(high - taken - 40, 260),
  };
}
// Shares of a total; who wants less than an equal one leaves the rest to the others.
function shared(total, wants) {
  const found = [];
  wants.map((want, n) => [want, n]).sort(([a], [b]) => a - b).forEach(([want, n], done) => {
    found[n] = floor(min(want, total / (wants.length - done)));
    total -= found[n];
  });
  return found;
}
// A cell is at least so large that its longest number has ten pixels.
const leastSide = longest => max(22, Math.ceil(longest * 10 / 1.38));
const widthOf = (grids, sides) => max(...grids.map((grid, n) => grid.cols * sides[n]));

// Where the grids go: below each other, or in a row, or with the matrix below the kernel.
const ARRANGEMENTS = {
  row: ({x, w, y}) => [[x], [w], [y]],
  tall: ({x, w, y}) => [[x, w], [y]],
  middle: ({x, w, y}) => [[x], [w], [y]],
};
// The arrangement whose smallest cell is largest; of equal ones, that with the most of the matrix.
function arranged(grids, matrix) {
  let best = {score: -1};
  for (const [name, columnsOf] of Object.entries(ARRANGEMENTS)) {
    const columns = columnsOf(grids), below = name === "middle" && matrix.open;
    const heightOf = (column, side) => sum(column, grid => max(grid.rows * side + grid.around, 90));
    const widths = side => columns.map(column =>
      max(below && column[0] === grids.w ? TITLE : 136, ...column.map(g => g.cols * side)));
    const beside = below ? 0 : TITLE + GAP, free = room.width - GAP * (columns.length - 1) - 12;
    const fits = side => sum(widths(side)) + beside <= free &&
      columns.every(column => heightOf(column, side) <= room.height) &&
      (!below || heightOf([grids.w], side) + 260 * room.words <= room.height);
    let side = room.most;
    while (side > TALLEST && !fits(side)) side--;
    const left = below ? widths(side)[1] : free - sum(widths(side)) - GAP;
    const score = side * (.8 + .2 * min(1, left / matrix.width));
    if (score > best.score) best = {score, side, name, columns, below};
  }
  return best;
}
// Sides of all cells, and boxes of the grids; a grid that is larger than its box scrolls in it.
function layoutOf(grids, matrix) {
  for (const grid of Object.values(grids)) {
    grid.least = leastSide(grid.longest);
    grid.around *= room.words;
  }
  const inside = (grid, width, height) => Object.assign(grid, {
    boxWidth: floor(min(width, grid.cols * grid.side)),
    boxHeight: floor(min(height, grid.rows * grid.side)),
  });
  const {x, w, y} = grids;
  w.least = max(w.least, 28); // a letter beside the number
  if (room.folded) {
    for (const grid of [x, w, y]) {
      grid.side = max(grid.least, min(room.most, floor((room.width - 10) / max(grid.cols, 5))));
      inside(grid, room.width - 10, room.height);
    }
    return {name: "folded", width: room.width - 10, height: room.height};
  }
  const {side, name, columns, below} = arranged(grids, matrix);
  for (const grid of [x, w, y]) grid.side = max(side, grid.least);
  const natural = columns.map(column => max(...column.map(g => g.cols * g.side), 136));
  const gaps = GAP * (columns.length - (below ? 1 : 0)), free = room.width - gaps - 12;
  if (below) natural[1] = max(natural[1], TITLE);
  const widths = shared(free - (below ? 0 : TITLE), natural);
  columns.forEach((column, n) => {
    const around = sum(column, g => g.around) + (below && column[0] === w ? 260 * room.words : 0);
    const heights = shared(room.height - around, column.map(g => g.rows * g.side));
    column.forEach((grid, at) => inside(grid, widths[n], heights[at]));
  });
  const width = free - sum(widths) + (below ? widths[1] : 0);
  const above = below ? w.boxHeight + w.around + 56 * room.words : 0;
  const height = room.height - 104 * room.words - above;
  return {name, width: floor(width), height: floor(height)};
}

// ---- boxes that scroll --------------------------------------------------------------------------
// Give a grid its box. Its faded edges and a line below say that there is more.
function setBox(id, side, rows, cols, width, height) {
  const box = byId("scroll-" + id), size = `${width}x${height}`, all = [cols * side, rows * side];
  const scrolls = all[0] > width || all[1] > height;
  if (box.size !== size) {
    box.size = size;
    box.style.cssText = `width:${width + 9}px;height:${height + 9}px`;
  }
  if (box.scrolls !== scrolls) box.classList.toggle("scrolls", box.scrolls = scrolls);
  Object.assign(box, {side, all, inner: [width, height], counts: [cols, rows]});
  box.at ||= [0, 0];
  drawMore(box);
}
function drawMore(box) {
  const {at, all, inner, side, counts, scrolls} = box;
  const ends = [0, 1].flatMap(n => [at[n] > 1, at[n] + inner[n] < all[n] - 1]);
  box.dataset.more = scrolls ? "←→↑↓".split("").filter((_, n) => ends[n]).join("") : "";
  const part = n => {
    const first = floor(at[n] / side + .5), most = floor(inner[n] / side);
    const last = min(counts[n], first + most) - 1;
    return all[n] > inner[n] && `${n ? "rows" : "columns"} ${first} to ${last} of ${counts[n]}`;
  };
  const parts = scrolls ? [part(1), part(0)].filter(Boolean).join(", ") : "";
  setText(box.id.replace("scroll", "more"), parts && `${box.dataset.more} scroll: ${parts}`);
}
const SLACK = 12; // pixels that a scroll bar may take
// Scroll so that a rectangle of cells is seen, unless pointer or focus is in the grid.
function follow(id, top, left, height, width) {
  const box = byId("scroll-" + id);
  if (!box.scrolls || box.matches(":hover, :focus-within")) return;
  const start = [left, top], size = [width, height];
  const to = box.at.map((at, n) => {
    const from = start[n] * box.side, long = size[n] * box.side;
    if (from >= at && from + long <= at + box.inner[n] - SLACK) return at;
    return max(0, min(from + long / 2 - box.inner[n] / 2, box.all[n] - box.inner[n] + SLACK));
  });
  if (same(to, box.at)) return;
  box.at = to;
  box.scrollTo(...to);
  drawMore(box);
}
