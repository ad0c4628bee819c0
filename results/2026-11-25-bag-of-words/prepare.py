"""WordNet glosses and the word above them: a classification of short texts with a long tail of classes.

    python prepare.py $TREESEARCH_DATA/wordnet/noun_synsets.tsv OUT

Class: the first hypernym of a noun (its synset and first lemma), of those that have at least ten nouns below them. Text:
the gloss. One noun in ten is for validation and one for test, chosen by a hash of its synset.
"""

import hashlib
import sys
from collections import Counter
from pathlib import Path

LEAST = 10

source, out = Path(sys.argv[1]), Path(sys.argv[2])
rows = [line.split("\t") for line in source.read_text(encoding="utf-8").splitlines()[1:]]
lemma = {row[0]: row[4].split()[0].split("|")[0] for row in rows}
children = Counter(row[1] for row in rows)
lines = {"train": [], "valid": [], "test": []}
for synset, hypernym, *_, gloss in rows:
    if hypernym in lemma and children[hypernym] >= LEAST:
        tenth = int(hashlib.blake2b(synset.encode(), digest_size=4).hexdigest(), 16) % 10
        lines[{0: "valid", 1: "test"}.get(tenth, "train")].append((gloss, f"{lemma[hypernym]}.{hypernym}"))
known = {label for _, label in lines["train"]}
out.mkdir(parents=True, exist_ok=True)
for name, pairs in lines.items():
    kept = [f"{gloss}\t{label}" for gloss, label in pairs if label in known]
    (out / f"{name}.tsv").write_text("\n".join(kept) + "\n", encoding="utf-8")
    print(f"{name}: {len(kept)} nouns, {len({line.rpartition(chr(9))[2] for line in kept})} classes")
