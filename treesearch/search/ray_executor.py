"""The executor on Ray: long-lived actors, with the queue and every retry on the driver's side.

Ray itself repeats nothing (no actor restarts, no task retries): a candidate that kills its worker would otherwise be
repeated for ever, and after the loss of a node not at all. The driver sees each death, starts a fresh actor, sends the
task again a bounded number of times and then records the failure.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import socket
import sys
import time
import warnings
from collections import deque
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treesearch.errors import ConfigError, ExecutionError
from treesearch.search.executors import (
    Arrays,
    Executor,
    Outcome,
    Reply,
    Task,
    Worker,
    WorkerFactory,
    construction_error,
    describe,
    invoke,
    read_only,
)
from treesearch.search.shared_arrays import num_bytes, pack, unpack

logger = logging.getLogger(__name__)

LOOPBACK_VARIABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # "0": every listener on 127.0.0.1; read when ray is imported
OWN_PACKAGES = ("treesearch", "envs", "agents")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
CONNECT_SECONDS = 5.0  # Ray itself tries a dead address for more than two minutes
START_SECONDS = 600.0  # how long the pool may wait for its first worker
RESIZE_SECONDS = 2.0  # how often a pool that follows the cluster looks for nodes that came or went
SMALL_STORE_BYTES = 2**30  # up to here Ray's default object store is large enough on any machine


class _Host:
    """The actor: a worker and the process that it lives in."""

    _worker: Worker

    def build(
        self, factory: WorkerFactory, refs: dict[str, Any], settings: Any, threads: int, gpu_share: float
    ) -> Reply:
        """Build the worker; the reply's reason says why it could not be built."""
        import ray

        if 0 < gpu_share < 1:  # Ray counts shares of a GPU, but does not part its memory
            import torch

            torch.cuda.set_per_process_memory_fraction(gpu_share)

        built = invoke(lambda packed: factory(read_only(unpack(packed, ray.get)), settings), refs)
        if built.reason is None:
            assert built.result is not None
            self._worker = built.result
        if "torch" in sys.modules:
            import torch

            torch.set_num_threads(threads)
        return built._replace(result=None)  # the worker stays here: it need not be picklable

    def call(self, payload: Any) -> Reply:
        reply = invoke(self._worker, payload)
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.empty_cache()  # what this tree needed, another worker on this GPU may need next
        return reply


@dataclass(eq=False)
class _Slot:
    """A place in the pool; its name outlives the actors in it."""

    name: str
    host: Any | None = None  # actor handle; None before the first start and after a death
    ready: bool = False  # the host has built its worker


@dataclass(frozen=True)
class _Flight:
    """What a slot is busy with."""

    slot: _Slot
    task: Task | None  # None: building the worker, or finishing what an abandoned run had asked for
    attempt: int = 1
    began: float = 0.0  # of `time.monotonic`

    def seconds_left(self) -> float:
        """Up to the time limit of its task."""
        limit = math.inf if self.task is None or self.task.time_limit is None else self.task.time_limit
        return self.began + limit - time.monotonic()


class _Queue:
    """Tasks that wait for a worker: those to be sent again, then the caller's, taken from it one at a time."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._tasks = iter(tasks)
        self._waiting: deque[tuple[Task, int]] = deque()
        self._exhausted = False

    @property
    def ended(self) -> bool:
        """Whether it is known that there are no more."""
        return self._exhausted and not self._waiting

    def peek(self) -> bool:
        """Whether there is a next one; takes it from the caller, so ask only when a worker is free."""
        if not (self._waiting or self._exhausted):
            task = next(self._tasks, None)
            self._exhausted = task is None
            if task is not None:
                self._waiting.append((task, 1))
        return bool(self._waiting)

    def take(self) -> tuple[Task, int]:
        """The next task and which attempt it is, after `peek`."""
        return self._waiting.popleft()

    def put_back(self, task: Task, attempt: int) -> None:
        """Send a task again, next."""
        self._waiting.append((task, attempt))

    def end(self) -> None:
        """Drop all that waits."""
        self._waiting.clear()
        self._exhausted = True


class RayExecutor(Executor):
    """A pool of Ray actors.

    With ``address=None`` it uses the Ray that this process is connected to, and without one starts a private Ray on the
    loopback interface. `close` ends what this executor has started: its actors, and a Ray that was not there before.

    Args:
        factory: Builds the worker in each actor; importable there.
        arrays: Shared data, stored once per node; workers see read-only arrays without a copy.
        settings: Handed to the factory; picklable.
        num_workers: Size of the pool; None: all that the cluster has room for, now and whenever nodes come or go.
        cpus_per_worker: CPUs that Ray reserves for each, and (rounded down, at least one) its number of threads.
        gpus_per_worker: GPUs that Ray reserves for each; may be a fraction.
        address: ``"host:port"`` of a running cluster, or ``"auto"`` for the one on this machine.
        max_attempts: How often a task is sent before the loss of its worker counts as its failure.
        max_in_flight: Tasks under way at once, at most; None: as many as workers.

    Raises:
        ConfigError: A number is out of range.
        ExecutionError: The cluster cannot be started or reached, or has no room for the workers.
    """

    def __init__(
        self,
        factory: WorkerFactory,
        *,
        arrays: Arrays,
        settings: Any,
        num_workers: int | None = 2,
        cpus_per_worker: float = 1,
        gpus_per_worker: float = 0,
        address: str | None = None,
        max_attempts: int = 3,
        max_in_flight: int | None = None,
    ) -> None:
        super().__init__()
        if num_workers is not None:
            _check_range("ray.num_workers", num_workers, num_workers >= 1, "at least 1")
        _check_range("ray.cpus_per_worker", cpus_per_worker, cpus_per_worker > 0, "above 0")
        _check_range("ray.gpus_per_worker", gpus_per_worker, gpus_per_worker >= 0, "0 or more")
        _check_range("ray.max_attempts", max_attempts, max_attempts >= 1, "at least 1")
        self._max_attempts, self._max_in_flight = max_attempts, max_in_flight
        self._losses_per_worker = max(3, max_attempts)
        self._losses = 0  # workers lost since one last answered
        self._flights: dict[Any, _Flight] = {}  # by object reference; at most one per slot
        self._slots: list[_Slot] = []
        self._num_slots = 0  # that there ever were
        self._elastic = num_workers is None
        self._demand = {name: amount for name, amount in (("CPU", cpus_per_worker), ("GPU", gpus_per_worker)) if amount}
        self._resized = self._waiting_since = time.monotonic()
        threads = max(1, int(cpus_per_worker))
        num_cpus = max(os.cpu_count() or 1, math.ceil((num_workers or 1) * cpus_per_worker))
        self._ray, self._owns_ray = connect_ray(address, num_cpus=num_cpus, num_bytes=num_bytes(arrays))
        try:
            room = _check_room(self._ray.nodes(), num_workers or 1, self._demand)
            self._add_slots(num_workers or room)
            refs = pack(arrays, self._ray.put)
        except BaseException:
            self.close()
            raise
        self._build_args: tuple[Any, ...] = (factory, refs, settings, threads, gpus_per_worker)
        self._actor = self._ray.remote(_Host).options(
            num_cpus=cpus_per_worker,
            num_gpus=gpus_per_worker,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": dict.fromkeys(THREAD_VARIABLES, str(threads))},
        )

    def _replace(self, arrays: Arrays) -> None:
        for slot in self._slots:
            self._kill(slot)
        self._flights.clear()
        factory, _, *others = self._build_args
        self._build_args = ()  # frees the old arrays: the store may not have room for both
        refs = pack(arrays, self._ray.put)
        self._build_args = (factory, refs, *others)

    def _outcomes(self, tasks: Iterable[Task]) -> Generator[Outcome, None, None]:
        queue = _Queue(tasks)
        self._waiting_since = time.monotonic()
        try:
            self._dispatch(queue)
            while not queue.ended or any(flight.task for flight in self._flights.values()):
                outcome = self._land(queue)
                self._dispatch(queue)  # before the caller gets its turn, so that no worker waits for it
                if outcome:
                    yield outcome
        finally:  # what is still under way now belongs to nobody
            self._flights = {ref: _Flight(flight.slot, None) for ref, flight in self._flights.items()}

    def _dispatch(self, queue: _Queue) -> None:
        """Give every free slot something to do: a task if it has a worker, else the building of one."""
        if self._stopped:
            queue.end()
        if self._elastic and time.monotonic() - self._resized >= RESIZE_SECONDS:
            self._resize()
        busy = {flight.slot for flight in self._flights.values()}
        under_way = self.num_busy
        for slot in self._slots:
            if slot in busy or under_way == self._max_in_flight or not queue.peek():
                continue
            if slot.ready:
                task, attempt = queue.take()
                under_way += 1
                assert slot.host is not None
                self._flights[slot.host.call.remote(task.payload)] = _Flight(slot, task, attempt, time.monotonic())
            else:
                slot.host = self._actor.remote()
                self._flights[slot.host.build.remote(*self._build_args)] = _Flight(slot, None)

    @property
    def num_workers(self) -> int:
        """How many there are, or are being started."""
        return len(self._slots)

    @property
    def num_busy(self) -> int:
        """How many have a task."""
        return sum(flight.task is not None for flight in tuple(self._flights.values()))  # a copy: others may read it

    def _add_slots(self, num: int) -> None:
        self._slots += [_Slot(f"ray-{index}") for index in range(self._num_slots, self._num_slots + num)]
        self._num_slots += num

    def _resize(self) -> None:
        """Have as many slots as the cluster has room for; where there are too many, those without a task go first."""
        self._resized = time.monotonic()
        room = max(1, _room(self._ray.nodes(), self._demand))
        self._add_slots(max(0, room - len(self._slots)))
        at_work = {flight.slot for flight in self._flights.values() if flight.task is not None}
        idle = sorted((slot for slot in self._slots if slot not in at_work), key=lambda slot: slot.ready)
        for slot in idle[: max(0, len(self._slots) - room)]:
            self._slots.remove(slot)
            self._flights = {ref: flight for ref, flight in self._flights.items() if flight.slot is not slot}
            self._kill(slot)

    def _land(self, queue: _Queue) -> Outcome | None:
        """Wait for one answer; a lost task goes back into ``queue`` while it has attempts left."""
        ref = self._wait()
        if ref is None:
            return self._end_overdue()
        flight = self._flights.pop(ref)
        slot = flight.slot
        try:
            reply: Reply = self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:  # raised around the worker: something would not pickle
            reply = Reply(None, describe(error.cause), 0.0)
        except self._ray.exceptions.RayError as error:
            return self._lose(flight, error, queue)
        if not slot.ready:
            if reply.reason is not None:
                self._kill(slot)
                raise construction_error(reply.reason)
            slot.ready = True
            return None
        self._losses = 0
        if flight.task is None:
            return None
        return Outcome(flight.task, reply.result, reply.reason, flight.attempt, reply.seconds, slot.name)

    def _wait(self) -> Any | None:
        """The reference of the next answer; None where a time limit, or the time to look for nodes, comes first."""
        timeouts = [flight.seconds_left() for flight in self._flights.values()]
        starting = not any(flight.slot.ready for flight in self._flights.values())
        if starting:
            timeouts.append(self._waiting_since + START_SECONDS - time.monotonic())
        if self._elastic:
            timeouts.append(RESIZE_SECONDS)
        timeout = min(timeouts)
        done, _ = self._ray.wait(list(self._flights), timeout=None if timeout == math.inf else max(0.0, timeout))
        if done or not starting:
            self._waiting_since = time.monotonic()
        elif time.monotonic() >= self._waiting_since + START_SECONDS:
            raise ExecutionError(
                f"a worker must start within {START_SECONDS:.0f} s, but none of {self.num_workers} did; "
                "free CPUs (GPUs) on the cluster or lower ray.num_workers"
            )
        return done[0] if done else None

    def _end_overdue(self) -> Outcome | None:
        """End the worker of a task that has reached its time limit: a failure, since again it would take as long."""
        ref, flight = min(self._flights.items(), key=lambda item: item[1].seconds_left())
        if flight.seconds_left() > 0:  # a clock's tick
            return None
        assert flight.task is not None and flight.task.time_limit is not None  # noqa: PT018
        del self._flights[ref]
        self._kill(flight.slot)
        seconds = time.monotonic() - flight.began
        reason = f"time limit: not finished after {flight.task.time_limit:g} s"
        return Outcome(flight.task, None, reason, flight.attempt, seconds, flight.slot.name)

    def _lose(self, flight: _Flight, error: Exception, queue: _Queue) -> Outcome | None:
        """Clear the slot of a dead worker and decide about its task."""
        logger.warning("worker %s was lost: %s", flight.slot.name, describe(error))
        self._kill(flight.slot)
        self._losses += 1
        # One poisonous task alone loses max_attempts workers; only more than the whole pool's share is an epidemic.
        if self._losses > self._losses_per_worker * max(2, self.num_workers):
            raise ExecutionError(
                f"workers must finish evaluations, but {self._losses} in a row died without one "
                f"(last: {describe(error)}); give each more memory or lower ray.num_workers"
            ) from error
        if flight.task is None:
            return None
        if flight.attempt < self._max_attempts:
            queue.put_back(flight.task, flight.attempt + 1)
            return None
        # The error's text names process and host; the reason goes into the ledger, which must not depend on them.
        reason = f"worker lost: {type(error).__name__}"
        return Outcome(flight.task, None, reason, flight.attempt, 0.0, flight.slot.name)

    def _kill(self, slot: _Slot) -> None:
        if slot.host is not None:
            self._ray.kill(slot.host)  # also a dead one: it may only have been out of reach
        slot.host, slot.ready = None, False

    def _release(self) -> None:
        if self._ray.is_initialized():  # somebody else may have shut it down
            for slot in self._slots:
                self._kill(slot)
            self._flights.clear()
            if self._owns_ray:
                self._ray.shutdown()
                _set_raylet_messages(True)
        self._build_args = ()  # frees the shared arrays of a Ray that goes on


def _check_range(name: str, value: float, ok: bool, rule: str) -> None:
    if not ok:
        raise ConfigError(f"{name} must be {rule}, but got {value}")


def connect_ray(address: str | None, *, num_cpus: int, num_bytes: int = 0) -> tuple[Any, bool]:
    """Connect this process to Ray.

    Args:
        address: As of `RayExecutor`; None: the Ray of this process, or else a private one.
        num_cpus: Of a private one.
        num_bytes: Of arrays that a private one has to hold.

    Returns:
        The module, and whether this call made the connection.

    Raises:
        ExecutionError: It cannot be started or joined.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None and os.environ.get(LOOPBACK_VARIABLE) != "0":
        if "ray" not in sys.modules:
            os.environ[LOOPBACK_VARIABLE] = "0"
        elif not sys.modules["ray"].is_initialized():
            warnings.warn(
                "a private Ray must listen on loopback only, but ray was imported before and now listens on the "
                f"network; set {LOOPBACK_VARIABLE}=0 before importing ray",
                stacklevel=3,
            )
    import ray

    if ray.is_initialized():
        here = ray.get_runtime_context().gcs_address
        if address not in (None, "auto", here):
            raise ExecutionError(
                f"one process uses one Ray, but this one is connected to {here} and got ray.address={address}; "
                "drop ray.address or call ray.shutdown() first"
            )
        return ray, False
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        options |= {"address": "local", "num_cpus": num_cpus, "include_dashboard": False}
        if (store := num_bytes + num_bytes // 4) > SMALL_STORE_BYTES:
            options["object_store_memory"] = store
    else:
        options |= {"address": address, "runtime_env": {"py_modules": _own_packages(), "excludes": ["__pycache__"]}}
        _check_reachable(address)
    try:
        ray.init(**options)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:  # RayError: a wrong token, say
        what = "a private Ray could not be started" if address is None else f"ray.address={address} cannot be joined"
        raise ExecutionError(f"{what}: {describe(error)}") from error
    _set_raylet_messages(False)
    return ray, True


def _own_packages() -> list[str]:
    """Folders of the code that workers run: the nodes of a cluster need to have nothing but what it depends on."""
    specs = [importlib.util.find_spec(name) for name in OWN_PACKAGES]
    return [str(Path(spec.origin).parent) for spec in specs if spec is not None and spec.origin is not None]


def _set_raylet_messages(enabled: bool) -> None:
    """Ray prints the death of a worker on stdout, log_to_driver or not, but stdout is for data; we log it instead."""
    import ray._private.worker

    ray._private.worker._worker_logs_enabled = enabled  # there is no public switch


def _check_reachable(address: str) -> None:
    """Fail soon if nobody listens there."""
    host, colon, port = address.rpartition(":")
    if address == "auto":
        return
    if not colon or "/" in host or not port.isdecimal():
        raise ExecutionError(f"ray.address must be 'auto' or 'host:port', but got {address!r}")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ExecutionError(
            f"ray.address must name a running cluster, but {address} gave {describe(error)}; "
            "start one with: ray start --head, or drop ray.address to run on this machine"
        ) from error


def _check_room(nodes: list[dict[str, Any]], num_workers: int, demand: Mapping[str, float]) -> int:
    """How many workers there is room for; an error where it is too little, for which Ray would wait for ever."""
    room = _room(nodes, demand)
    if room < num_workers:
        resources = [node["Resources"] for node in nodes if node["Alive"]]
        asked = " + ".join(f"{amount:g} {name}" for name, amount in demand.items())
        there = " and ".join(f"{sum(node.get(name, 0) for node in resources):g} {name}s" for name in demand)
        setting = "ray.num_workers" if room else "ray.cpus_per_worker and ray.gpus_per_worker"
        raise ExecutionError(
            f"asked for {num_workers} workers x {asked}, the cluster has {there} (room for {room}); lower {setting}"
        )
    return room


def _room(nodes: list[dict[str, Any]], demand: Mapping[str, float]) -> int:
    """How many workers fit on the nodes that are alive, each with all it asks for on one node."""
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    return sum(min(int(node.get(name, 0) / amount + 1e-9) for name, amount in demand.items()) for node in resources)
