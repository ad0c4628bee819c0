import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from tests.slow import slow_but
from treesearch.errors import ConfigError, ExecutionError
from treesearch.search.executors import LocalExecutor, Task
from treesearch.search.ray_executor import LOOPBACK_VARIABLE, RayExecutor, _check_room

from . import fakes

ARRAYS = {
    "x": np.random.default_rng(0).standard_normal(100_000).astype(np.float32),
    "y": np.arange(12, dtype=np.int32).reshape(3, 4),
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(10)[::2],
    "scalar": np.array(3.5),
    "names": np.array(["a", None, (1, 2)], dtype=object),
    "empty": np.zeros((0, 5)),
}
SETTINGS = {"scale": 2.0}
# Less than one CPU each, so that extra pools find room beside the shared one on two cores.
SMALL = {"cpus_per_worker": 0.25}


def ray_executor(factory=fakes.make_commands, settings=SETTINGS, **options):
    return RayExecutor(factory, arrays=ARRAYS, settings=settings, **SMALL | options)


def local_executor(factory=fakes.make_commands, settings=SETTINGS):
    return LocalExecutor(factory, arrays=ARRAYS, settings=settings)


MAKERS = slow_but([local_executor], [local_executor, ray_executor])


@pytest.fixture(scope="module")
def pool():
    """Two workers on a private Ray; the tests' other Ray executors find it and join."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "7")  # what a user may have exported; workers must not follow
        executor = ray_executor()
    yield executor
    executor.close()
    import ray

    assert not ray.is_initialized()


@pytest.fixture(params=["local", "ray"])
def executor(request):
    if request.param == "ray":
        yield request.getfixturevalue("pool")
    else:
        with local_executor() as local:
            yield local


def tasks_of(*payloads, start=0):
    return [Task(key, payload) for key, payload in enumerate(payloads, start)]


def run_all(executor, *payloads):
    """Outcomes in the order of the payloads; checks that each came exactly once."""
    tasks = tasks_of(*payloads)
    outcomes = sorted(executor.run(tasks), key=lambda outcome: outcome.task.key)
    assert [outcome.task for outcome in outcomes] == tasks
    return outcomes


# The contract, for every executor.


def test_every_task_gives_one_outcome(executor):
    outcomes = run_all(executor, *[("dot", seed) for seed in range(20)])
    assert all(outcome.ok and outcome.attempts == 1 and outcome.reason is None for outcome in outcomes)
    assert {outcome.worker.partition("-")[2] for outcome in outcomes} <= {str(i) for i in range(executor.num_workers)}


def test_tasks_are_taken_when_a_worker_is_free(executor):
    taken, done = [], []

    def tasks():
        for task in tasks_of(*[("dot", seed) for seed in range(12)]):
            taken.append((task.key, len(done)))
            yield task

    for outcome in executor.run(tasks()):
        done.append(outcome.task.key)
    assert sorted(done) == list(range(12)) == [key for key, _ in taken]
    for key, num_done in taken:
        assert key <= num_done + executor.num_workers, "one for each worker, and one more while an answer is handed on"


def test_it_knows_how_many_tasks_are_under_way(executor):
    assert executor.num_busy == 0
    seen = [executor.num_busy for _ in executor.run(tasks_of(*[("nap", 0.05) for _ in range(6)]))]
    assert 1 <= max(seen[:3]) <= executor.num_workers
    assert executor.num_busy == 0
    next(executor.run(tasks_of(("nap", 0.01), ("nap", 0.01))))
    assert list(executor.run([])) == []  # abandons the other
    assert executor.num_busy == 0


def test_no_tasks(executor):
    assert list(executor.run([])) == []


def test_exceptions_are_outcomes_and_not_retried(executor):
    good, bad, after = run_all(executor, ("dot", 1), ("fail", "value"), ("dot", 2))
    assert good.ok
    assert after.ok
    assert not bad.ok
    assert (bad.result, bad.reason, bad.attempts) == (None, "ValueError: class 7 is missing", 1)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("key", "KeyError: 'x'"),
        ("empty", "RuntimeError"),
        ("lines", "RuntimeError: first line second line"),
        ("awkward", "AwkwardError: one and two"),
        ("timeout", "TimeoutError: no answer"),
    ],
)
def test_reason(executor, kind, reason):
    assert run_all(executor, ("fail", kind))[0].reason == reason


def test_arrays_arrive_as_they_are(executor):
    fetched = run_all(executor, ("fetch",))[0].result
    assert list(fetched) == list(ARRAYS)
    for name, (array, dtype, f_contiguous) in fetched.items():
        np.testing.assert_array_equal(array, ARRAYS[name], strict=True)
        # Of a strided array a contiguous copy, everywhere: the layout decides the last digits of a sum.
        assert (dtype, f_contiguous) == (ARRAYS[name].dtype.str, name != "y")


def test_arrays_are_read_only(executor):
    outcomes = run_all(executor, *[("write", name) for name in ARRAYS])
    assert {outcome.reason for outcome in outcomes} == {"ValueError: assignment destination is read-only"}
    assert all(array.flags.writeable for array in ARRAYS.values())  # the caller's own


def test_worker_is_built_once(executor):
    calls = [outcome.result for outcome in run_all(executor, *[("count",)] * 6) + run_all(executor, ("count",))]
    assert len({pid for pid, _ in calls}) <= executor.num_workers
    assert len(set(calls)) == len(calls)  # (process, running number): no worker has started over


def test_seconds_are_those_of_the_call(executor):
    assert 0.2 <= run_all(executor, ("nap", 0.2))[0].seconds < 0.4


def test_abandoned_run_does_not_leak(executor):
    first = executor.run(tasks_of(*[("nap", 0.1)] * 6))
    next(first)
    second = executor.run(tasks_of(*[("dot", seed) for seed in range(4)], start=100))
    assert sorted(outcome.task.key for outcome in second) == [100, 101, 102, 103]
    assert list(first) == []


def test_failing_abandoned_task_is_not_taken_for_a_broken_worker(executor):
    next(executor.run(tasks_of(*[("nap", 0.05), ("fail", "value")] * 3)))
    assert run_all(executor, ("dot", 1))[0].ok


@pytest.mark.slow
def test_replaced_arrays_reach_every_worker(executor):
    """The shared pool gets its own arrays back."""
    run_all(executor, *[("count",)] * 4)
    ones = {"x": np.ones(1000, np.float32), "new": np.arange(3)[::-1]}
    executor.replace_arrays(ones)
    try:
        for outcome in run_all(executor, *[("fetch",)] * 6):
            assert list(outcome.result) == ["x", "new"]
            for name, (array, _, f_contiguous) in outcome.result.items():
                np.testing.assert_array_equal(array, ones[name], strict=True)
                assert f_contiguous
        weights = np.random.default_rng(5).standard_normal(1000)
        assert [outcome.result for outcome in run_all(executor, *[("dot", 5)] * 4)] == [float(weights.sum()) * 2.0] * 4
        assert {outcome.reason for outcome in run_all(executor, ("write", "x"), ("write", "new"))} == {
            "ValueError: assignment destination is read-only"
        }
        assert ones["x"].flags.writeable
        assert run_all(executor, ("fail", "value"))[0].reason == "ValueError: class 7 is missing"
        assert run_all(executor, ("count",))[0].result[1] == 1, "a new worker has counted nothing yet"
    finally:
        executor.replace_arrays(ARRAYS)
    assert run_all(executor, ("fetch",))[0].result["y"][0].tolist() == ARRAYS["y"].tolist()


@pytest.mark.slow
def test_replacing_arrays_abandons_what_is_under_way(executor):
    first = executor.run(tasks_of(*[("nap", 0.1)] * 6))
    next(first)
    executor.replace_arrays(ARRAYS)
    assert list(first) == []
    assert [outcome.task.key for outcome in executor.run(tasks_of(("dot", 1), start=100))] == [100]


@pytest.mark.parametrize("make", [local_executor, ray_executor])
def test_a_closed_executor_takes_no_arrays(make, pool):
    executor = make()
    executor.close()
    with pytest.raises(ExecutionError, match="this one was closed"):
        executor.replace_arrays(ARRAYS)


@pytest.mark.slow
def test_arrays_can_be_replaced_before_the_first_task(pool):
    for make in (local_executor, ray_executor):
        with make() as executor:
            executor.replace_arrays({"x": np.zeros(3)})
            assert run_all(executor, ("dot", 1))[0].result == 0.0


@pytest.mark.parametrize("make", MAKERS)
def test_factory_that_raises(make, pool):
    with make(fakes.broken_factory, {"encoder": "lstm"}) as executor:
        for _ in range(2):  # also the second time: never a silent end
            with pytest.raises(ExecutionError, match="ValueError: no such encoder: lstm"):
                list(executor.run(tasks_of(("dot", 1))))


@pytest.mark.parametrize("make", MAKERS)
def test_close_is_final_and_idempotent(make, pool):
    with make() as executor:
        iterator = executor.run(tasks_of(("dot", 1), ("dot", 2)))
        next(iterator)
        executor.close()
    executor.close()
    assert list(iterator) == []
    with pytest.raises(ExecutionError, match="closed"):
        executor.run([])
    assert run_all(pool, ("dot", 1))[0].ok  # a joined Ray goes on for the others


def test_local_and_ray_agree(pool):
    payloads = [("dot", seed) for seed in range(12)] + [("fail", "value"), ("fail", "lines"), ("fetch_nothing",)]
    with local_executor() as local:
        expected = [(outcome.result, outcome.reason) for outcome in run_all(local, *payloads)]
    assert [(outcome.result, outcome.reason) for outcome in run_all(pool, *payloads)] == expected


def test_local_runs_in_order_and_builds_lazily():
    with local_executor(fakes.broken_factory) as executor:
        assert list(executor.run([])) == []
    with local_executor() as executor:
        assert [outcome.task.key for outcome in executor.run(tasks_of(*[("dot", 1)] * 5))] == [0, 1, 2, 3, 4]


def within_a_kernel():
    """Ctrl-C as it comes out of compiled code."""
    raise SystemError("<function kernel> returned a result with an exception set") from KeyboardInterrupt()


def at_once():
    raise KeyboardInterrupt


@pytest.mark.parametrize("interrupt", [at_once, within_a_kernel])
def test_local_lets_interrupts_pass(interrupt):
    def interrupted(arrays, settings):
        return lambda payload: interrupt()

    def interrupted_at_first(arrays, settings):
        interrupt()

    for factory in (interrupted, interrupted_at_first):
        with local_executor(factory) as executor, pytest.raises(KeyboardInterrupt):
            next(executor.run(tasks_of(("dot", 1))))


# Ray alone.


def test_tasks_run_at_once(pool):
    run_all(pool, *[("dot", 1)] * 4)  # both workers are up
    start = time.monotonic()
    outcomes = run_all(pool, ("nap", 1.0), ("nap", 1.0))
    assert time.monotonic() - start < 1.8
    assert {outcome.worker for outcome in outcomes} == {"ray-0", "ray-1"}


def test_unpicklable_result_is_a_failed_outcome(pool):
    bad, good = run_all(pool, ("unpicklable",), ("dot", 1))
    assert good.ok
    assert bad.attempts == 1
    assert "pickle" in bad.reason


def test_lost_worker_is_replaced_and_its_task_sent_again(pool, tmp_path):
    lost, *others = run_all(pool, ("die_once", str(tmp_path / "flag")), *[("dot", seed) for seed in range(5)])
    assert (lost.result, lost.attempts) == ("survived", 2)
    assert all(outcome.ok and outcome.attempts == 1 for outcome in others)


@pytest.mark.slow
def test_deadly_task_fails_and_the_others_succeed(pool, capsys, caplog):
    # Named by the error's type alone: its text holds process ids, and the ledger must not depend on them.
    with ray_executor(max_attempts=2) as executor:
        deadly, *others = run_all(executor, ("die",), *[("dot", seed) for seed in range(4)])
        assert (deadly.result, deadly.reason, deadly.attempts) == (None, "worker lost: ActorDiedError", 2)
        assert deadly.seconds == 0.0
        assert all(outcome.ok and outcome.attempts == 1 for outcome in others)
    time.sleep(1)  # Ray's own notices come late
    assert capsys.readouterr().out == ""  # stdout is for data
    assert sum("was lost: ActorDiedError" in message for message in caplog.messages) == 2


@pytest.mark.slow
def test_a_task_that_reaches_its_time_limit_fails_and_the_others_go_on(pool):
    payloads = [("nap", 60), ("nap", 0.01), ("nap", 0.02), ("nap", 0.03)]
    tasks = [Task(key, payload, time_limit=1.5) for key, payload in enumerate(payloads)]
    begin = time.monotonic()
    outcomes = {outcome.task.key: outcome for outcome in pool.run(tasks)}
    assert time.monotonic() - begin < 30
    late = outcomes.pop(0)
    assert (late.ok, late.reason, late.attempts) == (False, "time limit: not finished after 1.5 s", 1)
    assert late.seconds >= 1.5
    assert [outcome.result for _, outcome in sorted(outcomes.items())] == [0.01, 0.02, 0.03]
    assert all(outcome.ok for outcome in run_all(pool, ("nap", 0), ("nap", 0)))


@pytest.mark.parametrize("make", MAKERS)
def test_a_stopped_executor_finishes_what_is_under_way_and_begins_nothing(make, pool):
    with make() as executor:
        tasks, done = tasks_of(*[("nap", 0.3)] * 8), []
        for outcome in executor.run(tasks):
            done.append(outcome)
            executor.stop()
        assert 1 <= len(done) <= 1 + executor.num_workers
        assert all(outcome.ok for outcome in done)
        assert list(executor.run(tasks)) == []


@pytest.mark.slow
def test_pool_that_only_dies_is_given_up(pool):
    with ray_executor(fakes.deadly_factory, num_workers=1) as executor:
        executor._losses_per_worker = 1  # the usual 3 would take ten seconds
        with pytest.raises(ExecutionError, match=r"3 in a row died .*ActorDiedError") as caught:
            list(executor.run(tasks_of(("dot", 1))))
        assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_threads_follow_the_reserved_cpus(pool):
    with ray_executor(fakes.make_with_torch, num_workers=1) as executor:
        variables, torch_threads = run_all(executor, ("threads",))[0].result
    assert variables == dict.fromkeys(fakes.THREAD_VARIABLES, "1")
    assert torch_threads == 1


def test_too_many_workers_for_the_cluster(pool):
    with pytest.raises(ExecutionError, match=r"asked for 999 workers x 1 CPU, the cluster has \d+ CPUs .*num_workers"):
        ray_executor(num_workers=999, cpus_per_worker=1)
    with pytest.raises(ExecutionError, match=r"999 workers x 0.25 CPU \+ 1 GPU, the cluster has"):
        ray_executor(num_workers=999, gpus_per_worker=1)
    assert run_all(pool, ("dot", 1))[0].ok


def node(alive=True, **resources):
    return {"Alive": alive, "Resources": resources}


@pytest.mark.parametrize(
    ("nodes", "workers", "cpus", "gpus", "fits"),
    [
        ([node(CPU=2)], 2, 1, 0, True),
        ([node(CPU=2)], 3, 1, 0, False),
        ([node(CPU=1)], 10, 0.1, 0, True),
        ([node(CPU=1)], 11, 0.1, 0, False),
        ([node(CPU=3), node(CPU=3)], 3, 2, 0, False),  # six CPUs, yet one node cannot lend to the other
        ([node(CPU=2), node(CPU=2, alive=False)], 3, 1, 0, False),
        ([node(CPU=8, GPU=1)], 2, 1, 0.5, True),
        ([node(CPU=8), node(GPU=8)], 1, 1, 1, False),
    ],
)
def test_room_for_workers(nodes, workers, cpus, gpus, fits):
    demand = {"CPU": cpus} | ({"GPU": gpus} if gpus else {})
    if fits:
        assert _check_room(nodes, workers, demand) >= workers
    else:
        with pytest.raises(ExecutionError, match=f"asked for {workers} workers x {cpus} CPU"):
            _check_room(nodes, workers, demand)


@pytest.mark.parametrize(
    "options", [{"num_workers": 0}, {"cpus_per_worker": 0}, {"gpus_per_worker": -1}, {"max_attempts": 0}]
)
def test_numbers_out_of_range(options):
    (name,) = options
    with pytest.raises(ConfigError, match=rf"ray\.{name} must be .* but got {options[name]}"):
        ray_executor(**options)


@pytest.mark.slow
def test_joining_another_cluster_than_the_present_one(pool):
    with pytest.raises(ExecutionError, match=r"127\.0\.0\.1:\d+ and got ray\.address=127\.0\.0\.1:1;"):
        ray_executor(address="127.0.0.1:1")
    with ray_executor(address="auto", num_workers=1) as executor:
        assert run_all(executor, ("dot", 1))[0].ok


def own_processes():
    """This process and everything below it, from /proc."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:  # it has ended meanwhile
                continue
    family = {os.getpid()}
    while below := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= below
    return family


def listening_addresses(pids):
    """Local addresses, as /proc writes them, on which these processes listen."""
    inodes = set()
    for pid in pids:
        try:
            inodes |= {os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()}
        except OSError:
            continue
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return [row[1].partition(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes]


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads the listeners from /proc, which is Linux")
def test_private_ray_listens_on_loopback_only(pool):
    run_all(pool, ("dot", 1))
    addresses = listening_addresses(own_processes())
    assert len(addresses) >= 3  # at least the control store, the node manager and a worker
    loopback = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    assert set(addresses) <= loopback


def run_script(script, *, elsewhere=None, **environment):
    """Run ``script`` in a process of its own, which may have another Ray; in this checkout, or in another folder."""
    root = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=root if elsewhere is None else elsewhere,
        env={**os.environ, "PYTHONPATH": str(root) if elsewhere is None else "", **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.slow
def test_unreachable_address_fails_soon():
    # Not "auto", which finds any Ray of this machine, that of the other tests included.
    script = """
        import time
        from tests.search import fakes
        from treesearch.errors import ExecutionError
        from treesearch.search.ray_executor import RayExecutor

        for address in ("127.0.0.1:1", "nobody", "ray://127.0.0.1:1", "127.0.0.1:99999"):
            start = time.monotonic()
            try:
                RayExecutor(fakes.make_commands, arrays={}, settings=None, address=address)
            except ExecutionError as error:
                assert time.monotonic() - start < 20, address
                assert "ray.address" in str(error), error
                assert chr(10) not in str(error), error
            else:
                raise AssertionError(address)
    """
    done = run_script(script)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_ray_imported_too_early_for_loopback_warns():
    # RAY_ADDRESS of nobody: a private Ray must not look at it.
    script = """
        import os, sys, types, warnings
        import pytest
        from treesearch.search import ray_executor

        class Stop(Exception): ...

        def init(**options):
            assert options["address"] == "local"
            raise Stop

        exceptions = types.SimpleNamespace(RayError=OSError)
        sys.modules["ray"] = types.SimpleNamespace(is_initialized=lambda: False, init=init, exceptions=exceptions)
        with pytest.warns(UserWarning, match="before importing ray"), pytest.raises(Stop):
            ray_executor.connect_ray(None, num_cpus=1, num_bytes=0)
    """
    environment = {LOOPBACK_VARIABLE: "1", "RAY_ADDRESS": "127.0.0.1:1"}
    done = run_script(script, **environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_no_more_tasks_are_under_way_than_allowed(pool):
    with ray_executor(max_in_flight=1) as executor:
        begin = time.monotonic()
        run_all(executor, *[("nap", 0.4)] * 4)
        assert time.monotonic() - begin >= 4 * 0.4


@pytest.mark.slow
def test_a_pool_that_follows_the_cluster():
    """It grows when a node comes, shrinks when one goes, and answers every task once."""
    script = """
        import time
        from ray.cluster_utils import Cluster
        from tests.search import fakes
        from treesearch.search import ray_executor
        from treesearch.search.executors import Task
        import numpy as np

        ray_executor.RESIZE_SECONDS = 0.2
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        options = {"arrays": {"x": np.ones(3)}, "settings": {"scale": 1.0}, "address": cluster.address}
        with ray_executor.RayExecutor(fakes.make_commands, num_workers=None, **options) as executor:
            assert executor.num_workers == 1
            run = executor.run([Task(key, ("nap", 0.3)) for key in range(60)])
            outcomes = [next(run)]
            second = cluster.add_node(num_cpus=2)
            while executor.num_workers < 3 or len({o.worker for o in outcomes[-6:]}) < 3:
                outcomes.append(next(run))
            cluster.remove_node(second, allow_graceful=False)
            outcomes += run
            assert sorted(outcome.task.key for outcome in outcomes) == list(range(60))
            assert all(outcome.ok for outcome in outcomes)
            end = time.monotonic() + 60  # Ray takes its time to call a node dead
            while executor.num_workers > 1 and time.monotonic() < end:
                assert all(outcome.ok for outcome in executor.run([Task(key, ("nap", 0.1)) for key in range(6)]))
            assert executor.num_workers == 1
        cluster.shutdown()
    """
    done = run_script(script, **{LOOPBACK_VARIABLE: "0"})
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_code_travels_with_the_driver(tmp_path):
    """Workers import our packages from what the driver sent, not from what is installed where they run."""
    script = """
        from pathlib import Path
        import numpy as np
        import ray
        from ray.cluster_utils import Cluster
        from treesearch.search.ray_executor import OWN_PACKAGES, RayExecutor
        from treesearch.search.worker import EvaluationWorker

        def origins():
            import importlib
            return [importlib.import_module(name).__file__ for name in OWN_PACKAGES]

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        with RayExecutor(
            EvaluationWorker, arrays={"x": np.ones(3)}, settings=None, num_workers=1, address=cluster.address
        ):
            found = ray.get(ray.remote(origins).remote())
        cluster.shutdown()
        assert all("runtime_resources" in Path(origin).parts for origin in found), found
    """
    done = run_script(script, elsewhere=tmp_path, **{LOOPBACK_VARIABLE: "0"})
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_cluster_that_loses_a_node():
    # Two nodes on one machine; the executor joins by address, survives the loss of one and leaves the other running.
    script = """
        import numpy as np
        import ray
        from ray.cluster_utils import Cluster
        from tests.search import fakes
        from treesearch.search.executors import Task
        from treesearch.search.ray_executor import RayExecutor

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        second = cluster.add_node(num_cpus=1)
        x = np.ones(300_000)
        with RayExecutor(
            fakes.make_commands, arrays={"x": x}, settings={"scale": 1.0}, address=cluster.address
        ) as executor:
            list(executor.run([Task(key, ("nap", 0.5)) for key in range(4)]))
            run = executor.run([Task(0, ("nap", 0.1)), Task(1, ("nap", 5.0)), Task(2, ("nap", 5.0))])
            first = next(run)  # now each node is busy with a long one
            cluster.remove_node(second, allow_graceful=False)
            outcomes = [first, *run]
            assert sorted(outcome.task.key for outcome in outcomes) == [0, 1, 2], outcomes
            assert all(outcome.ok for outcome in outcomes), outcomes
            assert max(outcome.attempts for outcome in outcomes) == 2, outcomes
        assert not ray.is_initialized()
        ray.init(address=cluster.address, log_to_driver=False)
        assert any(node["Alive"] for node in ray.nodes())
        ray.shutdown()
        cluster.shutdown()
    """
    done = run_script(script, **{LOOPBACK_VARIABLE: "0"})
    assert done.returncode == 0, done.stderr
