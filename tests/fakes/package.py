"""A package that brings a driver, as pip leaves it: kinds are found by its metadata."""

from __future__ import annotations

from pathlib import Path

__all__ = ["install"]


def install(folder: Path, kind: str, driver: str) -> None:
    """Make `kind` known where `folder` is on the path. driver: "module:name"."""
    info = folder / f"brings_{kind}-1.0.dist-info"
    info.mkdir()
    name = f"brings-{kind.replace('_', '-')}"
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[sensebind.drivers]\n{kind} = {driver}\n")
