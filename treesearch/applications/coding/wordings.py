"""The texts that ICD-10-CM has for its nodes: descriptions, inclusion terms, notes, and how other codes refer to them.

Shapes: **T** nodes of the taxonomy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from treesearch.errors import ConfigError, did_you_mean
from treesearch.taxonomy import Taxonomy, taxonomy_from_edges
from treesearch.taxonomy.sources import icd10cm, icd10cm_descriptions, icd10cm_item, icd10cm_package

Kind = Literal["description", "inclusion term", "note", "reference"]
CODE_RANGE = re.compile(r"\s*\([A-Z]\d[^()]*\)$")  # at the end of the description of a chapter or a block
REFERENCE = re.compile(r"(.*?)\s*\(([A-Z]\d[0-9A-Z](?:\.[0-9A-Z]+)?)\.?-?\)\s*")  # 'sleep apnea (G47.3-)'


@dataclass(frozen=True)
class Wording:
    """A text that stands for a node of a taxonomy."""

    text: str
    node: int
    kind: Kind


def icd10cm_chapters(chapters: Sequence[str] | None = None) -> Taxonomy:
    """The codes of some chapters of ICD-10-CM; see `treesearch.taxonomy.sources.icd10cm`.

    Blocks that hold no code, headings of what other blocks hold, are left out.

    Args:
        chapters: Their numbers, ``"9"``; None for all.

    Raises:
        ConfigError: There is no such chapter.
        MissingExtraError: The package is not installed.
    """
    whole = icd10cm()
    return taxonomy_below(whole, chapters, classes=[name for name in whole.class_names if "-" not in name])


def taxonomy_below(
    taxonomy: Taxonomy, tops: Sequence[str] | None = None, *, classes: Sequence[str] | None = None
) -> Taxonomy:
    """The part of a taxonomy below some nodes of its first level; the order of classes stays.

    Args:
        taxonomy: The whole.
        tops: Names of nodes below the root; None for all.
        classes: Names of those that remain classes; None for all.

    Raises:
        ConfigError: A name is of no node below the root.
    """
    known = [taxonomy.names[node] for node in np.flatnonzero(taxonomy.depth == 1)]
    for name in tops or ():
        if name not in known:
            raise ConfigError(f"unknown chapter {name!r:.40}{did_you_mean(name, known)}")
    wanted = set(known if tops is None else tops)
    top_T = taxonomy.node_ancestors(1)
    kept = [node for node in range(1, taxonomy.num_nodes) if taxonomy.names[top_T[node]] in wanted]
    kept_nodes, of_interest = set(kept), set(taxonomy.class_names if classes is None else classes)
    return taxonomy_from_edges(
        [(taxonomy.names[node], taxonomy.names[taxonomy.parent[node]]) for node in kept],
        classes=[
            name
            for name, node in zip(taxonomy.class_names, taxonomy.class_node.tolist(), strict=True)
            if node in kept_nodes and name in of_interest
        ],
    )


def icd10cm_wordings(taxonomy: Taxonomy) -> list[Wording]:
    """All texts that the package holds for the nodes of `icd10cm_chapters`.

    Descriptions (without ranges of codes), inclusion terms ("other wordings" of a code), what a category says it
    includes, and the words with which the exclusion notes of any code name one of these: ``sleep apnea (G47.3-)``.

    Raises:
        MissingExtraError: The package is not installed.
    """
    return list(_wordings(taxonomy))


def _wordings(taxonomy: Taxonomy) -> Iterator[Wording]:
    icd = icd10cm_package()
    for node, description in enumerate(icd10cm_descriptions(taxonomy)):
        if not node:
            continue
        yield Wording(CODE_RANGE.sub("", description), node, "description")
        code, is_block = icd10cm_item(taxonomy.names[node])
        for term in icd.get_inclusion_term(code, is_block):
            yield Wording(term, node, "inclusion term")
        for note in icd.get_includes(code, is_block):
            yield Wording(note, node, "note")
    node_of = {name: node for node, name in enumerate(taxonomy.names)}
    for code in dict.fromkeys(icd.get_all_codes()):
        for note in (*icd.get_excludes1(code), *icd.get_excludes2(code)):
            found = REFERENCE.fullmatch(note)
            if found is not None and found[1] and found[2] in node_of:
                yield Wording(found[1], node_of[found[2]], "reference")
