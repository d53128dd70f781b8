// Columns sort by a click or a key on their heading: up, down, and as they were. Rows stay in their block.
document.querySelectorAll("table.sortable").forEach(function (table) {
  var bodies = Array.prototype.slice.call(table.tBodies);
  var original = bodies.map(function (body) { return Array.prototype.slice.call(body.rows); });
  var heads = Array.prototype.slice.call(table.querySelectorAll("th[data-column]"));
  function key(row, column) {
    var cell = row.cells[column];
    if (!cell) return null;
    if (cell.dataset.sort !== undefined) return parseFloat(cell.dataset.sort);
    return cell.textContent.trim().toLowerCase() || null;
  }
  function compare(a, b, factor) {
    if (a === null || b === null) return (a === null) - (b === null); // nothing to sort by: last, either way
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return factor * (typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true }));
  }
  function sort(head) {
    var before = head.getAttribute("aria-sort");
    var after = before === "ascending" ? "descending" : before === "descending" ? "none" : "ascending";
    heads.forEach(function (other) { other.setAttribute("aria-sort", "none"); });
    head.setAttribute("aria-sort", after);
    var column = Number(head.dataset.column), factor = after === "descending" ? -1 : 1;
    bodies.forEach(function (body, index) {
      var rows = original[index].filter(function (row) { return !row.classList.contains("block"); });
      if (after !== "none") {
        rows = rows.map(function (row, place) { return { row: row, key: key(row, column), place: place }; })
          .sort(function (a, b) { return compare(a.key, b.key, factor) || a.place - b.place; })
          .map(function (item) { return item.row; });
      }
      rows.forEach(function (row) { body.appendChild(row); });
    });
  }
  heads.forEach(function (head) {
    var button = document.createElement("button");
    button.type = "button";
    while (head.firstChild) button.appendChild(head.firstChild);
    button.addEventListener("click", function () { sort(head); });
    head.appendChild(button);
    head.setAttribute("aria-sort", "none");
    button.title = "Sort by this column";
  });
});
