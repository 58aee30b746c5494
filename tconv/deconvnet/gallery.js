// What the page of tiles answers: where a tile lies in its image, and the order of the table.
"use strict";
{
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const by = (id) => document.getElementById(id);
  const tiles = [...document.querySelectorAll("button.tile")];
  const rows = [...document.querySelectorAll("#table tbody tr")];

  // Show where in its image a tile lies; a box may reach beyond the image.
  function light(at) {
    const tile = facts.tiles[at];
    const image = facts.images[tile.image];
    by("whole").src = image.src;
    by("whole").alt = `the image ${image.name}`;
    const [[top, bottom], [left, right]] = tile.box;
    const style = by("box").style;
    style.left = `${(100 * left) / image.width}%`;
    style.top = `${(100 * top) / image.height}%`;
    style.width = `${(100 * (right - left + 1)) / image.width}%`;
    style.height = `${(100 * (bottom - top + 1)) / image.height}%`;
    by("where").textContent = `${image.name}: ${tile.text}`;
    by("place").hidden = false;
    by("hint").hidden = true;
    for (const each of tiles) each.classList.toggle("lit", Number(each.dataset.at) === at);
    for (const each of rows) each.classList.toggle("lit", Number(each.dataset.at) === at);
  }

  for (const tile of tiles) {
    const at = Number(tile.dataset.at);
    tile.addEventListener("pointerenter", () => light(at));
    tile.addEventListener("focus", () => light(at));
    tile.addEventListener("click", () => light(at));
  }
  for (const row of rows) row.addEventListener("pointerenter", () => light(Number(row.dataset.at)));

  // Sort by a column: the first time the largest first, then turned round.
  const heads = [...document.querySelectorAll("#table th")];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") === "descending";
      for (const each of heads) each.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = (row) => row.cells[column].dataset.value;
      const compare = head.classList.contains("text")
        ? (a, b) => value(a).localeCompare(value(b))
        : (a, b) => Number(value(a)) - Number(value(b));
      rows.sort((a, b) => (up ? compare(a, b) : compare(b, a)));
      document.querySelector("#table tbody").append(...rows);
    });
  });
}
