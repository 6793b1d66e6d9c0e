"""What tells vectors of two spaces or towers apart: hashes of all that they depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from encoders.manifest import SpaceSettings, TowerSettings

__all__ = ["read_versions", "space_identity", "tower_version"]

# Of an entry, what does not change the vectors it gives; the file in use is hashed by content.
_NOT_HASHED = ("files", "precision", "scale", "window")


def read_versions(comment: bytes) -> dict[str, str]:
    """ModelSpace.versions as a background's archive has them in its comment; of an archive that
    numpy wrote none.
    """
    return msgspec.json.decode(comment, type=dict[str, str]) if comment else {}


def space_identity(
    settings: SpaceSettings, entries: Mapping[str, TowerSettings], precision: str | None
) -> str:
    """ "name@hash" of a space that is run in `precision`, as contracts.RuntimeOptions has it."""
    content: dict[str, Any] = {"dim": settings.dim}
    for modality, entry in entries.items():
        content[modality] = _hashed(settings, modality, entry, precision)
    return f"{settings.name}@{_digest(content)}"


def tower_version(settings: SpaceSettings, modality: str, entry: TowerSettings) -> str:
    """12 hex digits over a tower's settings and its fp32 file, or the one of its own precision."""
    return _digest(_hashed(settings, modality, entry, "fp32"))


def _hashed(
    settings: SpaceSettings, modality: str, entry: TowerSettings, precision: str | None
) -> dict[str, Any]:
    """Of a tower all that its vectors depend on, its files by content."""
    fields = msgspec.to_builtins(entry)
    kept = {name: value for name, value in fields.items() if name not in _NOT_HASHED}
    if kept.get("views", ...) is None:  # so that a tower without keeps the hash it ever had
        del kept["views"]
    kept["kind"] = settings.towers[modality]["kind"]
    file = entry.files[entry.chosen(precision)]
    kept["sha256"] = file.sha256
    if file.data:
        kept["data"] = file.data.sha256
    return kept


def _digest(content: dict[str, Any]) -> str:
    encoded = msgspec.json.encode(content, order="deterministic")
    return hashlib.sha256(encoded).hexdigest()[:12]
