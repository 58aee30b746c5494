// Export of the figure as SVG and PNG, and of the link.
const MARGIN = 12;
// A computed colour in a notation that all SVG programs read.
function plainColor(value) {
  const parts = /^color\(srgb ([\d.e-]+) ([\d.e-]+) ([\d.e-]+)/.exec(value)?.slice(1);
  if (parts) return `rgb(${parts.map(part => round(part * 255))})`;
  return value === "rgba(0, 0, 0, 0)" ? "none" : value;
}
function placeOf(node) {
  const [base, at] = [byId("figure"), node].map(each => each.getBoundingClientRect());
  const corner = [at.left - base.left + MARGIN, at.top - base.top + MARGIN];
  return [...corner, at.width, at.height].map(round);
}
// Whether a node is visible, and within the visible part of the matrix.
function isShown(node) {
  const scrolled = byId("scroll-m"), [, y, , height] = placeOf(node);
  const [, top, , tall] = placeOf(scrolled);
  const within = !scrolled.contains(node) || (y >= top && y + height <= top + tall);
  return node.checkVisibility() && within;
}
const label = (words, x, y, style, anchor = "start") => svgEl("text", {
  x, y, "font-size": style.fontSize, "font-weight": style.fontWeight, "text-anchor": anchor,
  fill: plainColor(style.color), "dominant-baseline": "central",
}, words);
function* svgCell(node) {
  const style = getComputedStyle(node), [x, y, width, height] = placeOf(node);
  const {text: words, "data-tap": letter} = node.content || {};
  const [lit, extra] = [".lit", ".extra"].map(kind => node.matches(kind));
  const color = lit ? style.outlineColor : extra ? style.color : style.borderLeftColor;
  yield svgEl("rect", {
    x, y, width, height, fill: plainColor(style.backgroundColor),
    stroke: plainColor(color),
    "stroke-width": lit ? 3 : extra ? 2 : parseFloat(style.borderLeftWidth),
    "stroke-dasharray": !lit && {dashed: "4 3", dotted: "2 2"}[style.borderLeftStyle] || "none",
  });
  const start = getComputedStyle(node, "::before");
  if (node.matches(".block")) {
    const stroke = style.borderTopColor;
    yield svgEl("path", {d: `M${x} ${y}h${width}`, stroke, "stroke-width": 2});
  }
  if (words) yield label(words, x + width / 2, y + height / 2 + 1, style, "middle");
  if (letter && words) yield label(letter, x + 4, y + 9, start);
  if (node.matches(".letters .tap")) {
    yield label(letter, x + width / 2, y + height / 2, start, "middle");
  }
  const tag = {fontSize: max(9, width / 5), fontWeight: 400, color};
  if (extra) yield label("op", x + width - 4, y + height - 7, tag, "end");
}
// The text of a node in lines, broken as on the page.
function svgLines(node) {
  const style = getComputedStyle(node), [x, y, width, height] = placeOf(node);
  const pen = el("canvas").getContext("2d"), lines = [""];
  pen.font = `${style.fontWeight} ${style.fontSize} ${style.fontFamily}`;
  for (const word of node.innerText.trim().split(/\s+/)) {
    const line = `${lines.at(-1)} ${word}`.trim();
    if (pen.measureText(line).width <= width + 1 || !lines.at(-1)) lines[lines.length - 1] = line;
    else lines.push(word);
  }
  const step = parseFloat(style.lineHeight), shown = max(1, round(height / step));
  return lines.slice(0, shown).map((line, n) => label(line, x, y + (n + .5) * step, style));
}
function svgOf() {
  const figure = byId("figure"), sum = byId("equation"), [, y, , tall] = placeOf(sum);
  const width = Math.ceil(figure.offsetWidth) + 2 * MARGIN, height = y + tall + MARGIN;
  const all = kinds => [...figure.querySelectorAll(kinds)].filter(isShown);
  const cells = [...all(".cell:not(.lit)"), ...all(".lit"), ...all(".frame, .window")];
  const svg = svgEl("svg", {
    width, height, viewBox: `0 0 ${width} ${height}`,
    "font-family": "system-ui, 'DejaVu Sans', sans-serif",
  },
    svgEl("title", {}, "Transposed convolution"),
    svgEl("desc", {}, `${sum.textContent}; ${hashOf(state, EXAMPLE)}`),
    svgEl("rect", {width, height, fill: getComputedStyle(document.body).backgroundColor}),
    ...all("canvas").map(node => {
      const [x, y, width, height] = placeOf(node), href = node.toDataURL();
      return svgEl("image", {x, y, width, height, href, style: "image-rendering:pixelated"});
    }),
    ...cells.flatMap(node => [...svgCell(node)]),
    ...[...all("h2, .hint"), sum].flatMap(svgLines));
  return new XMLSerializer().serializeToString(svg);
}

function offer(blob, suffix) {
  const url = URL.createObjectURL(blob);
  el("a", {href: url, download: "transposed-convolution" + suffix}).click();
  setTimeout(() => URL.revokeObjectURL(url), 5000);
}
const saveSvg = () => offer(new Blob([svgOf()], {type: "image/svg+xml"}), ".svg");
function savePng() {
  const image = new Image();
  image.onload = () => {
    const width = 2 * image.width, height = 2 * image.height;
    const canvas = el("canvas", {width, height});
    canvas.getContext("2d").drawImage(image, 0, 0, width, height);
    canvas.toBlob(blob => offer(blob, ".png"), "image/png");
  };
  image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(svgOf());
}

// A frame in a notebook has no address: the link is the fragment for the example's page then.
async function copyLink() {
  const framed = location.protocol === "about:", field = byId("link").querySelector("input");
  const [page] = location.href.split("#");
  field.value = framed ? hashOf(state, EXAMPLE) || "#" : page + hashOf(state);
  let copied = !framed;
  try {
    await navigator.clipboard.writeText(field.value);
  } catch {
    copied = false;
  }
  byId("link").hidden = copied;
  if (!copied) field.select();
  setText("copy", copied ? "Copied" : "Copy link");
  setTimeout(() => setText("copy", "Copy link"), 1500);
}
