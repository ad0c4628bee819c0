"""Taxonomies: hierarchies of labels, from files and graphs, and their trees."""

from treesearch.taxonomy.files import load_taxonomy
from treesearch.taxonomy.forms import taxonomy_from_nested, taxonomy_from_networkx, taxonomy_from_paths
from treesearch.taxonomy.links import taxonomy_from_edges
from treesearch.taxonomy.parts import parts_at, parts_below
from treesearch.taxonomy.readers import as_taxonomy, taxonomy_tree
from treesearch.taxonomy.taxonomy import ROOT, Taxonomy

__all__ = [
    "ROOT",
    "Taxonomy",
    "as_taxonomy",
    "load_taxonomy",
    "parts_at",
    "parts_below",
    "taxonomy_from_edges",
    "taxonomy_from_nested",
    "taxonomy_from_networkx",
    "taxonomy_from_paths",
    "taxonomy_tree",
]
