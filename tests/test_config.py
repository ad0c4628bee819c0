from pathlib import Path

import pytest
import yaml

from treesearch.config import Config, WeightRange, dump_config, load_config, make_config, parse_value
from treesearch.errors import ConfigError

ROOT = Path(__file__).parents[1]
CONFIGS = sorted({*ROOT.glob("configs/*.yaml")} - {ROOT / "configs/sweep.yaml"})  # which is more than a config
FILES = {"train": "a", "valid": "b", "test": "c"}


@pytest.fixture
def write(tmp_path):
    """Writes a config file and returns its path."""

    def write(content):
        path = tmp_path / "config.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def refusal(call, *arguments):
    """The message of the ConfigError that a call ends with; one line."""
    with pytest.raises(ConfigError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def nested(key, value):
    """``a.b`` and a value as the mapping ``{a: {b: value}}``."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


# -- what is accepted


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_shipped_configs_load_and_survive_a_round_trip(path, write, monkeypatch):
    for name in ("TREESEARCH_DATA", "FEATURES", "DOCUMENTS", "INTERACTIONS"):
        monkeypatch.setenv(name, "/data")
    config = load_config(path)
    assert load_config(write(dump_config(config))) == config


def test_every_setting_survives_a_round_trip(write):
    config = make_config(
        {
            "seed": 3,
            "data": FILES | {"max_classes": 9},
            "frozen": {"max_tokens": 7, "memo": False, "stop_margin": 0.1 + 0.2, "subset_tokens": 6},
            "cost": {"weights": {"low": 1e-5, "high": 0.1 + 0.2}},
            "confirm": {"finalists": 2, "rank_trees": 3},
            "joint": {"learning_rates": [1e-5, 0.1 + 0.2]},
            "environment": {"actions": ["close", "split(0.5)"], "closer": "é'\": #"},
            "search": {
                "builders": [{"name": "huffman"}, {"name": "adaptive", "cutoffs": [1, 2]}],
                "refresh_every": 5,
                "settings": {"credit": "terminal", "nothing": None, "nested": {"list": [1, 2.5, True]}},
            },
            "ray": {"address": "auto"},
        }
    )
    assert load_config(write(dump_config(config))) == config


@pytest.mark.parametrize("content", ["", "# nothing\n", "{}"])
def test_an_empty_file_is_the_default_run(write, content):
    assert load_config(write(content)) == Config()


def test_variables_and_home_are_expanded_in_paths(monkeypatch):
    monkeypatch.setenv("CORPUS", "/big/disk")
    monkeypatch.setenv("HOME", "/home/ada")
    data = make_config({"data": {"train": "$CORPUS/a", "valid": "${CORPUS}/b", "test": "~/c"}}).data
    assert data.files() == ("/big/disk/a", "/big/disk/b", "/home/ada/c")


def test_variables_are_expanded_in_the_files_of_builders(monkeypatch):
    monkeypatch.setenv("HERE", "/data")
    files = [{"name": "taxonomy", "taxonomy": "$HERE/t.tsv"}, {"name": "categories", "categories": "$HERE/c.tsv"}]
    found = make_config({"search": {"builders": [{"name": "huffman"}, *files]}}).search.builders[1:]
    assert [found[0]["taxonomy"], found[1]["categories"]] == ["/data/t.tsv", "/data/c.tsv"]


def test_variables_and_home_are_expanded_in_the_path_of_a_cost_table(monkeypatch):
    monkeypatch.setenv("RUNS", "/big/runs")
    monkeypatch.setenv("HOME", "/home/ada")
    for given, path in (("$RUNS/a/table.json", "/big/runs/a/table.json"), ("~/table.json", "/home/ada/table.json")):
        assert make_config({"cost": {"kind": "measured", "table": given}}).cost.table == Path(path)
    assert make_config({"cost": {"kind": "measured", "table": None}}).cost.table is None


def test_an_unset_variable_in_the_path_of_a_cost_table(monkeypatch):
    monkeypatch.delenv("NO_SUCH", raising=False)
    message = refusal(make_config, {"cost": {"kind": "measured", "table": "$NO_SUCH/x"}})
    assert "cost.table" in message
    assert "environment variable NO_SUCH is not set" in message


@pytest.mark.parametrize(("key", "value"), [("table", "table.json"), ("phase", "inference")])
@pytest.mark.parametrize("kind", [{}, {"kind": "analytic"}], ids=str)
def test_settings_of_a_measured_cost_are_not_ignored(kind, key, value):
    message = refusal(make_config, {"cost": {key: value, **kind}})
    assert f"{key} applies to kind: measured" in message
    assert value in message
    config = make_config({"cost": {"kind": "measured", key: value}})
    assert str(getattr(config.cost, key)) == value


def test_a_setting_that_equals_its_default_is_not_ignored(write):
    assert make_config({"cost": {"phase": "training", "table": None}}) == Config()


def test_set_is_applied_before_variables_are_expanded(monkeypatch):
    monkeypatch.delenv("TREESEARCH_DATA", raising=False)
    overrides = [f"data.{split}={split}.txt" for split in FILES]
    assert load_config(ROOT / "configs/kjv.yaml", overrides).data.files() == ("train.txt", "valid.txt", "test.txt")


# -- --set


@pytest.mark.parametrize(
    ("assignment", "get", "value"),
    [
        ("seed=7", lambda c: c.seed, 7),
        (" seed =7", lambda c: c.seed, 7),
        ("cost.weight=1e-3", lambda c: c.cost.weight, 0.001),
        ("data.max_train_tokens=null", lambda c: c.data.max_train_tokens, None),
        ("joint.learning_rates=[0.1, 0.2]", lambda c: c.joint.learning_rates, (0.1, 0.2)),
        ("environment.actions=[close, split]", lambda c: c.environment.actions, ("close", "split")),
        ("search.settings.credit=terminal", lambda c: c.search.settings, {"credit": "terminal"}),
        ("search.settings={a: 1}", lambda c: c.search.settings, {"a": 1}),
        ("search.builders=[{name: huffman}]", lambda c: c.search.builders, ({"name": "huffman"},)),
        ("wandb.project=a=b", lambda c: c.wandb.project, "a=b"),
        ("ray.address=", lambda c: c.ray.address, None),
    ],
)
def test_set(write, assignment, get, value):
    start = "seed: 1\ndata: {source: python-stdlib, max_classes: 50}\n"
    assert get(load_config(write(start), [assignment])) == value


def test_later_assignments_win_and_the_rest_stays(write):
    path = write("seed: 1\nsearch: {evaluations: 40, batch_size: 3}\n")
    config = load_config(path, ["search.evaluations=50", "search.evaluations=60"])
    assert (config.seed, config.search.evaluations, config.search.batch_size) == (1, 60, 3)


def test_source_null_switches_to_files(write):
    path = write("data: {source: python-stdlib, max_classes: 50}")
    overrides = ["data.source=null", *(f"data.{split}={name}" for split, name in FILES.items())]
    assert load_config(path, overrides).data.files() == ("a", "b", "c")


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("seed", "needs key=value"),
        ("=3", "needs key=value"),
        ("", "needs key=value"),
        ("seed.x=3", "seed is a value"),
        ("seed=[1", "must be YAML"),
        ("seed=2024-13-45", "must be YAML"),
        ("seed=-1", "seed: input should be greater than or equal to 0, but got -1"),
        (f"seed={2**53 + 1}", f"seed: input should be less than or equal to {2**53}, but got {2**53 + 1}"),
        ("sead=3", "did you mean 'seed'?"),
        ("search.evaluation=3", "did you mean 'evaluations'?"),
        ("serch.evaluations=3", "did you mean 'search'?"),
    ],
)
def test_bad_assignments(write, assignment, says):
    assert says in refusal(load_config, write("seed: 1"), [assignment])


def test_a_section_that_is_null_is_no_section(write):
    assert "search is a value, not a section" in refusal(load_config, write("search:"), ["search.evaluations=3"])


def test_parse_value():
    assert parse_value("[1, null, x]") == [1, None, "x"]


# -- files that are no config


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[1, 2]", "holds a list"),
        ("just words", "holds a str"),
        ("17", "holds a int"),
        ("a: [1", "not readable YAML"),
        ("a: b: c", "not readable YAML"),
        ("\tseed: 1", "not readable YAML"),
        ("seed: 2024-13-45", "not readable YAML"),
        ("seed: !!python/object/apply:os.getcwd []", "not readable YAML"),
        ("[" * 5000, "not readable YAML"),
        (b"seed: \xff\xfe", "not readable YAML"),
        ("- x\n- y", "holds a list"),
    ],
)
def test_not_a_config(write, content, says):
    assert says in refusal(load_config, write(content))


def test_missing_file_and_folder(tmp_path):
    assert "no config file at" in refusal(load_config, tmp_path / "none.yaml")
    assert "not readable YAML" in refusal(load_config, tmp_path)


# -- keys and values


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("sede", "seed"),
        ("data.tran", "train"),
        ("encoder.feature", "features"),
        ("frozen.epoch", "epochs"),
        ("joint.learning_rate", "learning_rates"),
        ("confirm.seed", "seeds"),
        ("cost.wieght", "weight"),
        ("environment.max_decision", "max_decisions"),
        ("search.evaluation", "evaluations"),
        ("ray.workers", "num_workers"),
        ("wandb.projekt", "project"),
        ("cost.weight_s", "weights"),
        ("frozen.stop_margins", "stop_margin"),
        ("confirm.finalist", "finalists"),
        ("search.refresh", "refresh_every"),
        ("environment.category", "categories"),
    ],
)
def test_unknown_keys_at_every_level(key, meant):
    message = refusal(make_config, nested(key, 1))
    assert message.startswith(f"unknown key {key!r}")
    assert message.endswith(f"did you mean {meant!r}?")


def test_an_unknown_key_like_nothing_else_gets_the_list():
    assert "known: mode, project" in refusal(make_config, {"wandb": {"qqq": 1}})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", "many"),
        ("seed", -1),
        ("seed", 1.5),
        ("seed", None),
        ("data", None),
        ("data", "text"),
        ("encoder", []),
        ("encoder.features", 1),
        ("encoder.context", 0),
        ("encoder.learning_rate", 0),
        ("frozen.learning_rate", float("nan")),
        ("frozen.learning_rate", float("inf")),
        ("frozen.max_tokens", 0),
        ("joint.learning_rates", []),
        ("joint.learning_rates", 0.1),
        ("joint.learning_rates", [0.1, -0.1]),
        ("joint.learning_rates", [0.1, "fast\nand\nloose"]),
        ("frozen.memo", "perhaps"),
        ("frozen.stop_margin", 0),
        ("frozen.stop_margin", -0.1),
        ("frozen.stop_margin", float("inf")),
        ("frozen.subset_tokens", 0),
        ("frozen.holdout", 0),
        ("frozen.holdout", 0.6),
        ("frozen.holdout", float("nan")),
        ("confirm.screen", 0),
        ("confirm.timing_rounds", 0),
        ("cost.weights", 0.1),
        ("cost.weights", "many"),
        ("cost.weights", []),
        ("cost.weights", [0.1, -1.0]),
        ("cost.weights", [float("nan")]),
        ("cost.weights", [0.1, "x"]),
        ("cost.weights.low", 0),
        ("confirm.finalists", 0),
        ("confirm.finalists", 1.5),
        ("confirm.rank_trees", -1),
        ("search.refresh_every", 0),
        ("confirm.promote", 0),
        ("confirm.seeds", -1),
        ("cost.kind", "guessed"),
        ("cost.weight", -0.1),
        ("cost.weight", float("inf")),
        ("environment.max_decisions", 0),
        ("environment.actions", "close"),
        ("environment.actions", [1]),
        ("search.evaluations", 0),
        ("search.batch_size", 0),
        ("search.executor", "slurm"),
        ("search.settings", [1]),
        ("search.settings", {1: 2}),
        ("search.builders", [1]),
        ("search.builders", {"name": "huffman"}),
        ("ray.num_workers", 0),
        ("ray.cpus_per_worker", 0),
        ("ray.gpus_per_worker", -1),
        ("wandb.mode", "on"),
    ],
)
def test_wrong_types_and_values_name_the_key(key, value):
    message = refusal(make_config, nested(key, value))
    assert message.startswith(f"config: {key}")
    if not isinstance(value, dict | list) and value is not None:
        assert repr(value) in message


def test_keys_that_are_no_words():
    assert refusal(make_config, {1: 2}) == "config: 1: keys should be strings, but got 1"
    assert refusal(make_config, {"search": {None: 2}}) == "config: search.None: keys should be strings, but got None"


def test_several_mistakes_are_counted():
    assert refusal(make_config, {"seed": -1, "cost": {"weight": -1}}).endswith("(and 1 more)")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (FILES | {"source": "python-stdlib"}, "not both"),
        ({"train": "a"}, "give all of train, valid and test"),
        ({}, "give all of train, valid and test"),
        (FILES | {"max_train_tokens": 10}, "max_train_tokens applies to a named source"),
        ({"source": "python-stdlib"}, "max_classes must be set"),
        ({"source": "python-stlib", "max_classes": 10}, "source"),
        (FILES | {"max_classes": 2}, "max_classes"),
    ],
)
def test_one_origin_of_the_data(data, says):
    assert says in refusal(make_config, {"data": data})


@pytest.mark.parametrize("split", FILES)
def test_an_unset_variable_names_key_and_variable(split, monkeypatch):
    monkeypatch.delenv("NO_SUCH", raising=False)
    message = refusal(make_config, {"data": FILES | {split: "${NO_SUCH}/x"}})
    assert f"data.{split}" in message
    assert "environment variable NO_SUCH is not set" in message


@pytest.mark.parametrize(
    ("search", "says"),
    [
        ({"builders": [{"arity": 2}]}, "needs a name"),
        ({"builders": [{"name": 3}]}, "needs a name"),
        ({"builders": []}, "must contain {name: huffman}"),
        ({"builders": [{"name": "huffman", "arity": 4}]}, "must contain {name: huffman}"),
        ({"builders": [{"name": "huffman"}], "evaluations": 1}, "must exceed the number of builders (1), but got 1"),
    ],
)
def test_huffman_is_there_and_the_budget_reaches_beyond_builders(search, says):
    assert says in refusal(make_config, {"search": search})


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ({"low": 0.1, "high": 0.1}, "config: cost.weights: low must be below high, but got 0.1 and 0.1"),
        ({"low": 1, "high": 0.5}, "low must be below high, but got 1.0 and 0.5"),
        ({"low": 0.1}, "config: cost.weights.high: field required"),
        ({}, "config: cost.weights.low: field required (and 1 more)"),
        ({"low": 0.1, "hihg": 1, "high": 1}, "unknown key 'cost.weights.hihg' in the config; did you mean 'high'?"),
        ({"low": 0.1, "high": float("inf")}, "config: cost.weights.high: input should be a finite number, but got inf"),
        ({"low": 0.1, "high": "x"}, "config: cost.weights.high: input should be a valid number"),
        ([0.1, "x"], "config: cost.weights.1: input should be a valid number"),
    ],
)
def test_weights_that_cannot_be_drawn_from(weights, says):
    assert says in refusal(make_config, {"cost": {"weights": weights}})


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (None, None),
        ([0], (0.0,)),
        ([0.1, 0.005, 0.1], (0.1, 0.005, 0.1)),
        ({"low": 0.001, "high": 0.1}, WeightRange(low=0.001, high=0.1)),
    ],
)
def test_weights_survive_a_round_trip(write, weights, expected):
    config = make_config({"cost": {"weights": weights}})
    assert config.cost.weights == expected
    assert load_config(write(dump_config(config))) == config


def test_weights_on_the_command_line(write):
    path = write("cost: {weights: [1, 2]}")
    assert load_config(path, ["cost.weights=[0.5]"]).cost.weights == (0.5,)
    assert load_config(path, ["cost.weights={low: 1, high: 2}"]).cost.weights == WeightRange(low=1, high=2)
    assert load_config(path, ["cost.weights=null"]).cost.weights is None


@pytest.mark.parametrize(
    ("frozen", "says"),
    [
        ({"subset_tokens": 10}, "subset_tokens needs stop_margin"),
        ({"subset_tokens": 10, "stop_margin": None}, "subset_tokens needs stop_margin"),
        ({"subset_tokens": 10, "stop_margin": 1, "max_tokens": 10}, "below max_tokens (10), but got 10"),
    ],
)
def test_a_subset_that_stops_nothing_or_is_the_whole(frozen, says):
    assert says in refusal(make_config, {"frozen": frozen})
    assert make_config({"frozen": {"subset_tokens": 9, "stop_margin": 1, "max_tokens": 10}}).frozen.subset_tokens == 9
    assert make_config({"frozen": {"stop_margin": 1}}).frozen.subset_tokens is None


@pytest.mark.parametrize("workers", [0, -1, 1.5, "many", True, None])
def test_workers_are_a_number_or_auto(workers) -> None:
    message = refusal(make_config, {"ray": {"num_workers": workers}})
    assert message == f"config: ray.num_workers: must be a whole number >= 1, or auto, but got {workers!r}"
    for good in (3, "auto"):
        assert make_config({"ray": {"num_workers": good}}).ray.num_workers == good


@pytest.mark.parametrize("section", ["frozen", "joint"])
def test_a_time_limit_needs_workers_that_can_be_ended(section) -> None:
    limited = {section: {"time_limit": 60}}
    assert f"{section}.time_limit needs search.executor: ray" in refusal(
        make_config, {**limited, "search": {"executor": "local"}}
    )
    assert getattr(make_config(limited), section).time_limit == 60


def test_a_screen_has_something_to_choose_from() -> None:
    assert make_config({"confirm": {"promote": 3, "screen": 4}}).confirm.screen == 4
    with pytest.raises(ConfigError, match=r"screen must exceed promote \(3\).*, but got 3"):
        make_config({"confirm": {"promote": 3, "screen": 3}})


@pytest.mark.parametrize("action", ["category", "category-project-0.5"])
def test_categories_and_the_actions_that_use_them_need_each_other(action, monkeypatch):
    message = refusal(make_config, {"environment": {"actions": ["close-flat", action]}})
    assert f"action {action!r} needs categories" in message
    for actions in (None, ["close-flat"]):
        message = refusal(make_config, {"environment": {"categories": "c.tsv", "actions": actions}})
        assert "categories 'c.tsv' applies to the action 'category'" in message
    monkeypatch.setenv("LISTS", "/lists")
    config = make_config({"environment": {"categories": "$LISTS/c.tsv", "actions": ["close-flat", action]}})
    assert config.environment.categories == Path("/lists/c.tsv")
    assert make_config({"environment": {"categories": "c.tsv", "actions": ["my.module:action"]}})


def test_the_smallest_budget():
    assert yaml.safe_load(dump_config(make_config({"search": {"builders": [{"name": "huffman"}], "evaluations": 2}})))


DOCUMENTS = {split: f"{split}.tsv" for split in FILES}


@pytest.mark.parametrize(
    ("data", "kind", "context"),
    [
        ({}, "feedforward", 5),
        ({"kind": "text", **FILES}, "feedforward", 5),
        ({"kind": "features", **FILES}, "identity", 5),
        ({"kind": "labels", **FILES}, "mlp", 5),
        ({"kind": "labels", **DOCUMENTS}, "bag", 64),
        ({"kind": "interactions", "path": "f.tsv"}, "gru", 20),
    ],
)
def test_the_encoder_goes_by_the_data_where_it_is_left_out(data, kind, context):
    raw = {"data": data} if data else {}
    encoder = make_config(raw).encoder
    assert (encoder.kind, encoder.context) == (kind, context)
    chosen = make_config({**raw, "encoder": {"kind": "chosen", "context": 7}}).encoder
    assert (chosen.kind, chosen.context) == ("chosen", 7)
    assert make_config(yaml.safe_load(dump_config(make_config(raw)))) == make_config(raw)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"kind": "featurs", **FILES}, "config: data: unknown kind 'featurs'; did you mean 'features'?"),
        ({"kind": 3}, "config: data: unknown kind '3'"),
        ({"kind": "features", **FILES, "trian": 1}, "unknown key 'data.trian' in the config; did you mean 'train'?"),
        ({"kind": "features", "train": "a"}, "config: data.valid: field required (and 1 more)"),
        ({"kind": "features", **FILES, "num_classes": 2}, "config: data.num_classes: "),
        ({"kind": "interactions", "path": "f", "source": None}, "unknown key 'data.source' in the config"),
        ({"kind": "interactions", "path": "f", "min_user_count": 2}, "config: data.min_user_count: "),
        ({"kind": "labels", **DOCUMENTS, "num_classes": 4}, "num_classes applies to feature vectors"),
        ({"kind": "labels", **FILES, "max_words": 4}, "max_words applies to documents (.tsv)"),
        ({"kind": "labels", **FILES, "train": "a.tsv"}, "all as .tsv, or none of them"),
        ({"kind": "interactions", "path": "$NO_SUCH_VARIABLE/f"}, "data.path is '$NO_SUCH_VARIABLE/f', but the env"),
        ("text", "config: data: "),
    ],
)
def test_data_sections_that_cannot_be_used(data, says):
    assert says in refusal(make_config, {"data": data})


def test_what_has_no_encoder_cannot_be_refreshed():
    raw = {"data": {"kind": "features", **FILES}, "search": {"refresh_every": 10}}
    assert "search.refresh_every trains the encoder again" in refusal(make_config, raw)
