// Gives `renderTrees`: the table of the trees that can be shown.

// The trees beside each other.
function renderTrees(viewer, element, data) {
  const columns = [
    { title: "Tree", isText: true },
    ...[
      "Mean depth, decisions", "Mean code length, bits", "Mean cost, units", "Longest path", "Internal nodes",
      ...(data.neighbours ? ["Nearest neighbour is a sibling"] : []),
    ].map((title) => ({ title })),
  ];
  const heads = columns.map(
    ({ title, isText }) => make("th", { scope: "col", class: isText ? "words" : "number" }, title),
  );
  const rows = data.trees.map((one, i) => {
    const isCurrent = i === viewer.treeIndex;
    const contents = [
      [isCurrent ? "▸ " : null, named(one.name)],
      decimal(one.expectedDepth), decimal(one.expectedBits), decimal(one.cost),
      whole(one.maxDepth), whole(one.numInternal),
      ...(data.neighbours ? [one.siblingShare === null ? "–" : percent(one.siblingShare)] : []),
    ];
    return stackingRow(columns, contents, { class: isCurrent ? "current" : "plain" });
  });
  const entropy = `${counted(data.numClasses, "class", "classes")} with an entropy of ${decimal(data.entropy)} bits:`
    + " no code of the classes is shorter on average.";
  element.replaceChildren(stackingTable("Trees", heads, make("tbody", {}, rows)), note(entropy));
}
