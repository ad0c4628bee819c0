// Gives `renderClass`: the class chosen, with its path in the tree shown and in the reference.

const LONGEST_PATH = 60; // decisions of a path that are shown at first, and more at a time

// The path of a class in one tree: a row for each decision, and what the path costs.
function pathTable(viewer, tree, cls) {
  const line = tree.lineage(tree.leafOf[cls]);
  const isShown = tree === viewer.tree;
  const row = (depth) => {
    const [node, child] = [line[depth], line[depth + 1]];
    const share = tree.share(node) > 0 ? tree.share(child) / tree.share(node) : NaN;
    const words = joined(viewer.words(tree, node).map(named));
    const cell = isShown
      ? make("button", { type: "button", class: "link", click: () => viewer.zoom(node) }, words)
      : words;
    return make(
      "tr", { role: "row" },
      make("td", { class: "number", role: "cell" }, String(depth)),
      make("td", { class: "words", role: "cell" }, cell),
      make("td", { class: "number", role: "cell" }, String(tree.arity[node])),
      make("td", { class: "number", role: "cell", "data-share": share }, Number.isNaN(share) ? "–" : percent(share)),
      make("td", { class: "number", role: "cell", "data-mass": tree.share(child) }, percent(tree.share(child))),
    );
  };
  const heads = ["Depth", "Decision at", "Ways", "Share taken", "Mass so far"].map(
    (text, i) => make("th", { scope: "col", class: i === 1 ? "words" : "number" }, text),
  );
  const label = `Path in ${viewer.treeTitle(tree)}`;
  const body = make("tbody");
  const more = make("button", { type: "button", class: "button", click: addRows });
  function addRows() {
    const begin = body.children.length;
    const end = Math.min(line.length - 1, begin + LONGEST_PATH);
    for (let depth = begin; depth < end; depth++) body.append(row(depth));
    more.hidden = end === line.length - 1;
    more.textContent = `Show more of ${counted(line.length - 1, "decision")}`;
  }
  addRows();
  const table = foldable(make("table", { class: "table folding" }, make("caption", {}, label), headRow(heads), body));
  const facts = [
    ["Depth", counted(tree.depth[cls], "decision")],
    ["Code length", `${decimal(tree.bits[cls])} bits`],
    ["Cost of the path", `${decimal(tree.cost[cls])} units`],
  ];
  const isAlone = line.length === 1;
  return make(
    "div", { class: "path" },
    isAlone ? note("It is the only class: nothing is to be decided.") : [tableBox(label, table), more],
    make("dl", { class: "facts" }, facts.map(
      ([term, value]) => make("div", {}, make("dt", {}, term), make("dd", {}, value)),
    )),
  );
}

// All that is known of the class chosen: its path in the tree shown and in the reference, its nearest neighbour.
function renderClass(viewer, element) {
  const { chosen: cls, tree, reference, neighbours } = viewer;
  if (cls === null) {
    element.replaceChildren(note("Find a class above, or choose one in the icicle, to see its path."));
    return;
  }
  const trees = tree === reference ? [tree] : [tree, reference];
  const share = viewer.shares[cls];
  const ideal = share > 0
    ? `${percent(share)} of the examples; in an ideal code −log2 p = ${decimal(viewer.idealBits[cls])} bits.`
    : "It never occurs in the examples: an ideal code has no length for it (−log2 0 is infinite).";
  const parts = [
    make("h4", {}, named(viewer.names[cls])),
    make("p", {}, `Class ${whole(viewer.ids[cls])}. `, ideal),
    make("div", { class: "paths" }, trees.map((one) => pathTable(viewer, one, cls))),
  ];
  if (neighbours) {
    const other = neighbours.nearest[cls];
    parts.push(other < 0
      ? note(
        `No nearest neighbour is known: it is not among the ${whole(neighbours.numCompared)} classes compared.`,
      )
      : make(
        "p", {}, "Nearest neighbour: ", viewer.link(other), ` (cosine ${decimal(neighbours.cosine[cls])}), `,
        joined(trees.map((one) => `${counted(one.edges[cls], "edge")} away in ${viewer.treeTitle(one)}`), ", "), ".",
      ));
  }
  element.replaceChildren(...parts);
}
