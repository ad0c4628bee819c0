// Gives `unpack`: a typed array from what treesearch/report/page/packing.py made.

const ARRAYS = {
  u1: Uint8Array, i1: Int8Array, u2: Uint16Array, i2: Int16Array, u4: Uint32Array, i4: Int32Array, f4: Float32Array,
};

// A typed array from what packing.py made; like it, little-endian, as all browsers are.
function unpack(packed) {
  const text = atob(packed.data);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const array = new ARRAYS[packed.type](bytes.buffer);
  if (!packed.table) return array;
  const table = unpack(packed.table);
  const values = new table.constructor(array.length);
  for (let i = 0; i < array.length; i++) values[i] = table[array[i]];
  return values;
}
