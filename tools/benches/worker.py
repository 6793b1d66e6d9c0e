"""One variant of `bench imagebind`, alone in a process: python -m tools.benches.worker SPEC

Runtimes that share a process slow each other down, and a process has one peak of memory. Over
stdin and stdout, a JSON line each: it says when it is ready, then times one case at a time as it
is asked to, and at the end of its input says what memory it took.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from agent.cli import run_command
from agent.clock import SystemClock, to_s
from agent.types import Array
from tools.benches.variants import VARIANTS
from tools.npz import write_npz

__all__ = ["main"]

# A case shorter than this is run so often that its median is of that much time.
LEAST_S = 0.2
MOST_RUNS = 200


def main(argv: Sequence[str] | None = None) -> int:
    """argv: what to make, as JSON: kind (of VARIANTS), inputs and outputs (.npz paths), threads,
    and what that kind needs.
    """
    return run_command(_main, argv)


def _main(argv: Sequence[str] | None) -> int:
    spec = json.loads((argv or sys.argv[1:])[0])
    clock = SystemClock()
    with np.load(spec["inputs"], allow_pickle=False) as file:
        inputs = {name: file[name] for name in file.files}
    started_ns = clock.now_ns()
    cases = VARIANTS[spec["kind"]](spec, inputs)
    load_s = to_s(clock.now_ns() - started_ns)
    # The first run of a case is slower than those that follow; its result is what is compared.
    write_npz(Path(spec["outputs"]), {name: run() for name, run in cases.items()})
    _say({"cases": list(cases), "load_s": load_s})
    for line in sys.stdin:
        _say({"s": _timed(cases[line.strip()], clock)})
    _say({**_memory_mb(), "torch": "torch" in sys.modules})
    return 0


def _say(message: Mapping[str, Any]) -> None:
    print(json.dumps(message), flush=True)


def _timed(run: Callable[[], Array], clock: SystemClock) -> float:
    """Median seconds of a run."""
    taken_s: list[float] = []
    while sum(taken_s) < LEAST_S and len(taken_s) < MOST_RUNS:
        started_ns = clock.now_ns()
        run()
        taken_s.append(to_s(clock.now_ns() - started_ns))
    return float(np.median(taken_s))


def _memory_mb() -> dict[str, float]:
    """Resident now, and at most so far, in 10^6 bytes."""
    now_mb = psutil.Process().memory_info().rss / 1e6
    # Not getrusage: on Linux its peak begins with that of the process which started this one.
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return {"rss_mb": now_mb, "peak_rss_mb": int(peak[1]) * 1024 / 1e6 if peak else now_mb}


if __name__ == "__main__":
    sys.exit(main())
