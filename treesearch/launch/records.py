"""What every search writes into its ledger beside evaluations: what it is of, and when it was worked on."""

from __future__ import annotations

import time
from pathlib import Path

from treesearch.config import Config
from treesearch.data import Dataset
from treesearch.search.ledger import Ledger
from treesearch.search.ledger_entries import CONFIG, POLICY


def record_data(ledger: Ledger, dataset: Dataset) -> None:
    """What the data are: training counts and names of classes, source and hash."""
    ledger.set_meta("counts", dataset.counts.tolist())
    ledger.set_meta("corpus", dataset.source | {"hash": dataset.hash})
    ledger.set_meta("class_names", None if dataset.class_names is None else list(dataset.class_names))


def record_config(ledger: Ledger, config: Config) -> None:
    """The resolved configuration, where no file beside the ledger holds it: of a variant of a study."""
    ledger.set_meta(CONFIG, config.model_dump(mode="json"))


def record_policy(ledger: Ledger, policy: Path | None) -> None:
    """Where the agent's policy comes from; None: from nowhere."""
    ledger.set_meta(POLICY, policy_text(policy))


def policy_text(policy: Path | None) -> str | None:
    """As `record_policy` stores it."""
    return None if policy is None else str(policy.resolve())


def record_session(ledger: Ledger) -> None:
    """That a process begins to work on the search now."""
    ledger.set_meta("sessions", [*(ledger.meta("sessions") or ()), time.time()])
