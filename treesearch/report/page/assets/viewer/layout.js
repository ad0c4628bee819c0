// Gives `layOut`: where the cells of the icicle lie; and `LINE`, the height of the lowest of them.

const LINE = 24; // pixels: no cell of the icicle is lower, so that it can be read and hit
const NUM_BRANCHES = 8; // tints in viewer.css

// Heights in proportion to shares, except that none is lower than a line; what lines take, the others go without.
function heightsOf(shares, room) {
  const line = Math.min(LINE, room / shares.length);
  const heights = new Array(shares.length).fill(line);
  let left = shares.map((_, i) => i); // those above a line
  for (;;) {
    const total = left.reduce((sum, i) => sum + shares[i], 0);
    const free = room - line * (shares.length - left.length);
    const own = (i) => (total > 0 ? (free * shares[i]) / total : free / left.length);
    const kept = left.filter((i) => own(i) > line);
    if (kept.length === left.length || !kept.length) {
      for (const i of left) heights[i] = own(i);
      return heights;
    }
    left = kept;
  }
}

// Cells of what is below `root`, its first `from` children left out. Where not all children of a node have a line in
// its height, the lightest are one cell, "more".
function layOut(tree, root, from, numLevels, height) {
  const cells = [];
  const place = (node, skip, level, top, room, owner, branch) => {
    const children = tree.children(node);
    const absent = tree.arity[node] - children.length; // classes and nodes that are not in the page
    const num = children.length - skip;
    const fits = Math.max(1, Math.floor(room / LINE));
    const all = num + (absent > 0 ? 1 : 0) <= fits;
    const shown = all ? num : fits - 1;
    const parts = children.slice(skip, skip + shown).map((child) => ({ node: child, share: tree.share(child) }));
    if (!all || absent > 0) {
      const before = children.slice(0, skip + shown).reduce((sum, child) => sum + tree.share(child), 0);
      const share = Math.max(0, tree.share(node) - before);
      const isAll = skip + shown === 0;
      const more = children.length - skip - shown + absent;
      parts.push({ more, isAll, openable: !all, from: skip + shown, share });
    }
    const heights = heightsOf(parts.map((part) => part.share), room);
    let y = top;
    parts.forEach((part, i) => {
      const own = heights[i];
      const hue = branch ?? (skip + i) % NUM_BRANCHES;
      const cell = { ...part, of: node, level, top: y, height: own, owner, branch: hue };
      cells.push(cell);
      y += own;
      if (part.node !== undefined && !tree.isLeaf(part.node) && level < numLevels) {
        place(part.node, 0, level + 1, cell.top, own, cell, hue);
      }
    });
  };
  if (!tree.isLeaf(root)) place(root, from, 1, 0, height, null, null);
  return cells;
}
