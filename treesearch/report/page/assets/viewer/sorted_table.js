// Gives `sortedTable`: a table of many rows, sorted by any of its columns.

const NUM_ROWS = 50; // rows that a table shows at first, and shows more at a time

const ORDER_SIGNS = { ascending: "\u00a0▲", descending: "\u00a0▼", other: "\u00a0|▼|" };

// A table of many rows of which few are shown, sorted by the buttons in its heads.
//
// `columns`: {title, value(row), cell(row), isText, bySize}; `bySize` sorts by the absolute value at first.
// `sort` is the column sorted by at first; rows that are equal keep the order in which they are given.
function sortedTable({ label, columns, rows, sort, numRows = NUM_ROWS }) {
  const order = columns[sort].bySize ? "other" : "descending";
  const state = { column: sort, order, num: numRows, rows, sorted: [] };
  const body = make("tbody");
  const status = make("p", { class: "note", "aria-live": "polite" });
  const more = make("button", { type: "button", class: "button", click: () => { state.num += NUM_ROWS; render(); } });
  const heads = columns.map((column, i) => make(
    "th", { scope: "col", ...(column.isText ? {} : { class: "number" }) },
    make(
      "button", { type: "button", class: "sort", click: () => turn(i) },
      column.title, make("span", { "aria-hidden": "true" }),
    ),
  ));

  function turn(i) {
    const orders = columns[i].bySize ? ["other", "descending", "ascending"]
      : columns[i].isText ? ["ascending", "descending"] : ["descending", "ascending"];
    state.order = state.column === i ? orders[(orders.indexOf(state.order) + 1) % orders.length] : orders[0];
    state.column = i;
    state.num = numRows;
    arrange();
    render();
  }

  function arrange() {
    const { value, isText } = columns[state.column];
    const keys = new Map(state.rows.map((row) => [row, state.order === "other" ? Math.abs(value(row)) : value(row)]));
    const up = state.order === "ascending" ? 1 : -1;
    const compare = isText ? new Intl.Collator("en").compare : (a, b) => (a < b ? -1 : a > b ? 1 : 0);
    state.sorted = [...state.rows].sort((a, b) => up * compare(keys.get(a), keys.get(b)));
  }

  function render() {
    heads.forEach((head, i) => {
      const order = i === state.column ? state.order : null;
      if (order) head.setAttribute("aria-sort", order);
      else head.removeAttribute("aria-sort");
      head.querySelector("span").textContent = order ? ORDER_SIGNS[order] : "";
    });
    const shown = state.sorted.slice(0, state.num);
    body.replaceChildren(...shown.map((row) => stackingRow(columns, columns.map((column) => column.cell(row)))));
    const left = state.sorted.length - shown.length;
    more.hidden = left <= 0;
    more.textContent = `Show ${whole(Math.min(left, NUM_ROWS))} more`;
    status.textContent = `${whole(shown.length)} of ${whole(state.sorted.length)} shown`;
  }

  arrange();
  render();
  return {
    element: make("div", {}, stackingTable(label, heads, body), make("div", { class: "below" }, status, more)),
    setRows(given) {
      Object.assign(state, { rows: given, num: numRows });
      arrange();
      render();
    },
  };
}
