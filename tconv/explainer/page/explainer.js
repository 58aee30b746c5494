// Changes of the state, and the events that cause them.
let playing = 0;
// Lenses that draw the figure in their own way.
const OWN = {channels: drawChannels, picture: drawPicture};

function drawSteps() {
  const all = stepsOf(state), slider = byId("step");
  slider.max = all;
  slider.value = state.step;
  slider.ariaValueText = `${state.step} of ${all}`;
  setText("count", `${state.step}/${all}`);
  for (const [id, end] of [["back", 1], ["next", all]]) {
    byId(id).disabled = state.step === end && document.activeElement.id !== id;
  }
  setText("play", playing ? "❚❚ Pause" : "▶ Play");
  byId("lenses").querySelector(`[value=${state.lens}]`).checked = true;
}
// Draw all that depends on the step and the selection.
function draw() {
  const sel = active(), found = highlightsOf(sel);
  drawSteps();
  document.documentElement.dataset.lens = state.lens;
  for (const node of document.querySelectorAll("[data-for]")) {
    node.hidden = !node.dataset.for.includes(state.lens);
  }
  byId("custom").hidden = state.lens === "picture" || !custom();
  if (OWN[state.lens]) {
    byId("figure").className = "";
    for (const id of "xy") setText("more-" + id, "");
    OWN[state.lens](sel, found);
  } else {
    drawFigure(sel, found);
    drawMatrix(sel, found);
  }
  drawSum(sel);
  restoreFocus();
  scheduleLabels();
}
// Draw each lens once while the page is idle: making many cells takes longer than a change may.
function prepare([lens, ...others]) {
  const kept = state;
  if (OWN[kept.lens]) return;
  if (lens !== kept.lens && !playing && !hover && !document.activeElement.matches(".cell")) {
    for (state of [nearestState({...kept, lens, step: 0}), kept]) {
      drawFigure(active(), highlightsOf(active()));
      byId("figure").offsetHeight; // forces the layout
    }
    scheduleLabels();
  }
  if (others.length) window.requestIdleCallback?.(() => prepare(others));
}

function warn(words) {
  byId("note").hidden = !words;
  setText("note", words || "");
}

// ---- changes ---------------------------------------------------------------------------------
function update(next, notes = []) {
  state = nearestState(next);
  axes = axesOf(state);
  labels.clear(); // of the facts before
  ({facts: F, pairsOf, outputOf, equationOf} = compute(state));
  hover = "";
  warn(notes.length && `This link was not quite right: ${[...new Set(notes)].join("; ")}.`);
  drawLaw();
  drawSettings();
  fit();
  drawDetails();
  saveAddress();
}
// Draw in the room that the window has now.
function fit() {
  if (!room.folded) byId("equation").style.setProperty("--room", sumRoom() + "px");
  measure();
  draw();
  try { // a frame of the same site is as high as a page whose grids stand below each other
    const {offsetHeight, clientHeight, style} = frameElement || {};
    const high = document.body.scrollHeight + offsetHeight - clientHeight;
    if (style && room.folded) style.height = high + "px";
  } catch {
    // A frame of another site keeps its height.
  }
}
function present(wanted) {
  document.documentElement.classList.toggle("present", wanted);
  setText("present", wanted ? "✕ Leave (Esc)" : "Present");
  fit();
}
const presents = () => document.documentElement.matches(".present");
function load(hash) {
  const {state: next, notes} = parse(hash);
  separateAxes = needsApart(next);
  loading = true;
  update(next, notes);
  loading = false;
}
// Write the address, at most every 200 ms. Back leads to the state before: each change has an entry
// of its own, a run of steps and selections one together. A frame has none: Back is the page's
// around it.
let saving = 0, pending = {}, wasStep = false, loading = false;
function saveAddress(isStep = false) {
  const isEntry = !loading && window === window.top && !(isStep && wasStep);
  if (isEntry && saving) writeAddress();
  wasStep = isStep && !loading;
  pending = {hash: hashOf(state), isEntry: isEntry || saving && pending.isEntry};
  saving ||= setTimeout(writeAddress, 200);
}
function writeAddress() {
  clearTimeout(saving);
  saving = 0;
  const {hash, isEntry} = pending, isNew = hash !== location.hash;
  try {
    history[isEntry && isNew ? "pushState" : "replaceState"](null, "",
      hash || location.pathname + location.search);
  } catch {
    // A frame in a notebook has no address.
  }
}
function setHover(sel) {
  if (sel === hover) return;
  hover = sel;
  draw();
}
function select(sel, isEntry = false) {
  state.sel = sel;
  draw();
  saveAddress(!isEntry);
}
function step(to) {
  state.step = min(max(to, 1), stepsOf(state));
  if (state.step >= stepsOf(state)) stop();
  hover = "";
  select("");
}
function stop() {
  clearInterval(playing);
  playing = 0;
}
function play() {
  if (playing) stop();
  else {
    playing = setInterval(() => step(state.step + 1), byId("speed").value);
    if (state.step >= stepsOf(state)) state.step = 1;
  }
  hover = "";
  select(playing ? "" : state.sel);
}
function setLens(lens) {
  stop();
  const alike = [lens, state.lens].every(name => name === "collect" || name === "conv");
  const kept = {...state, lens, step: lens === "stamp" ? 1 : alike ? state.step : 0};
  if (OWN[lens] || OWN[state.lens]) {
    update(enter(lens, kept));
    return;
  }
  state = nearestState(kept);
  hover = "";
  if (!byId("note").hidden) {
    warn("");
    measure();
  }
  select(state.sel, true);
}
function pin(sel) {
  if (!/^[oikm]/.test(sel)) return;
  stop();
  select(state.sel === sel ? "" : sel);
}
// Put an input field over a cell of the input or the kernel.
function edit(cell) {
  const editable = /^[ik]/.test(cell.dataset.sel), [r, c] = pointOf(cell.dataset.sel);
  if (!editable || cell.querySelector("input")) return;
  const field = el("input", {type: "text", inputmode: "decimal", "aria-label": "new value"});
  const sel = cell.dataset.sel, before = field.value = exact(rowsAt(state, sel)[r][c]);
  const finish = (keeps, refocus) => {
    const typed = field.value.trim(), next = copyOf(state), {value, why} = readTyped(typed);
    const changes = keeps && typed !== before;
    if (changes && why && refocus) { // the field stays, to be mended
      field.ariaInvalid = true;
      warn(`${why}.`);
      return;
    }
    field.onblur = null;
    field.remove();
    if (refocus) cell.focus();
    if (!changes) return;
    if (why) {
      warn(`${why}.`);
      return;
    }
    rowsAt(next, sel)[r][c] = value;
    update(next);
    if (refocus) setHover(sel);
  };
  field.onblur = () => finish(true, false);
  field.onkeydown = event => {
    event.stopPropagation();
    if (event.key !== "Enter" && event.key !== "Escape") return;
    event.preventDefault();
    finish(event.key === "Enter", true);
  };
  cell.append(field);
  field.focus();
  field.select();
}

// ---- events ----------------------------------------------------------------------------------
function on(node, name, react) {
  (typeof node === "string" ? byId(node) : node).addEventListener(name, react);
}
const selectable = event => event.target.closest("[data-sel]");

function onGridKey(event) {
  const cell = selectable(event);
  if (!cell?.matches(".cell")) return;
  const next = targetOf(cell, event);
  if (next) {
    setTabStop(next);
    next.focus();
  } else if (event.key === "Enter") pin(cell.dataset.sel);
  else if (event.key === "F2") edit(cell);
  else return;
  event.preventDefault();
}
for (const place of [...[..."xwymzn"].map(name => "grid-" + name), "channels", "law"]) {
  const onHover = event => {
    const cell = selectable(event);
    if (!playing && !focusLost) setHover(cell?.dataset.sel || "");
    if (event.type === "focusin") writeLabels();
    if (cell?.matches(".cell")) cell.title = cell.label();
  };
  on(place, "mouseover", onHover);
  on(place, "focusin", onHover);
  on(place, "mouseleave", () => setHover(""));
  on(place, "focusout", () => playing || setHover(""));
  on(place, "keydown", onGridKey);
  on(place, "dblclick", event => edit(selectable(event)));
  on(place, "click", event => {
    const cell = selectable(event);
    if (!cell?.matches(".cell") || event.target.matches("input")) return;
    setTabStop(cell);
    pin(cell.dataset.sel);
  });
}
on("lenses", "change", event => setLens(event.target.value));
const goTo = to => { stop(); step(to); };
on("back", "click", () => goTo(state.step - 1));
on("next", "click", () => goTo(state.step + 1));
on("step", "input", event => goTo(event.target.value));
on("play", "click", play);
on("speed", "change", () => playing && (stop(), play()));
on("copy", "click", copyLink);
on("svg", "click", saveSvg);
on("png", "click", savePng);
on("turn", "click", () => { turned = !turned; fit(); });
on("present", "click", () => present(!presents()));
on(window, "resize", fit);
for (const id of ["x", "w", "y", "m"]) {
  const box = byId("scroll-" + id);
  on(box, "scroll", () => { box.at = [box.scrollLeft, box.scrollTop]; drawMore(box); });
}
on("reset", "click", () => { separateAxes = false; update(EXAMPLE); });
on("panel-m", "toggle", fit);
for (const id in DETAILS) on(id, "toggle", drawDetails);
on(document, "keydown", event => {
  const {key, target} = event;
  if (key === "Escape" && state.sel) select("");
  else if (key === "Escape" && presents()) present(false);
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (target.matches("select, [type=text]")) return;
  if (key === "p" || key === "P") present(!presents());
  const way = {PageDown: 1, PageUp: -1}[key]; // the keys of a presenter's remote control
  if (way && presents()) {
    event.preventDefault();
    goTo(state.step + way);
  }
  if (/^[1-5]$/.test(key)) setLens(LENSES[key - 1]);
  if (key === " " && !target.matches("button, summary, input:not([type=range])")) {
    event.preventDefault();
    play();
  }
});
on(window, "hashchange", () => load(location.hash));
const foldMatrix = () => { byId("panel-m").open = !narrow.matches; };
on(narrow, "change", () => { foldMatrix(); fit(); });
let closed = [];
on(window, "beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  closed.forEach(details => { details.open = true; });
  draw();
  drawDetails();
});
on(window, "afterprint", () => closed.forEach(details => { details.open = false; }));

document.documentElement.className = "live";
byId("still").remove();
foldMatrix();
makeChannels();
makePicture();
makeSettings();
load(location.hash);
writeLabels();
const kept = LENSES.filter(lens => !OWN[lens]);
if (F.canvas.length > 16) window.requestIdleCallback?.(() => prepare(kept));
window.tconv = {
  set: load, facts: () => F, state: () => state, hash: () => hashOf(state), channels: channelFacts,
};
