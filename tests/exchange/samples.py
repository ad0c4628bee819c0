"""Trees and names that the tests of all formats share."""

import numpy as np

from treesearch import Tree

HOSTILE = [
    'say "hi"',
    "it's",
    "'",
    "back\\slash",
    'both \\" ends \\',
    "line\nbreak\ttab\r\nreturn",
    "\x00\x1b[31m\x7f",
    "<b>html</b> &amp; {a|b} ]]>",
    "ünï漢🌲\u2028\u202e",
    "",
    " ",
    '"];} digraph evil {',
    "(a,b);",
    "a:1[comment]",
    "under_score",
    "-LRB-",
    "01",
    "f00000000",
    "'''",
    "\ufeffmark",
]


def chain(num_classes: int) -> Tree:
    """Every node has one leaf and one node below it, but for the last."""
    nodes = list(range(num_classes - 1))
    return Tree.from_parents([-1, *nodes[:-1], *nodes, nodes[-1]], np.arange(num_classes))


def projected() -> Tree:
    return Tree.from_parents([-1, 0, 0, 1, 1, 0], [0, 2, 1, 3], projection_dim=[0, 7], class_names=list("abcd"))


def projected_binary() -> Tree:
    return Tree.from_parents([-1, 0, 0, 1, 1], [0, 2, 1], projection_dim=[0, 7], class_names=list("abc"))
