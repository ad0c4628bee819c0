"""The configuration of a run: YAML, validated, every key known."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from treesearch.errors import ConfigError, did_you_mean

Positive = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
MAX_SEED = 2**53  # the confirmation's are some thousand times as large, and still whole numbers of 64 bits


class Section(BaseModel):
    """A part of the configuration; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


def _check_builders(what: str, entries: Iterable[Mapping[str, Any]]) -> None:
    for entry in entries:
        if not isinstance(entry.get("name"), str):
            raise ValueError(f"each {what} needs a name, but got {entry}")


class TextConfig(Section):
    """Next words of a text: a named source, or three files."""

    kind: Literal["text"] = "text"
    source: Literal["python-stdlib"] | None = None  # the standard library of the running Python; needs no download
    train: str | None = None  # files: whitespace tokens, a sentence per line
    valid: str | None = None
    test: str | None = None
    max_classes: Annotated[int, Field(ge=3)] | None = None  # vocabulary cap; null keeps every word
    max_train_tokens: Positive | None = None  # cap on the tokens of a named source

    @model_validator(mode="after")
    def _one_origin(self) -> TextConfig:
        files = [self.train, self.valid, self.test]
        if self.source is not None and any(files):
            raise ValueError("give either source or train/valid/test, not both; data.source=null switches to files")
        if self.source is None and not all(files):
            raise ValueError("give all of train, valid and test, or source: python-stdlib")
        if self.source is None and self.max_train_tokens is not None:
            raise ValueError("max_train_tokens applies to a named source; cut the file instead")
        if self.source is not None and self.max_classes is None:
            raise ValueError("max_classes must be set for a named source, such as 5000")
        return self

    def files(self) -> tuple[str, str, str]:
        """Paths of train, valid and test, where the text comes from files."""
        assert self.train and self.valid and self.test, "the validator has seen to it"  # noqa: PT018
        return self.train, self.valid, self.test


class FeaturesConfig(Section):
    """Hidden states of a model that was trained elsewhere, and the classes that it should have predicted."""

    kind: Literal["features"]
    train: str  # .npz with x [T, D] and y [T]; or a folder with x.npy, which stays on disk, and y.npy
    valid: str
    test: str
    num_classes: Annotated[int, Field(ge=3)] | None = None  # null: one more than the largest label, or as many as names
    class_names: str | None = None  # file with a name a line


def _is_of_documents(path: str) -> bool:
    return path.lower().endswith(".tsv")


class LabelsConfig(Section):
    """Labels of documents (``.tsv``: text TAB label) or of feature vectors (as for `FeaturesConfig`)."""

    kind: Literal["labels"]
    train: str
    valid: str
    test: str
    max_words: Positive | None = None  # of documents: words that count, the most frequent; null: all
    min_word_count: Positive | None = None  # of documents: rarer words do not count; null: all do
    num_classes: Annotated[int, Field(ge=3)] | None = None  # of feature vectors
    class_names: str | None = None  # of feature vectors

    @property
    def of_documents(self) -> bool:
        """Whether inputs are texts."""
        return _is_of_documents(self.train)

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> LabelsConfig:
        if len({_is_of_documents(path) for path in (self.train, self.valid, self.test)}) > 1:
            raise ValueError("give train, valid and test all as .tsv, or none of them")
        wrong = ("num_classes", "class_names") if self.of_documents else ("max_words", "min_word_count")
        for name in wrong:
            if getattr(self, name) is not None:
                what = "feature vectors" if self.of_documents else "documents (.tsv)"
                raise ValueError(f"{name} applies to {what}; leave it out")
        return self


class InteractionsConfig(Section):
    """Next items of users, from a table of interactions. A user's last item is test, the one before valid."""

    kind: Literal["interactions"]
    path: str  # .tsv or .csv with a header; the columns user, item, timestamp, and rating where min_rating is set
    min_user_count: Annotated[int, Field(ge=3)] = 5  # interactions; users with fewer are left out, ..
    min_item_count: Positive = 5  # .. and items with fewer, until all that is left has enough
    min_rating: float | None = None  # lower ratings are no interaction


DATA_KINDS: dict[str, type[Section]] = {
    "text": TextConfig,
    "features": FeaturesConfig,
    "labels": LabelsConfig,
    "interactions": InteractionsConfig,
}


def _data_kind(value: Any) -> str:
    kind = value.get("kind", "text") if isinstance(value, dict) else getattr(value, "kind", "text")
    return kind if isinstance(kind, str) else repr(kind)


def _known_kind(value: Any) -> Any:
    if (kind := _data_kind(value)) not in DATA_KINDS:
        raise ValueError(f"unknown kind {kind!r}{did_you_mean(kind, DATA_KINDS)}")
    return value


DataConfig = Annotated[
    Annotated[TextConfig, Tag("text")]
    | Annotated[FeaturesConfig, Tag("features")]
    | Annotated[LabelsConfig, Tag("labels")]
    | Annotated[InteractionsConfig, Tag("interactions")],
    Discriminator(_data_kind),
    BeforeValidator(_known_kind),
]


class EncoderConfig(Section):
    """The model below the output layer, and how it is trained before the search."""

    # Of ids (words, items): feedforward, gru, bag; of numbers: mlp, identity. What is left out goes by data.kind.
    kind: str = "feedforward"
    context: Positive = 5  # ids seen: the words or items before, or the first words of a document
    embedding: Positive = 64
    features: Annotated[int, Field(ge=2)] = 128  # D; of identity, that of the data
    epochs: Positive = 1  # on a Huffman tree, before class vectors exist
    refine_epochs: Annotated[int, Field(ge=0)] = 1  # then on all of ``trees`` at once
    # Builders. An encoder favours the tree that it is trained with: several that differ favour none.
    trees: Annotated[tuple[dict[str, Any], ...], Field(min_length=1)] = (
        {"name": "clustered"},
        {"name": "clustered", "arity": 32},
        {"name": "adaptive", "div_value": 1.0},
    )
    batch_size: Positive = 512
    learning_rate: PositiveFloat = 0.004

    @model_validator(mode="after")
    def _trees_have_names(self) -> EncoderConfig:
        _check_builders("tree", self.trees)
        return self


class FrozenConfig(Section):
    """The frozen rung: node classifiers on cached features."""

    learning_rate: PositiveFloat = 0.025
    epochs: Positive = 1
    max_tokens: Positive | None = None  # training tokens read; null for all
    # Share of the training tokens on which trees are scored, and from which neither encoder nor nodes learn before the
    # joint rung. null: trees are scored on the validation split, by which the joint rung chooses among them again.
    holdout: Annotated[float, Field(gt=0, le=0.5, allow_inf_nan=False)] | None = None
    kernel: Literal["auto", "numba", "torch"] = "auto"  # torch: several trees in one pass; auto: that, where on CUDA
    device: str = "auto"  # of the torch kernel
    forest: Positive = 8  # trees in one pass of the torch kernel
    memo: bool = True  # nodes that an earlier tree had are looked up, not trained again; the results are the same
    # A proposal whose reward must end, or on the subset has ended, so many nats below the best under its λ is not
    # finished; null: all are.
    stop_margin: PositiveFloat | None = None
    subset_tokens: Positive | None = None  # training tokens on which proposals are scored first; null: no such rung
    time_limit: PositiveFloat | None = None  # seconds of an evaluation, with executor: ray; null: none

    @model_validator(mode="after")
    def _the_subset_stops(self) -> FrozenConfig:
        if self.subset_tokens is not None and self.stop_margin is None:
            raise ValueError("subset_tokens needs stop_margin, which says when a proposal has fallen behind")
        if self.subset_tokens is not None and self.max_tokens is not None and self.subset_tokens >= self.max_tokens:
            raise ValueError(
                f"subset_tokens must be below max_tokens ({self.max_tokens}), but got {self.subset_tokens}"
            )
        return self


class JointConfig(Section):
    """The joint rung: encoder and tree together. Every tree gets its own best rate of the one grid.

    Training stops after the first epoch that is worse on validation data than the best so far, which is then kept.
    """

    learning_rates: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (0.004, 0.008, 0.016)
    epochs: Positive = 1  # at most; the learning rate falls to zero over so many
    batch_size: Positive = 512
    device: str = "auto"
    time_limit: PositiveFloat | None = None  # seconds of a training, with executor: ray; null: none


class ConfirmConfig(Section):
    """The way up from the frozen rung: joint training, then fresh seeds scored on the test split."""

    promote: Positive = (
        2  # trees of each kind (builder or found, any cost or Huffman's at most) trained jointly, each λ
    )
    # Trees of each kind and λ, no near copies, that are first trained for one epoch from the search's encoder: the best
    # ``promote`` of them go on. The first half tells what frozen scores owe to choosing, the other half is chosen by
    # what is left. null: the best of the frozen rung go on.
    screen: Positive | None = None
    # Of joint training: every round after the first trains the better half of each group again, with as many new seeds
    # as it has had, since one run tells less than trees differ by.
    rounds: Annotated[int, Field(ge=1, le=6)] = 1
    finalists: Positive = 1  # of each kind and cost, by joint validation: trained with all seeds; the best is reported
    seeds: Annotated[int, Field(ge=0)] = 3  # of the reported runs; 0: the search ends on the frozen rung
    families: tuple[str, ...] = ()  # builders all of whose trees leave the frozen rung; the best of each is confirmed
    rank_trees: Annotated[int, Field(ge=0)] = 0  # diverse trees also trained jointly, to tell how well rungs agree
    timing: bool = True  # measure the output layer's and the whole training step with every confirmed tree
    timing_rounds: Positive = 25  # turns of every tree in that; figures are medians

    @model_validator(mode="after")
    def _the_screen_chooses(self) -> ConfirmConfig:
        if self.screen is not None and self.screen <= self.promote:
            raise ValueError(
                f"screen must exceed promote ({self.promote}), to choose among more trees, but got {self.screen}"
            )
        return self


class WeightRange(Section):
    """All λs between two bounds, log-uniform."""

    low: PositiveFloat
    high: PositiveFloat

    @model_validator(mode="after")
    def _in_order(self) -> WeightRange:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, but got {self.low} and {self.high}")
        return self


_TAGS = _LIST, _RANGE = "a list", "a range"  # no names of settings: they are left out of messages


def _list_or_range(value: Any) -> str:
    return _RANGE if isinstance(value, dict | WeightRange) else _LIST


WeightList = Annotated[tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...], Field(min_length=1)]
Weights = Annotated[
    Annotated[WeightList, Tag(_LIST)] | Annotated[WeightRange, Tag(_RANGE)], Discriminator(_list_or_range)
]


class CostConfig(Section):
    """What compute costs in the reward."""

    kind: Literal["analytic", "measured"] = "analytic"  # measured: microseconds per example on the joint rung's device
    # λ, nats per binary-node unit. Where measured, the unit is the mean time of a decision in the Huffman tree, so that
    # Huffman costs the same either way.
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.005
    # λs that the search draws from, a list or {low, high}: it then ends in a front of trees. null: weight alone.
    weights: Weights | None = None
    phase: Literal["training", "inference"] = "training"  # whose time is measured
    table: Path | None = None  # a cost_table.json of an earlier run; null: measure at the start

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> CostConfig:
        if self.kind == "measured":
            return self
        if self.table is not None:
            raise ValueError(f"table applies to kind: measured, but kind is {self.kind} and table {str(self.table)!r}")
        if self.phase != "training":
            raise ValueError(f"phase applies to kind: measured, but kind is {self.kind} and phase {self.phase!r}")
        return self


class EnvironmentConfig(Section):
    """How trees are constructed."""

    actions: tuple[str, ...] | None = None  # names; null for the default set
    max_decisions: Positive = 32
    closer: str | None = None  # action that closes what is left; null for the default
    # Of classes, for splits by category: syntax, morphology, or a file of lines 'class name TAB category'.
    categories: Path | None = None
    # Of the classes by name: lines 'child TAB parent', a path a line, or nested .json; its own tree is confirmed too.
    taxonomy: Path | None = None
    # Keep its nodes in every tree, and decide below them: parents (among the classes right below a node) or anywhere
    # (also how the children of the others are grouped). null: it gives the actions taxonomy and taxonomy-L; without
    # actions, the first joins the default set.
    refine: Literal["parents", "anywhere"] | None = None

    @model_validator(mode="after")
    def _categories_are_used(self) -> EnvironmentConfig:
        actions = self.actions or ()
        by_category = [name for name in actions if name.split("-")[0] == "category"]
        if by_category and self.categories is None:
            raise ValueError(f"action {by_category[0]!r} needs categories: syntax, morphology or a file")
        if self.categories is not None and not by_category and not any(":" in name for name in actions):
            raise ValueError(f"categories {str(self.categories)!r} applies to the action 'category'; add it to actions")
        return self

    @model_validator(mode="after")
    def _the_taxonomy_is_there(self) -> EnvironmentConfig:
        by_taxonomy = [name for name in self.actions or () if name.split("-")[0] == "taxonomy"]
        if by_taxonomy and self.taxonomy is None:
            raise ValueError(f"action {by_taxonomy[0]!r} needs taxonomy, a file")
        if self.refine is not None and self.taxonomy is None:
            raise ValueError(f"refine: {self.refine} needs taxonomy, a file")
        if self.refine is not None and by_taxonomy:
            raise ValueError(
                f"action {by_taxonomy[0]!r} splits by what refine: {self.refine} has in every tree; drop either"
            )
        return self


TAXONOMY = "taxonomy"  # the builder
DEFAULT_BUILDERS: tuple[dict[str, Any], ...] = (
    {"name": "huffman"},
    {"name": "huffman", "arity": 16},
    {"name": "similar-huffman"},
    {"name": "balanced", "arity": 16},
    {"name": "random"},
    {"name": "clustered"},
    {"name": "clustered", "arity": 4},
    {"name": "clustered", "arity": 8},
    {"name": "clustered", "arity": 16},
    {"name": "clustered", "arity": 32},
    {"name": "clustered", "arity": 64},
    {"name": "interpolated", "weight": 0.0},
    {"name": "interpolated", "weight": 0.25},
    {"name": "interpolated", "weight": 0.5},
    {"name": "two-level", "by": "frequency"},
    {"name": "two-level", "by": "similarity"},
    {"name": "adaptive"},
)


class SearchConfig(Section):
    """The budget and who spends it."""

    evaluations: Positive = 100  # frozen evaluations, builders included
    batch_size: Positive = 10  # proposals between two updates of the agent
    agent: str = "hybrid"
    settings: dict[str, Any] = Field(default_factory=dict)  # of the agent
    refresh_every: Positive | None = (
        None  # evaluations after which the encoder is retrained on the best tree too; null: never
    )
    # No worker waits for another: the agent is told of every batch_size proposals that have finished, whichever. For
    # evaluations that differ much in time; a run with the same seed is not the same again.
    asynchronous: bool = False
    executor: Literal["local", "ray"] = "ray"
    max_consecutive_failures: Positive = 20  # evaluations in a row that may fail before the search gives up
    builders: tuple[dict[str, Any], ...] = DEFAULT_BUILDERS

    @model_validator(mode="after")
    def _huffman_is_there(self) -> SearchConfig:
        _check_builders("builder", self.builders)
        if {"name": "huffman"} not in self.builders:
            raise ValueError("builders must contain {name: huffman}: everything is compared with it")
        if self.evaluations <= len(self.builders):
            raise ValueError(
                f"evaluations must exceed the number of builders ({len(self.builders)}), but got {self.evaluations}"
            )
        return self


def _count_or_auto(value: Any) -> Any:
    if value != "auto" and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ValueError("must be a whole number >= 1, or auto")
    return value


class RayConfig(Section):
    """The cluster; used with ``search.executor: ray``."""

    # auto: all there is room for, as nodes come and go
    num_workers: Annotated[int | Literal["auto"], BeforeValidator(_count_or_auto)] = 2
    max_in_flight: Positive | None = None  # evaluations under way at once, at most; null: as many as workers
    cpus_per_worker: PositiveFloat = 1.0
    gpus_per_worker: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    address: str | None = None  # null: a private Ray on this machine; auto, or host:port, joins a cluster
    max_attempts: Positive = 3  # how often an evaluation is begun before the loss of its worker counts as its failure


class WandbConfig(Section):
    """Weights & Biases: one run per search."""

    mode: Literal["disabled", "offline", "online"] = "disabled"
    project: str = "treesearch"
    timeout: PositiveFloat = 30.0  # seconds that the search waits for it at most, at its start and again at its end


class TensorBoardConfig(Section):
    """TensorBoard: event files in the run folder."""

    enabled: bool = False


def _encoder_defaults(data: Mapping[str, Any]) -> dict[str, Any]:
    kind = _data_kind(data)
    if kind == "labels":
        of_documents = _is_of_documents(str(data.get("train", "")))
        return {"kind": "bag", "context": 64} if of_documents else {"kind": "mlp"}
    if kind == "interactions":
        return {"kind": "gru", "context": 20}
    return {"kind": "identity"} if kind == "features" else {}


class Config(Section):
    """A whole run."""

    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    data: DataConfig = TextConfig(source="python-stdlib", max_classes=5000, max_train_tokens=400_000)
    encoder: EncoderConfig = EncoderConfig()
    frozen: FrozenConfig = FrozenConfig()
    joint: JointConfig = JointConfig()
    confirm: ConfirmConfig = ConfirmConfig()
    cost: CostConfig = CostConfig()
    environment: EnvironmentConfig = EnvironmentConfig()
    search: SearchConfig = SearchConfig()
    ray: RayConfig = RayConfig()
    wandb: WandbConfig = WandbConfig()
    tensorboard: TensorBoardConfig = TensorBoardConfig()

    @model_validator(mode="before")
    @classmethod
    def _encoder_by_data(cls, raw: Any) -> Any:
        """What the encoder section leaves out goes by the data."""
        data, encoder = (raw.get("data"), raw.get("encoder", {})) if isinstance(raw, dict) else (None, None)
        if not isinstance(data, dict) or not isinstance(encoder, dict):
            return raw
        return {**raw, "encoder": {**_encoder_defaults(data), **encoder}}

    @model_validator(mode="before")
    @classmethod
    def _the_taxonomy_is_compared(cls, raw: Any) -> Any:
        """The taxonomy's own tree is built and confirmed, so that the comparison says what the search adds to it."""
        environment = raw.get("environment") if isinstance(raw, dict) else None
        if not isinstance(environment, dict):
            return raw
        if environment.get("taxonomy") is None:
            return _without_taxonomy(raw) if "taxonomy" in environment else raw
        raw = _with_entry(raw, "search", "builders", DEFAULT_BUILDERS, {"name": TAXONOMY})
        return _with_entry(raw, "confirm", "families", (), TAXONOMY)

    @model_validator(mode="after")
    def _an_encoder_that_can_be_refreshed(self) -> Config:
        if self.encoder.kind == "identity" and self.search.refresh_every is not None:
            raise ValueError("search.refresh_every trains the encoder again, but encoder.kind is identity; drop it")
        return self

    @model_validator(mode="after")
    def _no_subset_in_a_stream(self) -> Config:
        if self.search.asynchronous and self.frozen.subset_tokens is not None:
            raise ValueError(
                "frozen.subset_tokens scores a whole batch first, which search.asynchronous has none of; drop either"
            )
        return self

    @model_validator(mode="after")
    def _limits_can_be_kept(self) -> Config:
        limited = next((name for name in ("frozen", "joint") if getattr(self, name).time_limit is not None), None)
        if limited is not None and self.search.executor == "local":
            raise ValueError(f"{limited}.time_limit needs search.executor: ray, which can end a worker")
        return self


def _without_taxonomy(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same settings without what a taxonomy, now overridden with null, had put into them."""
    search, confirm = raw.get("search"), raw.get("confirm")
    if not (isinstance(search, dict) and isinstance(confirm, dict)):
        return raw
    builders, families = search.get("builders") or (), confirm.get("families") or ()
    if {"name": TAXONOMY} not in builders or TAXONOMY not in families:
        return raw
    return {
        **raw,
        "search": {**search, "builders": [one for one in builders if one != {"name": TAXONOMY}]},
        "confirm": {**confirm, "families": [one for one in families if one != TAXONOMY]},
    }


def _with_entry(
    raw: Mapping[str, Any], section: str, key: str, default: Sequence[Any], entry: Any
) -> Mapping[str, Any]:
    """The same settings with an entry in a list; what is no such list is left to validation."""
    inside = raw.get(section, {})
    entries = inside.get(key, default) if isinstance(inside, dict) else None
    if not isinstance(entries, list | tuple) or entry in entries:
        return raw
    return {**raw, section: {**inside, key: [*entries, entry]}}


_PATH_KEYS = {
    "data": ("train", "valid", "test", "path", "class_names"),
    "cost": ("table",),
    "environment": ("categories", "taxonomy"),
}  # by section


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, apply ``a.b=c`` overrides, expand variables in paths, validate.

    Args:
        path: The file.
        overrides: Assignments; the value is parsed as YAML, so that ``null`` and ``[1, 2]`` work.

    Raises:
        ConfigError: The file is missing or no YAML, a key is unknown, a value is out of range, a variable is not set.
    """
    return make_config(read_settings(path, overrides))


def read_settings(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The sections of a YAML file with overrides, not validated; see `load_config`."""
    path = Path(path)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no config file at {path}; configs/quickstart.yaml is one to start from") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:  # ValueError: no UTF-8, or no such date
        raise ConfigError(f"{path} is not readable YAML: {' '.join(str(error).split())}") from None
    raw = {} if raw is None else raw
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must hold a mapping of sections, but holds a {type(raw).__name__}")
    for assignment in overrides:
        _assign(raw, *_parsed(assignment))
    return raw


def with_overrides(config: Config, overrides: Sequence[str]) -> Config:
    """A configuration with ``a.b=c`` overrides; see `load_config`."""
    return with_settings(config, dict(map(_parsed, overrides)))


def with_settings(config: Config, values: Mapping[str, Any]) -> Config:
    """A configuration with other values for ``a.b``; see `load_config`."""
    raw = config.model_dump(mode="json")
    for key, value in values.items():
        _assign(raw, key, value)
    return make_config(raw)


def make_config(raw: Mapping[str, Any]) -> Config:
    """Validate a mapping; see `load_config`."""
    values = dict(raw)
    for name, path_keys in _PATH_KEYS.items():
        section = values.get(name)
        if isinstance(section, dict):
            values[name] = {
                key: _expand(f"{name}.{key}", value) if key in path_keys else value for key, value in section.items()
            }
    search = values.get("search")
    if isinstance(search, dict) and isinstance(search.get("builders"), list | tuple):
        values["search"] = {**search, "builders": [_expand_files(entry) for entry in search["builders"]]}
    return validate(Config, values)


def _expand_files(entry: Any) -> Any:
    """A builder with the paths of its categories, or of its taxonomy, expanded."""
    if not isinstance(entry, dict):
        return entry
    return {
        key: _expand(f"search.builders: {key}", value) if key in ("categories", TAXONOMY) else value
        for key, value in entry.items()
    }


S = TypeVar("S", bound=Section)


def validate(section: type[S], values: Mapping[str, Any], prefix: str = "") -> S:
    """A section from a mapping; ``prefix`` stands before its keys in messages.

    Raises:
        ConfigError: A key is unknown, or a value is out of range.
    """
    try:
        return section.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_one_line(section, error, prefix)) from None


def dump_config(config: Config) -> str:
    """The resolved configuration as YAML, itself a valid config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def parse_value(text: str) -> Any:
    """A command-line value as YAML."""
    try:
        return yaml.safe_load(text)
    except (ValueError, RecursionError, yaml.YAMLError):
        raise ConfigError(f"a value must be YAML, but got {text!r}") from None


def _parsed(assignment: str) -> tuple[str, Any]:
    key, sign, text = assignment.partition("=")
    if not sign or not key.strip():
        raise ConfigError(f"--set needs key=value, such as search.evaluations=200, but got {assignment!r}")
    return key.strip(), parse_value(text)


def _assign(raw: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    section = raw
    for name in parents:
        section = section.setdefault(name, {})
        if not isinstance(section, dict):
            raise ConfigError(f"{key}={value!r} cannot be set: {name} is a value, not a section")
    section[last] = value


def _expand(key: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    expanded = os.path.expanduser(os.path.expandvars(value))
    unset = re.search(r"\$\{?(\w+)\}?", expanded)
    if unset:
        raise ConfigError(
            f"{key} is {value!r}, but the environment variable {unset[1]} is not set; export it or set {key}"
        )
    return expanded


def _one_line(whole: type[BaseModel], error: ValidationError, prefix: str) -> str:
    first = error.errors()[0]
    parts = [part for part in first["loc"] if part not in _TAGS]
    if parts[:1] == ["data"] and whole is Config and parts[1:2] and parts[1] in DATA_KINDS:
        del parts[1]  # says which kind of data it is, and is no setting
    location = prefix + ".".join(map(str, parts))
    if first["type"] == "extra_forbidden":
        section = _section_at(whole, first["loc"][:-1])
        return f"unknown key {location!r} in the config{did_you_mean(str(first['loc'][-1]), section.model_fields)}"
    message = first["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(first["input"], dict) else f", but got {first['input']!r:.80}"
    more = error.error_count() - 1
    rest = f" (and {more} more)" if more else ""
    where = f"config: {location}" if location else "config"  # empty: of several sections together
    return f"{where}: {message[:1].lower()}{message[1:]}{shown}{rest}"


def _section_at(whole: type[BaseModel], location: Sequence[int | str]) -> type[BaseModel]:
    section = whole
    for name in location:
        field = section.model_fields.get(str(name))
        if field is None and section in DATA_KINDS.values():
            section = DATA_KINDS.get(str(name), section)
        if field is not None:  # else the tag of a union
            section = next(filter(_is_section, _parts(field.annotation)))
    return section


def _parts(annotation: Any) -> Iterator[Any]:
    """A type and what it is a union of."""
    yield annotation
    for part in get_args(annotation):
        yield from _parts(part)


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
