"""Composition root: from a configuration to a finished run.

With what stands above it, `treesearch.bench` and `treesearch.cli`, the only importer of envs and agents.
"""

from treesearch.launch.parts import (
    SIMILARITY,
    check_choices,
    load_data,
    make_cost_model,
    make_directions,
    named_vectors,
    prepare_run,
)
from treesearch.launch.results import pick_from_front
from treesearch.launch.run import resume_search, run_search

__all__ = [
    "SIMILARITY",
    "check_choices",
    "load_data",
    "make_cost_model",
    "make_directions",
    "named_vectors",
    "pick_from_front",
    "prepare_run",
    "resume_search",
    "run_search",
]
