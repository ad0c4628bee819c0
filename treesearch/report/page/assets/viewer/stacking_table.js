// Gives `stackingTable` and `stackingRow`: a table of figures whose cells stand below each other in a narrow window,
// each with the title of its column, so that nothing is to be scrolled sideways. That layout is in viewer.css. Gives
// `foldable` too, for tables that are laid out otherwise there.

const ROLES = { thead: "rowgroup", tbody: "rowgroup", "thead tr": "row", "thead th": "columnheader" };

// The table, its roles said aloud: elements lose them in some browsers once they are not laid out as a table. Its rows
// are to say theirs.
function foldable(table) {
  table.setAttribute("role", "table");
  for (const [selector, role] of Object.entries(ROLES)) {
    for (const part of table.querySelectorAll(selector)) part.setAttribute("role", role);
  }
  return table;
}

// A table in a box; `heads` are the `th` of its columns.
function stackingTable(label, heads, body) {
  const caption = make("caption", { class: "unseen" }, label);
  return tableBox(label, foldable(make("table", { class: "table stacking" }, caption, headRow(heads), body)));
}

// A row of what stands in each column; `columns`: {title, isText}.
function stackingRow(columns, contents, attributes = {}) {
  return make("tr", { role: "row", ...attributes }, columns.map(({ title, isText }, i) => {
    const kind = isText ? "words" : "number";
    return i
      ? make("td", { class: kind, role: "cell", "data-title": title }, contents[i])
      : make("th", { class: kind, role: "rowheader", scope: "row" }, contents[i]);
  }));
}
