// Gives `renderSiblings`: the table of nearest neighbours that became siblings.

const NUM_PAIRS = 20; // pairs that the table shows at first
const SIBLINGS = 2; // edges between two leaves of one parent

// Pairs of nearest neighbours that are siblings here and not in the reference.
function renderSiblings(viewer, element) {
  const { tree, reference, shares, names, neighbours } = viewer;
  if (!neighbours) {
    element.replaceChildren(note("The run holds no class vectors, by which neighbours are near: none are known."));
    return;
  }
  const { nearest, cosine } = neighbours;
  const rows = [];
  for (let cls = 0; cls < names.length; cls++) {
    if (nearest[cls] < 0 || tree.edges[cls] !== SIBLINGS || reference.edges[cls] === SIBLINGS) continue;
    const isMutual = nearest[nearest[cls]] === cls;
    const lead = shares[cls] - shares[nearest[cls]];
    const isLighter = lead < 0 || (lead === 0 && cls > nearest[cls]);
    if (!(isMutual && isLighter)) rows.push(cls); // a pair stands once, by its heavier class
  }
  rows.sort((a, b) => shares[b] - shares[a] || a - b);
  const other = viewer.treeTitle(reference);
  const [here, there] = [tree, reference].map((one) => percent(one.facts.siblingShare ?? 0));
  const compared = counted(neighbours.numCompared, "most frequent class", "most frequent classes");
  const sentence = `The nearest neighbour of the class is its sibling for ${here} of the examples; in ${other} for`
    + ` ${there}. (Nearest by the cosine of class vectors, among the ${compared}, ${percent(neighbours.share)} of the`
    + " examples.)";
  const columns = [
    { title: "Class", isText: true, value: (cls) => names[cls], cell: (cls) => viewer.link(cls) },
    {
      title: "Nearest neighbour", isText: true,
      value: (cls) => names[nearest[cls]], cell: (cls) => viewer.link(nearest[cls]),
    },
    { title: "Share of the class", value: (cls) => shares[cls], cell: (cls) => percent(shares[cls]) },
    { title: "Cosine", value: (cls) => cosine[cls], cell: (cls) => decimal(cosine[cls]) },
    { title: "Edges between them here", value: (cls) => tree.edges[cls], cell: (cls) => whole(tree.edges[cls]) },
    { title: `In ${other}`, value: (cls) => reference.edges[cls], cell: (cls) => whole(reference.edges[cls]) },
  ];
  const label = "Nearest neighbours that became siblings";
  const table = rows.length
    ? sortedTable({ label, columns, rows, sort: 2, numRows: NUM_PAIRS }).element
    : note("No pair became siblings.");
  element.replaceChildren(make("p", {}, sentence), table);
}
