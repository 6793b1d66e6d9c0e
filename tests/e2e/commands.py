"""Running the project's own commands as a person would, in another process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(
    module: str, *args: str | Path, cwd: Path = ROOT, cores: set[int] | None = None
) -> subprocess.CompletedProcess[str]:
    """`python -m module args`, its output captured; cores: what it may run on."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", module, *map(str, args)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,
    )


def refused(result: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """The command ended with `code` and one clear line that has all of `words`."""
    lines: Sequence[str] = result.stderr.strip().splitlines()
    assert result.returncode == code, (result.returncode, result.stderr)
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: "), lines[0]
    for word in words:
        assert word in lines[0], (word, lines[0])
