// Interaction of the gallery: the place of a tile in its image, and sorting of the table.
"use strict";
{
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const by = (id) => document.getElementById(id);
  const tiles = [...document.querySelectorAll("button.tile")];
  const rows = [...document.querySelectorAll("#table tbody tr")];

  // Show the receptive field of a tile in its image; the box may reach beyond the image.
  function highlight(at) {
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
    by("unit").hidden = !tile.place.length;
    by("unit").style.top = `${(100 * tile.place[0]) / image.height}%`;
    by("unit").style.left = `${(100 * tile.place[1]) / image.width}%`;
    by("where").textContent = `${image.name}: ${tile.text}`;
    by("place").hidden = false;
    by("hint").hidden = true;
    for (const each of tiles) each.classList.toggle("lit", Number(each.dataset.at) === at);
    for (const each of rows) each.classList.toggle("lit", Number(each.dataset.at) === at);
  }

  for (const tile of tiles) {
    const at = Number(tile.dataset.at);
    tile.addEventListener("pointerenter", () => highlight(at));
    tile.addEventListener("focus", () => highlight(at));
    tile.addEventListener("click", () => highlight(at));
  }
  for (const row of rows) {
    row.addEventListener("pointerenter", () => highlight(Number(row.dataset.at)));
  }

  // Sort by a column: first in descending order, then the order changes with each click.
  const headers = [...document.querySelectorAll("#table th")];
  headers.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") === "descending";
      for (const each of headers) each.setAttribute("aria-sort", "none");
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
