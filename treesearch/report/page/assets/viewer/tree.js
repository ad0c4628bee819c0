// Gives `openTree`: a tree that can be walked, from what treesearch/report/page/tree_data.py made of it.

// A tree with its children heaviest first. Nodes 0 .. numInternal - 1 are internal, the rest leaves.
function openTree(packed, shares) {
  const above = unpack(packed.parent);
  const arity = unpack(packed.arity);
  const leafClass = unpack(packed.leafClass);
  const nodeShare = unpack(packed.nodeShare);
  const numInternal = arity.length;
  const parent = new Int32Array(above.length + 1).fill(-1);
  parent.set(above, 1);
  const leafOf = new Int32Array(leafClass.length);
  leafClass.forEach((cls, i) => { leafOf[cls] = numInternal + i; });
  const start = new Int32Array(numInternal + 1);
  for (const node of above) start[node + 1]++;
  for (let node = 0; node < numInternal; node++) start[node + 1] += start[node];
  const cursor = start.slice();
  const child = new Int32Array(above.length);
  for (let node = 1; node < parent.length; node++) child[cursor[parent[node]]++] = node;
  const sorted = new Map(); // the children of a node are sorted when it is first looked at

  const tree = {
    name: packed.name, facts: packed, numInternal, parent, arity, leafOf, leafClass,
    numClasses: unpack(packed.nodeClasses),
    projection: unpack(packed.projection),
    words: unpack(packed.words),
    depth: unpack(packed.depth),
    bits: unpack(packed.bits),
    cost: unpack(packed.classCost),
    edges: packed.edges && unpack(packed.edges),
    isLeaf: (node) => node >= numInternal,
    share: (node) => (node < numInternal ? nodeShare[node] : shares[leafClass[node - numInternal]]),
    classAt: (node) => leafClass[node - numInternal],
    children(node) {
      if (node >= numInternal) return [];
      let own = sorted.get(node);
      if (!own) {
        own = Array.from(child.subarray(start[node], start[node + 1]));
        own.sort((a, b) => tree.share(b) - tree.share(a) || a - b);
        sorted.set(node, own);
      }
      return own;
    },
    // From the root down to the node, both included.
    lineage(node) {
      const line = [];
      for (let n = node; n >= 0; n = parent[n]) line.push(n);
      return line.reverse();
    },
  };
  return tree;
}
