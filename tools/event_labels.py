"""What happens when in a set of logs: LABELS.json, as tools/make_labelled_logs.py writes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from agent.errors import ConfigError
from agent.types import NAME_PATTERN, Settings
from tools.event_scores import Span

__all__ = ["Label", "Labels", "labelled_spans", "read_labels"]

Name = Annotated[str, msgspec.Meta(pattern=f"^{NAME_PATTERN}$")]
Seconds = Annotated[float, msgspec.Meta(ge=0)]


class Label(Settings, frozen=True, kw_only=True):
    """One thing that happens. log: name of the file. from_s, to_s: seconds into it, from its first
    sample. db: of the event over what it is planted in; None where that has no meaning. recording:
    what was planted, "" where it happened by itself.
    """

    kind: str
    log: str
    from_s: Seconds
    to_s: Seconds
    db: float | None = None
    recording: str = ""

    def __post_init__(self) -> None:
        if self.to_s <= self.from_s:
            raise ValueError(f"to_s {self.to_s:g} must be above from_s {self.from_s:g}")


class Labels(Settings, frozen=True, kw_only=True):
    """queries: which kind of event each query id asks for; several may ask for one."""

    version: Literal[1] = 1
    queries: dict[Name, str]
    events: list[Label]


def read_labels(path: Path) -> Labels:
    """Raises ConfigError for a file that cannot be read or is not one of labels."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Labels)
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}, expected a file of labels") from exc
    except msgspec.DecodeError as exc:
        raise ConfigError(f"{path}: {exc}, expected labels as make_labelled_logs writes") from exc


def labelled_spans(
    path: Path, queries: Iterable[str], begins_s: Mapping[str, float]
) -> tuple[dict[str, list[Span]], dict[str, dict[str, list[Span]]]]:
    """What happened of each query, and the same by level in dB, for those that have one; in order.

    begins_s: by name of a log, when it begins; what is labelled in other logs is left out. Raises
    ConfigError as `read_labels`, and for a query of which the labels tell no kind.
    """
    labels = read_labels(path)
    kinds = {}
    for name in queries:
        if name not in labels.queries:
            known = ", ".join(labels.queries)
            raise ConfigError(f"{path}: no kind for query {name!r}, it has {known}")
        kinds[name] = labels.queries[name]
    spans: dict[str, list[Span]] = {name: [] for name in kinds}
    levels: dict[str, dict[str, list[Span]]] = {}
    for event in labels.events:
        if event.log not in begins_s:
            continue
        begin_s = begins_s[event.log]
        span = Span(begin_s + event.from_s, begin_s + event.to_s)
        for name in (name for name, kind in kinds.items() if kind == event.kind):
            spans[name].append(span)
            if event.db is not None:
                levels.setdefault(f"{event.db:+g}", {}).setdefault(name, []).append(span)
    for each in (spans, *levels.values()):
        for own in each.values():
            own.sort(key=lambda span: span.from_s)
    return spans, levels
