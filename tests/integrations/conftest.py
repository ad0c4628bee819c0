"""One thread, as these models are tiny, and no network."""

import os
from collections.abc import Iterator

import pytest

from treesearch.evaluation.threads import one_thread

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports transformers


@pytest.fixture(autouse=True, scope="package")
def _on_one_thread() -> Iterator[None]:
    with one_thread():
        yield
