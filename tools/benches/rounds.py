"""Variants of the same work, each in a process of its own, taking turns at being timed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agent.errors import AgentError
from agent.types import Array
from tools.npz import write_npz

__all__ = ["Group", "Measured", "measure"]

# Every library that multiplies matrices, whichever of them a variant uses.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Group:
    """Variants that do the same work, by name, and what they are given. The first is the
    yardstick. A variant is what tools.benches.worker is told to make.
    """

    name: str
    inputs: Mapping[str, Array]
    variants: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Measured:
    """Of one variant. load_s: to its making; cases: median seconds of a run, a round each; rss_mb:
    resident memory after the last round, and the most there was; torch: whether it was imported.
    """

    load_s: float
    cases: dict[str, list[float]]
    outputs: dict[str, Array]
    rss_mb: float
    peak_rss_mb: float
    torch: bool


def measure(
    group: Group, work: Path, threads: int, rounds: int, advance: Callable[[], object]
) -> dict[str, Measured]:
    """Each variant of `group`, by name. advance: called 1 + `rounds` times a variant.

    Raises AgentError where a variant ends early; what went wrong it has said on stderr.
    """
    inputs = work / "inputs.npz"
    write_npz(inputs, group.inputs)
    with ExitStack() as stack:
        workers: dict[str, _Worker] = {}
        for number, (name, variant) in enumerate(group.variants.items()):
            files = {"inputs": str(inputs), "outputs": str(work / f"outputs{number}.npz")}
            spec = {**variant, **files, "threads": threads}
            workers[name] = stack.enter_context(_worker(f"{group.name}, {name}", spec))
            advance()
        seconds: dict[str, dict[str, list[float]]] = {
            name: {case: [] for case in worker.ready["cases"]} for name, worker in workers.items()
        }
        for _ in range(rounds):
            for name, worker in workers.items():
                for case, taken_s in seconds[name].items():
                    taken_s.append(worker.ask(case)["s"])
                advance()
        return {
            name: Measured(
                worker.ready["load_s"], seconds[name], worker.outputs(), **worker.finish()
            )
            for name, worker in workers.items()
        }


class _Worker:
    def __init__(self, name: str, spec: Mapping[str, Any], process: subprocess.Popen[str]) -> None:
        self._name, self._spec, self._process = name, spec, process
        self.ready = self._answer()

    def ask(self, case: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        print(case, file=self._process.stdin, flush=True)
        return self._answer()

    def outputs(self) -> dict[str, Array]:
        with np.load(self._spec["outputs"], allow_pickle=False) as file:
            return {name: file[name] for name in file.files}

    def finish(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise AgentError(f"{self._name}: ended with exit code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def _worker(name: str, spec: Mapping[str, Any]) -> Iterator[_Worker]:
    command: Sequence[str] = [sys.executable, "-m", "tools.benches.worker", json.dumps(spec)]
    environment = dict.fromkeys(THREAD_VARIABLES, str(spec["threads"]))
    with subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield _Worker(name, spec, process)
        finally:
            process.kill()  # it has nothing to lose, and may be in a long run
