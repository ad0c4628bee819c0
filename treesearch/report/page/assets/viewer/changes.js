// Gives `renderChanges`: the table of classes whose place differs from that in the reference.

// Classes by how far their depth is from that in the reference.
function renderChanges(viewer, element) {
  const { tree, reference, shares, names } = viewer;
  const other = viewer.treeTitle(reference);
  const change = (of) => (cls) => of(tree)[cls] - of(reference)[cls];
  const depth = change((one) => one.depth);
  const bits = change((one) => one.bits);
  const cost = change((one) => one.cost);
  const byShare = Array.from(names.keys()).sort((a, b) => shares[b] - shares[a] || a - b);
  const columns = [
    { title: "Class", isText: true, value: (cls) => names[cls], cell: (cls) => viewer.link(cls) },
    { title: "Share", value: (cls) => shares[cls], cell: (cls) => percent(shares[cls]) },
    { title: "Depth here", value: (cls) => tree.depth[cls], cell: (cls) => whole(tree.depth[cls]) },
    { title: `Depth in ${other}`, value: (cls) => reference.depth[cls], cell: (cls) => whole(reference.depth[cls]) },
    { title: "Change of depth", bySize: true, value: depth, cell: (cls) => signed(depth(cls)) },
    { title: "Change of code length, bits", bySize: true, value: bits, cell: (cls) => signed(bits(cls), 2) },
    { title: "Change of cost, units", bySize: true, value: cost, cell: (cls) => signed(cost(cls), 2) },
  ];
  const table = sortedTable({ label: `Classes against ${other}`, columns, rows: byShare, sort: 4 });
  const filterId = newId("filter");
  const filter = make("input", {
    class: "find", id: filterId, type: "search", autocomplete: "off", spellcheck: "false",
    input: () => {
      const wanted = filter.value.normalize("NFC").toLowerCase();
      table.setRows(byShare.filter((cls) => names[cls].normalize("NFC").toLowerCase().includes(wanted)));
    },
  });
  element.replaceChildren(
    make("div", { class: "finder" }, make("label", { for: filterId }, "Only classes with"), filter), table.element,
  );
}
