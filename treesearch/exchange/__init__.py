"""Foreign tree formats: `FORMATS` names them, `export_tree` and `import_tree` write and read them.

Converters between trees and objects of other libraries are in the modules: `treesearch.exchange.nested.to_nltk`,
`treesearch.exchange.networkx.to_networkx`, `treesearch.exchange.softmax_nodes.to_softmax_node`,
`treesearch.exchange.pecos.cluster_chain`, and back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from numpy.typing import ArrayLike

from treesearch.errors import ConfigError, TreeError, did_you_mean
from treesearch.exchange import labels
from treesearch.exchange.binarize import binarize as binarize_tree
from treesearch.exchange.codes import read_codes, write_codes
from treesearch.exchange.dot import write_dot
from treesearch.exchange.napkinxc import read_napkinxc, write_napkinxc
from treesearch.exchange.nbdt import read_nbdt, write_nbdt
from treesearch.exchange.nested import read_nested, write_nested
from treesearch.exchange.networkx import read_networkx, write_networkx
from treesearch.exchange.newick import read_newick, write_newick
from treesearch.exchange.pecos import read_pecos, write_pecos
from treesearch.exchange.svg import write_svg
from treesearch.tree import Tree
from treesearch.tree_files import read_json, read_npz, write_json, write_npz


@dataclass(frozen=True)
class Format:
    """A way to keep a tree in a file or folder."""

    name: str
    help: str  # one line
    write: Callable[[Tree, Path], None]
    read: Callable[[Path], Tree] | None = None  # None: written only
    folder: bool = False  # a folder, not a file
    projections: bool = False  # holds `Tree.projection_dim`
    wide: bool = True  # holds nodes with more than two children


_ALL = (
    Format("json", "treesearch's own, to read", write_json, read_json, projections=True),
    Format("npz", "treesearch's own, small", write_npz, read_npz, projections=True),
    Format("dot", "Graphviz", write_dot, projections=True),
    Format("svg", "a drawing, of a large tree its top", write_svg, projections=True),
    Format("nested", "nested brackets, as of NLTK", write_nested, read_nested),
    Format("newick", "Newick, as of phylogenetics", write_newick, read_newick),
    Format("networkx", "node-link JSON of NetworkX", write_networkx, read_networkx, projections=True),
    Format("nbdt", "hierarchy of Neural-Backed Decision Trees", write_nbdt, read_nbdt),
    Format("pecos", "cluster chain of PECOS (a folder, classes by id)", write_pecos, read_pecos, folder=True),
    Format("napkinxc", "tree.txt of napkinXC (classes by id)", write_napkinxc, read_napkinxc),
    Format("codes", "code and point of word2vec, npz", write_codes, read_codes, wide=False),
)
FORMATS: dict[str, Format] = {one.name: one for one in _ALL}


def format_help(formats: Iterable[Format]) -> str:
    """Names of formats and what they are, for the help of the command line."""
    return "; ".join(f"{one.name}: {one.help}" for one in formats) + "."


def export_tree(
    tree: Tree,
    path: str | Path,
    *,
    format: str,
    drop_projections: bool = False,
    binarize: bool = False,
    counts: ArrayLike | None = None,
) -> None:
    """Write ``tree`` in a named format, whole or not at all.

    Args:
        tree: The tree.
        path: File to write or replace, or a new or empty folder where the format is one.
        format: A key of `FORMATS`.
        drop_projections: Leave the projections out.
        binarize: Replace every node of more than two children by binary ones.
        counts: [C] class counts by which these are merged; None: as if all children weighed the same.

    Raises:
        ConfigError: Unknown format, or there is something at the ``path`` of a folder.
        TreeError: The format cannot hold the tree's projections, its arity or its names.
        DataError: The counts do not fit the tree.
        OSError: The file cannot be written.
    """
    known = _format(format)
    if drop_projections:
        tree = tree.without_projections()
    if binarize:
        tree = binarize_tree(tree, counts=counts)
    if tree.projection_dim.any() and not known.projections:
        raise TreeError(
            f"the format {format!r} has no place for projections, but {int((tree.projection_dim > 0).sum())} nodes have"
            " one; leave them out with --drop-projections (drop_projections=True)"
        )
    if not known.wide and tree.num_internal and int(tree.arities.max()) > 2:
        raise TreeError(
            f"the format {format!r} holds binary trees alone, but a node has {int(tree.arities.max())} children; make"
            " it binary with --binarize (binarize=True)"
        )
    known.write(tree, Path(path))


def import_tree(path: str | Path, *, format: str, class_names: Sequence[str] | None = None) -> Tree:
    """Read a tree of a named format.

    Where a file knows classes by labels alone, labels that are exactly the integers 0 .. C-1 are class ids, and any
    others are names whose classes are numbered as they appear.

    Args:
        path: The file or folder.
        format: A key of `FORMATS` that is readable.
        class_names: C names; the class of a name is its position here. They are put to the ids of a file without names.
            Needed where names are themselves integers, which would be taken for ids.

    Raises:
        ConfigError: The format is unknown, or is written only.
        TreeError: The file is missing or damaged or holds no valid tree, or its labels are not the ``class_names``.
    """
    known = _format(format)
    if known.read is None:
        readable = ", ".join(name for name, one in FORMATS.items() if one.read is not None)
        raise ConfigError(f"the format {format!r} is written only; readable are {readable}")
    tree = known.read(Path(path))
    if class_names is None:
        return tree
    try:
        return labels.relabel(tree, class_names)
    except TreeError as error:
        raise TreeError(f"{path} does not fit the class names: {error}") from None


def _format(name: str) -> Format:
    if name == "hierarchicalsoftmax":
        raise ConfigError(
            "hierarchicalsoftmax keeps trees in pickle files alone, which treesearch does not write; in Python, use"
            " treesearch.exchange.softmax_nodes.to_softmax_node"
        )
    if name not in FORMATS:
        raise ConfigError(f"unknown format {name!r}{did_you_mean(name, FORMATS)}")
    return FORMATS[name]
