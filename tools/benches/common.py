"""What the benchmarks share: the machine in words, tables, JSON, and the agent as a process."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from agent.errors import AgentError

__all__ = [
    "cores",
    "machine",
    "make_table",
    "print_machine",
    "running_agent",
]

PACKAGES = ("numpy", "onnxruntime", "opencv-python-headless", "pillow", "torch")


def cores() -> int:
    """Logical cores this process may run on."""
    return len(psutil.Process().cpu_affinity() or ()) or 1


def machine() -> dict[str, Any]:
    """CPU, cores, memory in 10^9 bytes, and the versions of what does the arithmetic."""
    return {
        "cpu": _cpu_model(),
        "cores": cores(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_1min": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: found for name in PACKAGES if (found := _version(name))},
    }


def print_machine(facts: Mapping[str, Any], console: Console) -> None:
    """One line."""
    versions = ", ".join(f"{name} {facts[name]}" for name in ("python", *PACKAGES) if name in facts)
    console.print(
        f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gb']} GB, {facts['system']}, "
        f"load {facts['load_1min']} at the start; {versions}",
        soft_wrap=True,
    )


def make_table(
    title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1
) -> Table:
    """Numbers to the right; the first `words` columns are words and stand to the left."""
    table = Table(title=title, title_justify="left")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number < words else "right")
    for row in rows:
        table.add_row(*row)
    return table


@contextmanager
def running_agent(config: Mapping[str, Any], folder: Path, duration_s: float) -> Iterator[str]:
    """`python -m agent` on `config`, written to `folder`; gives the address of its events.

    Ended on leaving, where it is not over by then. Raises AgentError where it does not start.
    """
    path = folder / "bench.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    command = [sys.executable, "-m", "agent", "--config", str(path), "--duration", str(duration_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as agent:
        try:
            assert agent.stdout is not None
            name, _, address = agent.stdout.readline().strip().partition(" ")
            if name != "bus.events":
                raise AgentError(f"the agent did not start: {name or 'see its message above'}")
            yield address
        finally:
            agent.terminate()


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or "unknown CPU"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
