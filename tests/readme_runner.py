"""Runs what the READMEs show: Python in a process of its own, commands of a shell one by one."""

import contextlib
import multiprocessing
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import typer

from tests import tiny
from tests.processes import until
from tests.readme_files import ROOT


def _execute(source: str, name: str, folder: Path, err: Path) -> None:
    os.dup2(os.open(err, os.O_CREAT | os.O_WRONLY), 2)
    os.dup2(2, 1)
    os.chdir(folder)
    exec(compile(source, name, "exec"), {"__name__": "__main__"})


def run_python(source: str, name: str, folder: Path) -> None:
    """Run Python in a process of its own, forked from one that has imported torch."""
    err = folder / ".python-output"
    process = multiprocessing.get_context("forkserver").Process(target=_execute, args=(source, name, folder, err))
    process.start()
    process.join(240)
    if process.exitcode is None:
        process.kill()
    assert process.exitcode == 0, f"{name}: {err.read_text()[-3000:]}"


@dataclass
class Shell:
    """Runs the commands of a section."""

    folder: Path
    budgets: dict[str, list[str]]  # what is appended to commands that begin so
    not_run: dict[str, str]  # how commands begin that are not run, and why
    exported: dict[str, str] = field(default_factory=dict)
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    port: int | None = None  # of a Ray head

    def run(self, command: str) -> None:
        """Run one command; the ways are few, so that a command of another kind is noticed."""
        words = shlex.split(command, comments=True)
        variables = {}
        while "=" in words[0]:
            name, _, variables[name] = words.pop(0).partition("=")
        line = " ".join(words)
        if reason := _of(self.not_run, line):
            self._look_at(words, reason)
        elif words[0] == "treesearch":
            extra = _of(self.budgets, line) or []
            self._treesearch([*words[1:], *extra], variables)
        elif words[:2] == ["make", "search"]:
            quoted = " ".join(shlex.quote(word) for word in self.budgets["treesearch search configs/quickstart.yaml"])
            self._must(["make", "search", f"SETTINGS={quoted}"])
        elif words[:2] == ["pip", "install"]:
            check_installable(words[2:])
        elif words[0] == "export":
            self.exported.update(word.split("=", 1) for word in words[1:])
        elif words[:2] == ["ray", "start"]:
            self._ray_start(words[2:])
        elif words[0] == "cut":
            self._must(["sh", "-c", command])
        else:
            pytest.fail(f"this cannot be run: {command!r}; give it a way to run, or a line in NOT_RUN")

    def _look_at(self, words: list[str], reason: str) -> None:
        print(f"not run ({reason}): {' '.join(words)}")
        if words[0] == "make":
            self._must(["make", "-n", *words[1:]])
        if "--" in words:
            inner = words[words.index("--") + 1 :]
            assert inner[:3] == ["python", "-m", "treesearch.cli"]
            check_usage(inner[3:])

    def _treesearch(self, arguments: list[str], variables: dict[str, str]) -> None:
        check_usage(arguments)
        if self.port is not None:
            arguments = [one.replace("HEAD:6379", f"127.0.0.1:{self.port}") for one in arguments]
            if arguments[0] == "search":
                arguments += ["--set", "search.executor=ray"]
        done = tiny.treesearch(*arguments, cwd=self.folder, environment=self.exported | variables)
        assert done.code == 0, f"treesearch {shlex.join(arguments)}\n{done.err}"
        assert done.out or done.err

    def _must(self, command: list[str]) -> None:
        env = os.environ | {"PYTHONPATH": str(ROOT)} | self.exported
        done = subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, f"{command}\n{done.stderr}"

    def _ray_start(self, options: list[str]) -> None:
        """A node of Ray on the loopback interface alone, ended with the section."""
        if "--head" in options:
            self.port = free_port()
            # A folder of its own: in the usual one Ray notes the address, and whoever starts Ray next would join.
            apart = self.stack.enter_context(tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True))
            more = ["--node-ip-address=127.0.0.1", "--include-dashboard=false", "--num-cpus=0", f"--temp-dir={apart}"]
        else:
            more = ["--num-cpus=1"]
        address, port = f"127.0.0.1:{self.port}", str(self.port)
        options = [one.replace("HEAD:6379", address).replace("6379", port) for one in options]
        log = self.folder / f"ray-{len(options)}.log"
        env = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"} | self.exported
        with log.open("w") as file:
            command = [sys.executable, "-c", RAY, "start", *options, *more, "--block"]
            node = subprocess.Popen(command, env=env, stdout=file, stderr=file, start_new_session=True)
        self.stack.callback(end_group, node)
        until(lambda: node.poll() is not None or "Ray runtime started" in log.read_text(), f"ray start {options}")
        assert node.poll() is None, log.read_text()[-3000:]


# `ray start --address` refuses to join where every listener is on 127.0.0.1, as it is in tests; the nodes can.
RAY = """
import sys, types
import ray.scripts.scripts as scripts
scripts.ray_constants = types.SimpleNamespace(**vars(scripts.ray_constants) | {"ENABLE_RAY_CLUSTER": True})
sys.exit(scripts.main())
"""


def _of(table: dict[str, Any], line: str) -> Any:
    """The entry for commands that begin like this one."""
    return next((table[start] for start in table if line.startswith(start)), None)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it has started."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)


def check_installable(words: list[str]) -> None:
    """What ``pip install`` is told to install exists: an extra of ours, or one of a dependency."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for word in words:
        match = re.fullmatch(r"([a-z]+)\[([a-z]+)\]", word)
        assert match, f"pip install {word}: expected NAME[EXTRA]"
        if match[1] == project["name"]:
            assert match[2] in project["optional-dependencies"], f"no extra {match[2]!r} in pyproject.toml"
        else:
            assert any(one.startswith(match[1]) for one in project["dependencies"]), f"{match[1]} is no dependency"


def our_command() -> Any:
    """The command line as click has it."""
    from treesearch.cli import app

    return typer.main.get_command(app)


def check_usage(words: list[str]) -> None:
    """The command and all of its options exist."""
    command = our_command()
    words = list(words)
    while hasattr(command, "commands") and words:
        name = words.pop(0)
        if name.isupper():  # a placeholder: `treesearch apply NAME`
            return
        assert name in command.commands, f"no command {name!r} among {sorted(command.commands)}"
        command = command.commands[name]
    options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    for word in words:
        option = word.strip("[]").partition("=")[0]
        assert not option.startswith("--") or option in options, f"no option {option!r} of {command.name!r}"
