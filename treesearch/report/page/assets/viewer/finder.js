// Gives `makeFinder`: the search for a class by its name.

const NUM_MATCHES = 12; // classes that the search lists

// Classes that match: equal ones first, then those that begin with the text, then those that hold it; heavier first.
function makeMatcher(names, shares) {
  let prepared = null;
  return (text) => {
    prepared ??= {
      lower: names.map((name) => name.normalize("NFC").toLowerCase()),
      order: Array.from(names.keys()).sort((a, b) => shares[b] - shares[a] || a - b),
    };
    const wanted = text.normalize("NFC").toLowerCase();
    const ranked = [[], [], []];
    for (const cls of prepared.order) {
      const at = prepared.lower[cls].indexOf(wanted);
      if (at < 0) continue;
      const kind = at > 0 ? 2 : prepared.lower[cls].length === wanted.length ? 0 : 1;
      if (ranked[kind].length < NUM_MATCHES) ranked[kind].push(cls);
    }
    return ranked.flat().slice(0, NUM_MATCHES);
  };
}

// The combobox "Find a class" (the pattern of ARIA 1.2: the focus stays in the field).
function makeFinder(viewer) {
  const match = makeMatcher(viewer.names, viewer.shares);
  const listId = newId("matches");
  const inputId = newId("find");
  const list = make("ul", { class: "matches", id: listId, role: "listbox", "aria-label": "Classes", hidden: true });
  const input = make("input", {
    class: "find", id: inputId, type: "text", role: "combobox", autocomplete: "off", spellcheck: "false",
    autocapitalize: "none", "aria-autocomplete": "list", "aria-expanded": "false", "aria-controls": listId,
    placeholder: "type a name", input: () => update(), keydown: onKey, blur: () => close(),
    focus: () => input.select(),
  });
  const status = make("p", { class: "unseen", role: "status" });
  let found = [];
  let active = -1;

  function update() {
    found = input.value === "" ? [] : match(input.value);
    active = -1;
    const options = found.map((cls, i) => make(
      "li",
      {
        class: "match", role: "option", id: `${listId}-${i}`, "aria-selected": "false",
        // The field would lose the focus, and with it the list, before a click is one.
        pointerdown: (event) => event.preventDefault(), click: () => pick(i),
      },
      make("span", { class: "words" }, named(viewer.names[cls])),
      make("span", { class: "share" }, percent(viewer.shares[cls])),
    ));
    if (input.value !== "" && !found.length) {
      const attributes = { class: "nothing", role: "option", "aria-disabled": "true" };
      options.push(make("li", attributes, "No class has this in its name"));
    }
    list.replaceChildren(...options);
    list.hidden = !options.length;
    input.setAttribute("aria-expanded", String(options.length > 0));
    input.removeAttribute("aria-activedescendant");
    status.textContent = input.value === "" ? "" : counted(found.length, "match", "matches");
  }

  function close() {
    list.hidden = true;
    active = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  }

  function mark(to) {
    active = to;
    [...list.children].forEach((option, i) => option.setAttribute("aria-selected", String(i === to)));
    input.setAttribute("aria-activedescendant", `${listId}-${to}`);
    list.children[to].scrollIntoView({ block: "nearest" });
  }

  function pick(i) {
    const cls = found[i];
    close();
    viewer.choose(cls);
  }

  function onKey(event) {
    if (event.isComposing) return;
    const { key } = event;
    if (key === "ArrowDown" || key === "ArrowUp") {
      if (list.hidden) update();
      if (!found.length) return;
      const step = key === "ArrowDown" ? 1 : -1;
      mark(active < 0 ? (step > 0 ? 0 : found.length - 1) : (active + step + found.length) % found.length);
    } else if (key === "Enter" && !list.hidden && found.length) {
      pick(Math.max(active, 0));
    } else if (key === "Escape" && !list.hidden) {
      close();
    } else if (key === "Escape") {
      input.value = "";
    } else {
      return;
    }
    event.preventDefault();
  }

  const element = make(
    "div", { class: "finder" }, make("label", { for: inputId }, "Find a class"),
    make("div", { class: "combo" }, input, list), status,
  );
  return { element, set: (cls) => { input.value = viewer.names[cls]; } };
}
