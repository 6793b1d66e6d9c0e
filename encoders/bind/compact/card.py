"""compact's data card: what each tower was made of, and what it reached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from encoders.bind.sources import Record

__all__ = ["Used", "card", "licences"]

Used = Iterable[Record | tuple[str, str]]  # a recording, or the source and licence of one


def licences(used: Used) -> dict[str, dict[str, Any]]:
    """By source: its licence, and how many recordings of it were used."""
    found: dict[str, dict[str, Any]] = {}
    for one in used:
        source, licence = one if isinstance(one, tuple) else (one.source, one.licence)
        row = found.setdefault(source, {"licence": licence, "recordings": 0})
        row["recordings"] += 1
    return found


def card(report: Mapping[str, Any]) -> str:
    """README.md of the folder, in Markdown. report: by tower, as Making writes it."""
    lines = [
        "# compact: what it was made of",
        "",
        "Written by tools/make_compact.py from the records that each tower truly used.",
        "",
        "| tower | source | licence | recordings |",
        "|---|---|---|---|",
    ]
    for tower, made in report.items():
        for source, row in made["sources"].items():
            lines.append(f"| {tower} | {source} | {row['licence']} | {row['recordings']} |")
    lines += ["", "| tower | seconds | threads | figures |", "|---|---|---|---|"]
    for tower, made in report.items():
        figures = msgspec.json.encode(made["figures"]).decode()
        lines.append(f"| {tower} | {made['seconds']} | {made['threads']} | `{figures}` |")
    return "\n".join(lines) + "\n"
