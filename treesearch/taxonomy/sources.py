"""Ready taxonomies: WordNet's nouns, the domains of CLINC150, the openings of chess by ECO, ICD-10-CM.

Nothing is downloaded: each function reads the files that its source hands out.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from treesearch.errors import ConfigError, MissingExtraError, TreeError
from treesearch.taxonomy.files import load_taxonomy
from treesearch.taxonomy.forms import taxonomy_from_paths
from treesearch.taxonomy.links import taxonomy_from_edges
from treesearch.taxonomy.taxonomy import ROOT, Taxonomy
from treesearch.text_files import read_lines

ECO_VOLUMES = "ABCDE"


def wordnet_nouns(path: str | Path, *, classes: Literal["leaves", "all"] = "leaves") -> Taxonomy:
    """The nouns of WordNet (Miller 1995) by their first hypernym.

    A node is named by the first lemma of its synset, ``dog``, or, where synsets share it, ``dog#02084071``.

    Args:
        path: A table with a head line and the columns ``synset``, ``hypernym`` (``ROOT`` at the top) and ``lemmas``,
            separated by tabs; lemmas by ``|``.
        classes: ``leaves``: synsets without hyponyms; ``all``: inner ones too.

    Raises:
        TreeError: The file cannot be read or lacks a column, or is no taxonomy.
    """
    rows = _table(Path(path), ("synset", "hypernym", "lemmas"))
    lemmas = [row[2].split("|")[0] for row in rows]
    shared = Counter(lemmas)
    name_of = {ROOT: ROOT} | {
        synset: lemma if shared[lemma] == 1 else f"{lemma}#{synset}"
        for (synset, _, _), lemma in zip(rows, lemmas, strict=True)
    }
    edges = [(name_of[synset], name_of.get(hypernym, hypernym)) for synset, hypernym, _ in rows]
    return taxonomy_from_edges(edges, classes=[child for child, _ in edges] if classes == "all" else None)


def clinc150(folder: str | Path) -> Taxonomy:
    """The 150 intents of CLINC150 (Larson et al. 2019) in their 10 domains.

    Args:
        folder: With ``domains.json``, as the data set comes.

    Raises:
        TreeError: The file cannot be read, or is no taxonomy.
    """
    return load_taxonomy(Path(folder) / "domains.json")


def chess_openings(folder: str | Path, *, by: Literal["code", "name"] = "code") -> Taxonomy:
    """The openings of chess by the Encyclopaedia of Chess Openings, from the tables of lichess.

    Args:
        folder: With ``a.tsv`` to ``e.tsv``, columns ``eco``, ``name`` and ``pgn``.
        by: ``code``: the 500 codes in five volumes (A .. E) and tens (``A0`` holds A00 to A09). ``name``: openings by
            volume, family and variations, from names such as ``French Defense: Advance Variation, Paulsen Attack``; one
            that has variations is a class at an inner node.

    Raises:
        ConfigError: Another ``by``.
        TreeError: A file cannot be read or lacks a column.
    """
    ways: dict[str, Callable[[str, str], str]] = {
        "code": lambda eco, name: "/".join((eco[0], eco[:2], eco)),
        "name": lambda eco, name: "/".join((eco[0], *re.split(r": |, ", name.replace("/", "|")))),
    }
    if by not in ways:
        raise ConfigError(f"by must be 'code' or 'name', but got {by!r:.40}")
    paths: dict[str, None] = {}
    for volume in ECO_VOLUMES:
        for eco, name, _ in _table(Path(folder) / f"{volume.lower()}.tsv", ("eco", "name", "pgn")):
            paths.setdefault(ways[by](eco, name))
    return taxonomy_from_paths(paths)


def icd10cm() -> Taxonomy:
    """The diagnoses of ICD-10-CM, from the package ``simple-icd-10-cm``: chapter, block, category and codes below it.

    Classes are the codes without further ones below them. Nodes are named by their codes, chapters by their numbers;
    a block that holds one category and has its code is named twice it, ``B10-B10``.

    Raises:
        MissingExtraError: The package is not installed.
    """
    icd = icd10cm_package()
    codes = icd.get_all_codes(with_dots=True)
    times = Counter(codes)
    edges, seen = [], set()
    for code in codes:
        ancestors = icd.get_ancestors(code)
        above = ancestors[0] if ancestors else ROOT
        if times[code] > 1 and code not in seen:  # the block comes before its category
            edges.append((f"{code}-{code}", ancestors[-1]))
        elif times[code] > 1:
            edges.append((code, f"{code}-{code}"))
        else:
            edges.append((code, above))
        seen.add(code)
    return taxonomy_from_edges(edges)


def icd10cm_descriptions(taxonomy: Taxonomy) -> list[str]:
    """What each node of `icd10cm` stands for, in words, [T]; empty at the root.

    Raises:
        MissingExtraError: The package is not installed.
    """
    icd = icd10cm_package()
    return ["", *(icd.get_description(icd10cm_item(name)[0]) for name in taxonomy.names[1:])]


def icd10cm_item(name: str) -> tuple[str, bool]:
    """A node of `icd10cm` as the package knows it: its code, and whether the block is meant where two have it."""
    first, _, last = name.partition("-")
    return (first, True) if first == last else (name, False)


def icd10cm_package() -> Any:
    """The package ``simple-icd-10-cm``, which reads its files when it is imported.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # it opens its files in an old way
            import simple_icd_10_cm
    except ImportError:
        raise MissingExtraError("simple_icd_10_cm", "taxonomies") from None
    return simple_icd_10_cm


def _table(path: Path, columns: tuple[str, ...]) -> list[list[str]]:
    """The named columns of a table with a head line."""
    lines = read_lines(path, f"table {str(path)!r}", TreeError)
    head = lines[0][1].split("\t") if lines else []
    missing = [column for column in columns if column not in head]
    if missing:
        raise TreeError(f"table {str(path)!r} must have the column {missing[0]!r}, but its head is {head!r:.80}")
    places = [head.index(column) for column in columns]
    rows = []
    for number, line in lines[1:]:
        fields = line.split("\t")
        if len(fields) < len(head):
            raise TreeError(f"line {number} of {str(path)!r} must have {len(head)} fields, but has {len(fields)}")
        rows.append([fields[place] for place in places])
    return rows
