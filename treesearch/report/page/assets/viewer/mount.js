// Gives the page `mountTreeViewer(element, data)`: it fills `element` with the viewer of `data`, which is what
// treesearch/report/page/tree_data.py made. Facts are computed there; here they are unpacked, laid out and shown. Only
// what can be seen is in the document, however large the tree is.

const NUM_WORDS = 3; // classes that name a node

// Fill `element` with the viewer of `data`, see treesearch/report/page/tree_data.py. What is given back tells what is
// chosen (`state()`, JSON-able), and chooses it again in a viewer of newer data (`restore(state)`).
function mountTreeViewer(element, data) {
  const shares = unpack(data.share);
  const opened = new Map();
  const open = (i) => {
    if (!opened.has(i)) opened.set(i, openTree(data.trees[i], shares));
    return opened.get(i);
  };
  const viewer = {
    names: data.names, shares, ids: unpack(data.ids), idealBits: unpack(data.idealBits),
    neighbours: data.neighbours && {
      ...data.neighbours, nearest: unpack(data.neighbours.nearest), cosine: unpack(data.neighbours.cosine),
    },
    treeIndex: 0, tree: open(0), reference: open(data.reference), chosen: null, chosenLine: new Set(),
    treeTitle: (tree) => (tree.name === "huffman" ? "Huffman's tree" : tree.name),
    // Names of the classes that stand for a node.
    classWords(tree, node) {
      if (tree.isLeaf(node)) return [data.names[tree.classAt(node)]];
      const own = tree.words.subarray(node * NUM_WORDS, (node + 1) * NUM_WORDS);
      const words = Array.from(own).filter((cls) => cls >= 0).map((cls) => data.names[cls]);
      return words.length ? words : [`node ${node}`];
    },
    // What a node is called: its name of the taxonomy, if any, else its words; the root has nothing to be told from.
    words(tree, node) {
      if (node === 0 && !tree.isLeaf(0)) return ["all classes"];
      const name = !tree.isLeaf(node) && tree.facts.nodeNames && tree.facts.nodeNames[node];
      return name ? [name] : viewer.classWords(tree, node);
    },
    link: (cls) => make(
      "button", { type: "button", class: "link", click: () => viewer.choose(cls, { scroll: true }) },
      named(data.names[cls]),
    ),
    zoom(node) {
      icicle.show(node, 0, node);
      icicle.element.scrollIntoView({ block: "nearest" });
    },
    // Show the path of a class, and where it is in the icicle.
    choose(cls, { zoom = true, scroll = false, focus = null } = {}) {
      viewer.chosen = cls;
      markLine();
      finder.set(cls);
      renderClass(viewer, classBox);
      if (zoom) icicle.reveal(cls);
      else icicle.refresh(focus);
      if (scroll) classPart.scrollIntoView({ block: "start" });
      spoken.textContent = `Path of ${data.names[cls]} shown`;
    },
  };

  function markLine() {
    viewer.chosenLine = new Set(viewer.chosen === null ? [] : viewer.tree.lineage(viewer.tree.leafOf[viewer.chosen]));
  }

  const spoken = make("p", { class: "unseen", role: "status" });
  const finder = makeFinder(viewer);
  const icicle = makeIcicle(viewer);
  const [treesBox, classBox, changesBox, siblingsBox] = [0, 1, 2, 3].map(() => make("div"));
  const selectId = newId("tree");
  const select = make(
    "select", { class: "select", id: selectId, change: () => useTree(Number(select.value)) },
    data.trees.map((one, i) => make("option", { value: i }, one.name)),
  );
  const part = (title, ...children) => {
    const id = newId("part");
    return make("section", { class: "part", "aria-labelledby": id }, make("h3", { id }, title), children);
  };
  const classPart = part("The path of a class", classBox);
  const against = viewer.treeTitle(viewer.reference);
  const comparison = [
    part(`Against ${against}`, changesBox), part("Nearest neighbours that became siblings", siblingsBox),
  ];
  const same = note(`This is ${against}: choose another tree to compare it with.`);

  function notes() {
    const texts = [
      data.byVectors
        ? "Nodes are named by classes that are frequent in them and typical of what sets them apart from the parent."
        : "Nodes are named by their most frequent classes: the run holds no class vectors, by which to tell what is"
          + " typical.",
      "Cells are the higher the larger their share, but never lower than a line.",
    ];
    if (data.names.length < data.numClasses) {
      texts.push(
        `Of ${whole(data.numClasses)} classes the page holds the ${whole(data.names.length)} most frequent`
        + ` (${percent(data.keptShare)} of the examples); the numbers of nodes are those of all.`,
      );
    }
    return note(texts.join(" "));
  }

  // Show another tree; the class chosen stays.
  function useTree(index) {
    Object.assign(viewer, { treeIndex: index, tree: open(index) });
    const isReference = viewer.tree === viewer.reference;
    markLine();
    renderTrees(viewer, treesBox, data);
    if (viewer.chosen === null) icicle.show(0);
    else icicle.reveal(viewer.chosen);
    renderClass(viewer, classBox);
    same.hidden = !isReference;
    for (const one of comparison) one.hidden = isReference;
    if (!isReference) {
      renderChanges(viewer, changesBox);
      renderSiblings(viewer, siblingsBox);
    }
  }

  element.replaceChildren(make(
    "div", { class: "viewer" },
    treesBox,
    make(
      "div", { class: "bar" },
      make("div", { class: "finder" }, make("label", { for: selectId }, "Tree"), select), finder.element,
    ),
    icicle.element, notes(), spoken, classPart, same, comparison,
  ));
  icicle.watch();
  useTree(0);
  return {
    state: () => ({
      tree: viewer.tree.name, class: viewer.chosen === null ? null : viewer.ids[viewer.chosen],
    }),
    restore(state) {
      const index = data.trees.findIndex((one) => one.name === state.tree);
      const cls = viewer.ids.indexOf(state.class);
      if (index > 0) {
        select.value = String(index);
        useTree(index);
      }
      if (state.class !== null && cls >= 0) viewer.choose(cls);
    },
  };
}

globalThis.mountTreeViewer = mountTreeViewer;
