"""What a joint evaluation reports: the best epoch on validation data, and how many were trained."""

import numpy as np
import pytest

from treesearch import build_tree
from treesearch.config import EncoderConfig, FrozenConfig, JointConfig
from treesearch.data import InputSpec, Split
from treesearch.data.contexts import context_windows
from treesearch.evaluation.joint import resolve_device, train_joint
from treesearch.evaluation.trainer import make_model
from treesearch.search.worker import ENCODER_PREFIX, EvaluationWorker, JointScores, JointTask, WorkerSettings

CLASSES, CAP = 12, 40
ENCODER = EncoderConfig(context=2, embedding=4, features=8)
JOINT = JointConfig(epochs=CAP, batch_size=32)
RNG = np.random.default_rng(0)
STREAMS = {name: RNG.integers(CLASSES, size=300).astype(np.int32) for name in ("train", "valid", "test")}
SPLITS = {name: Split(context_windows(stream, size=2, pad=0), stream) for name, stream in STREAMS.items()}
COUNTS = np.bincount(STREAMS["train"], minlength=CLASSES).astype(np.float64)
ARRAYS = {
    "counts": COUNTS,
    **{f"{name}.inputs": split.inputs for name, split in SPLITS.items()},
    **{f"{name}.labels": split.labels for name, split in SPLITS.items()},
}
SPEC = InputSpec(2, CLASSES)
TREE = build_tree("huffman", counts=COUNTS)


def evaluated(**changes: object) -> JointScores:
    worker = EvaluationWorker(ARRAYS, WorkerSettings(ENCODER, FrozenConfig(), JOINT, SPEC))
    scores = worker(JointTask(**{"tree": TREE, "learning_rate": 0.03, "seed": 1, "use_test": False, **changes}))
    assert isinstance(scores, JointScores)
    return scores


def test_noise_stops_before_the_cap_and_the_best_epoch_is_reported() -> None:
    scores = evaluated()
    encoder, layer = make_model(TREE, ENCODER, SPEC, counts=COUNTS, seed=1, device=resolve_device("auto"))
    fit = train_joint(
        encoder,
        layer,
        SPLITS["train"],
        valid=SPLITS["valid"],
        learning_rate=0.03,
        epochs=CAP,
        batch_size=JOINT.batch_size,
        seed=1,
    )
    assert (scores.valid_nll, scores.epochs) == (fit.valid_nll, fit.epochs)
    assert 1 < scores.epochs < CAP
    assert scores.test_nll is None


def test_the_test_split_is_scored_where_asked_and_changes_nothing() -> None:
    without, scores = evaluated(), evaluated(use_test=True)
    assert (scores.valid_nll, scores.epochs) == (without.valid_nll, without.epochs)
    assert scores.test_nll is not None
    assert scores.test_nll != scores.valid_nll


def test_a_warm_start_takes_the_searchs_encoder_and_one_epoch() -> None:
    start, _ = make_model(TREE, ENCODER, SPEC, counts=COUNTS, seed=77, device=resolve_device("cpu"))
    state = {f"{ENCODER_PREFIX}{name}": value.numpy() for name, value in start.state_dict().items()}
    worker = EvaluationWorker({**ARRAYS, **state}, WorkerSettings(ENCODER, FrozenConfig(), JOINT, SPEC))
    scores = worker(JointTask(TREE, learning_rate=0.03, seed=1, use_test=False, warm=True))
    assert isinstance(scores, JointScores)
    assert scores.epochs == 1
    _, layer = make_model(TREE, ENCODER, SPEC, counts=COUNTS, seed=1, device=resolve_device("cpu"))
    fit = train_joint(
        start,
        layer,
        SPLITS["train"],
        valid=SPLITS["valid"],
        learning_rate=0.03,
        epochs=1,
        batch_size=JOINT.batch_size,
        seed=1,
    )
    assert scores.valid_nll == fit.valid_nll


def test_training_that_diverges() -> None:
    with pytest.raises(FloatingPointError, match=r"validation NLL is nan at learning rate 1e\+38; lower joint"):
        evaluated(learning_rate=1e38)


@pytest.mark.parametrize(
    "limited", [{}, {"frozen": FrozenConfig(time_limit=5.0)}, {"joint": JointConfig(time_limit=5.0)}]
)
def test_kernels_are_compiled_before_a_time_limit_counts(limited, monkeypatch) -> None:
    """On a machine without numba's cache that takes longer than the limit, again and again."""
    compiled = []
    monkeypatch.setattr("treesearch.warmup.compile_kernels", lambda: compiled.append(True))
    settings = {"frozen": FrozenConfig(), "joint": JointConfig(), **limited}
    EvaluationWorker(ARRAYS, WorkerSettings(ENCODER, **settings, spec=SPEC))
    assert bool(compiled) == bool(limited)
