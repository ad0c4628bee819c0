// Gives the elements that all parts are made of: `make`, `named`, `joined`, `note`, `headRow`, `tableBox`, and `newId`.
// Names come from users: they reach the page as text nodes only, which is what `make` does with all strings.

let lastId = 0;
const newId = (stem) => `tv-${stem}-${++lastId}`;

// An element with attributes (functions are listeners, `class` gets the prefix) and children; strings become text.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (key === "class") element.className = value.split(" ").map((name) => `tv-${name}`).join(" ");
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value != null) element.setAttribute(key, String(value));
  }
  element.append(...children.flat().filter((part) => part != null));
  return element;
}

// A name from outside: text, with a direction of its own.
const named = (text) => make("bdi", {}, text);

// Bare text between names, such as "a · b", as a list of nodes.
const joined = (parts, between = " · ") => parts.flatMap((part, i) => (i ? [between, part] : [part]));

const note = (...parts) => make("p", { class: "note" }, ...parts);
const headRow = (heads) => make("thead", {}, make("tr", {}, heads));

// A table that scrolls by itself where it is too wide.
function tableBox(label, table) {
  return make("div", { class: "scroll", role: "region", "aria-label": label, tabindex: "0" }, table);
}
