// Gives `makeIcicle`: the top of a tree as cells that open, with breadcrumbs, a line of details, and its keys.

const [NARROW, WIDE] = [520, 900]; // pixels, of the icicle: fewer levels below them
const NUM_TRIED = 12; // nodes above a class under which it may be seen
const NUM_BEFORE = 6; // siblings that stand before a class which is looked for

// The icicle with its breadcrumbs and the line of details. `viewer` is what mountTreeViewer shares among the parts.
function makeIcicle(viewer) {
  const crumbs = make("ol", { class: "crumbs" });
  const field = make(
    "div", { class: "icicle", role: "group", keydown: onKey, focusin: onPoint, pointerover: onPoint },
  );
  const details = make("p", { class: "details" });
  const spoken = make("p", { class: "unseen", role: "status" });
  const element = make(
    "div", {},
    make("nav", { "aria-label": "Nodes above the one shown" }, crumbs),
    field, details, spoken,
  );
  const state = { root: 0, from: 0, cells: [], buttons: [] };
  let width = 0;

  const numLevels = () => (width < NARROW ? 2 : width < WIDE ? 3 : 4);
  // Of what is below a node: a few lines for a few classes.
  const height = (node, from) => {
    const num = from > 0 ? viewer.tree.children(node).length - from : viewer.tree.numClasses[node];
    return Math.min(width < NARROW ? 22 : 28, Math.max(4, Math.ceil(1.5 * num))) * LINE;
  };
  const onPath = (node) => viewer.chosen !== null && viewer.chosenLine.has(node);

  // What a node is called: its own name, else its words; a leaf by its class.
  function title(node) {
    return joined(viewer.words(viewer.tree, node).map(named));
  }

  const moreText = (cell) =>
    (cell.isAll ? counted(cell.more, "child", "children") : counted(cell.more, "more child", "more children"));

  function describe(cell) {
    const { tree } = viewer;
    if (cell.more !== undefined) {
      const what = `${moreText(cell)}, ${percent(cell.share)} of the examples`;
      return [what, cell.openable ? "; Enter or a click shows them" : ": rare classes, which are not in the page"];
    }
    const share = `${percent(tree.share(cell.node))} of the examples`;
    if (tree.isLeaf(cell.node)) {
      const cls = tree.classAt(cell.node);
      const code = `depth ${tree.depth[cls]}, code length ${decimal(tree.bits[cls])} bits`;
      return [make("strong", {}, title(cell.node)), ` — class ${viewer.ids[cls]}: ${share}, ${code}`];
    }
    const facts = [
      share, counted(tree.numClasses[cell.node], "class", "classes"), `${tree.arity[cell.node]}-way decision`,
      tree.projection[cell.node] ? `projection to ${tree.projection[cell.node]}` : null,
    ];
    const name = tree.facts.nodeNames && tree.facts.nodeNames[cell.node];
    const words = name ? [" — like ", ...joined(viewer.classWords(tree, cell.node).map(named), ", ")] : [];
    return [make("strong", {}, title(cell.node)), ` — ${facts.filter(Boolean).join(", ")}`, ...words];
  }

  function button(cell, columns) {
    const { tree } = viewer;
    const isMore = cell.more !== undefined;
    const found = !isMore && onPath(cell.node);
    const kind = isMore ? "more" : cell.level === 0 ? "root" : tree.isLeaf(cell.node) ? "leaf" : "inner";
    const level = Math.min(cell.level, 4);
    const attributes = {
      class: `cell ${kind}${found ? " found" : ""}${level ? ` branch-${cell.branch + 1} level-${level}` : ""}`,
      type: "button", tabindex: "-1", click: () => open(cell), "data-node": cell.node,
      "aria-disabled": isMore && !cell.openable ? "true" : null,
    };
    const text = isMore ? [cell.isAll ? moreText(cell) : `${whole(cell.more)} more`] : title(cell.node);
    const element = make(
      "button", attributes,
      make("span", { class: "words" }, found ? "◆ " : null, text),
      make("span", { class: "share" }, percent(cell.share)),
    );
    if (cell.level > 0) {
      element.style.left = `${(100 * (cell.level - 1)) / columns}%`;
      element.style.width = `${100 / columns}%`;
      element.style.top = `${cell.top}px`;
      element.style.height = `${cell.height}px`;
      if (cell.height >= 2 * LINE && kind === "inner") {
        const classes = counted(tree.numClasses[cell.node], "class", "classes");
        element.append(make("span", { class: "extra" }, `${classes}, ${tree.arity[cell.node]}-way`));
      }
    }
    const label = describe(cell).map((part) => (typeof part === "string" ? part : part.textContent)).join("");
    element.setAttribute("aria-label", `${label}${cell.level ? `; level ${cell.level} below` : "; shown"}`);
    return element;
  }

  function render(focus = null) {
    const { tree } = viewer;
    const root = { node: state.root, level: 0, share: tree.share(state.root), owner: null, branch: 0 };
    const inner = layOut(tree, state.root, state.from, numLevels(), height(state.root, state.from));
    for (const cell of inner) cell.owner ??= root;
    state.cells = [root, ...inner];
    const columns = inner.reduce((deepest, cell) => Math.max(deepest, cell.level), width < NARROW ? 1 : 2);
    state.buttons = state.cells.map((cell) => button(cell, columns));
    const body = make("div", { class: "body" }, state.buttons.slice(1));
    body.style.height = `${inner.length ? height(state.root, state.from) : 0}px`;
    field.replaceChildren(state.buttons[0], body);
    field.setAttribute(
      "aria-label",
      `Icicle of ${tree.name}. Arrow keys move between parent, children and neighbours, Enter opens, Escape goes up.`,
    );
    renderCrumbs();
    let target = state.cells.findIndex((cell) => cell.node !== undefined && cell.node === focus);
    if (target < 0) target = 0;
    state.buttons[target].tabIndex = 0;
    if (focus !== null) state.buttons[target].focus({ preventScroll: true });
    details.replaceChildren(...describe(state.cells[target]));
  }

  function renderCrumbs() {
    const { tree } = viewer;
    const line = tree.lineage(state.root);
    const numSkipped = Math.max(0, line.length - 6);
    const listed = numSkipped ? [...line.slice(0, 2), ...line.slice(-4)] : line;
    const entries = listed.flatMap((node, i) => {
      const isLast = node === state.root && state.from === 0;
      const crumb = make("button", { type: "button", class: "crumb", click: () => show(node, 0, node) }, title(node));
      if (isLast) crumb.setAttribute("aria-current", "true");
      const gap = numSkipped && i === 1 ? [make("li", {}, `… ${counted(numSkipped, "node")} …`)] : [];
      return [make("li", {}, crumb), ...gap];
    });
    if (state.from > 0) {
      const text = `from child ${whole(state.from + 1)} on`;
      entries.push(make("li", {}, make("span", { "aria-current": "true" }, text)));
    }
    crumbs.replaceChildren(...entries);
  }

  // Show what is below a node, from one of its children on; `focus` is the node whose cell gets the focus.
  function show(node, from = 0, focus = null) {
    Object.assign(state, { root: node, from });
    render(focus);
    spoken.textContent = `Shown: ${viewer.words(viewer.tree, node).join(", ")}`;
  }

  function open(cell) {
    const { tree } = viewer;
    if (cell.more !== undefined && !cell.openable) return; // it has the focus like others, to be read
    if (cell.more !== undefined) show(cell.of, cell.from, cell.of);
    else if (cell.level === 0) goUp();
    else if (tree.isLeaf(cell.node)) viewer.choose(tree.classAt(cell.node), { zoom: false, focus: cell.node });
    else show(cell.node, 0, cell.node);
  }

  function goUp() {
    const above = viewer.tree.parent[state.root];
    if (state.from > 0) show(state.root, 0, state.root);
    else if (above >= 0) show(above, 0, state.root);
  }

  function onPoint(event) {
    const at = state.buttons.indexOf(event.target.closest("button"));
    if (at >= 0) details.replaceChildren(...describe(state.cells[at]));
  }

  // The cell that an arrow key leads to.
  function neighbour(at, key) {
    const { cells } = state;
    const cell = cells[at];
    if (key === "ArrowLeft") return cells.indexOf(cell.owner);
    if (key === "ArrowRight") return cells.findIndex((other) => other.owner === cell);
    const column = cells.map((_, i) => i).filter((i) => cells[i].level === cell.level);
    const place = column.indexOf(at);
    if (key === "ArrowUp") return column[place - 1] ?? (cell.level > 0 && place === 0 ? 0 : -1);
    if (key === "ArrowDown") return column[place + 1] ?? (cell.level === 0 ? Math.min(1, cells.length - 1) : -1);
    if (key === "Home") return column[0];
    return column[column.length - 1];
  }

  function onKey(event) {
    const at = state.buttons.indexOf(event.target.closest("button"));
    if (at < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Backspace" || event.key === "Escape") {
      goUp();
    } else if (["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"].includes(event.key)) {
      const to = neighbour(at, event.key);
      if (to >= 0) {
        state.buttons[at].tabIndex = -1;
        state.buttons[to].tabIndex = 0;
        state.buttons[to].focus();
      }
    } else {
      return;
    }
    event.preventDefault();
  }

  // Show the highest node under which the leaf of a class can be seen.
  function reveal(cls) {
    const { tree } = viewer;
    const leaf = tree.leafOf[cls];
    const above = tree.lineage(leaf).slice(0, -1);
    const isSeen = (node) => layOut(tree, node, 0, numLevels(), height(node, 0)).some((cell) => cell.node === leaf);
    const highest = above.slice(-NUM_TRIED).find(isSeen);
    if (highest !== undefined) return show(highest);
    if (!above.length) return show(0); // the only class
    const parent = above[above.length - 1];
    return show(parent, Math.max(0, tree.children(parent).indexOf(leaf) - NUM_BEFORE));
  }

  const observer = new ResizeObserver(() => {
    if (field.clientWidth === width || field.clientWidth === 0) return;
    const before = [numLevels(), width < NARROW];
    width = field.clientWidth;
    if (before[0] !== numLevels() || before[1] !== width < NARROW) render();
  });
  return {
    element, show, reveal,
    refresh: (focus = null) => render(focus),
    watch() {
      width = field.clientWidth || 1000;
      observer.observe(field);
    },
  };
}
