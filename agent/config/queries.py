"""What a config, or query.put, says of a query: what is asked for, and when it is an event."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import msgspec

from agent.config.values import Name, NotNegative, Positive, Unit
from agent.types import Settings, slug

__all__ = ["AskedConfig", "GateConfig", "LogCut", "PartConfig", "QueryConfig", "Taught"]

LEAST_WEIGHT = 1e-3
# A query is embedded at once, and the agent is deaf meanwhile.
MAX_PARTS = 64
MAX_TEXTS = 2000
MAX_CUT_S = 600.0

_SENSES = ("audio", "image", "depth", "thermal", "imu")
_ASKED = ("text", *_SENSES, "file", "log", "vector", "taught")


class GateConfig(Settings, frozen=True, kw_only=True):
    """When a score becomes an event: enter >= exit, both 0..1.

    min_duration_s: how long a score must hold before the start is told. hold_s: how long it may
    dip below exit before the end is told. cool_down_s: silence after an end. update_s: least time
    between updates of an open event. max_duration_s: an event is ended after so long, and its query
    is silent until no score has reached exit for hold_s: what never ends is how things are now, and
    is learned as that.
    """

    enter: Unit = 0.7
    exit: Unit = 0.4
    min_duration_s: NotNegative = 0.0
    hold_s: NotNegative = 1.0
    cool_down_s: NotNegative = 2.0
    update_s: Positive = 1.0
    max_duration_s: Positive = 300.0

    def __post_init__(self) -> None:
        if self.exit > self.enter:
            raise ValueError(f"exit {self.exit} must not be above enter {self.enter}")


class Taught(Settings, frozen=True, kw_only=True):
    """A query's vector made from examples, as query.teach and tools.teach make it.

    space: identity of the space, "name@hash", that alone it can be used in. modality: sense of
    the examples. vector: little-endian float32 of unit length, base64 in JSON. ordinary: mean and
    deviation of its cosine with ordinary input of that sense. source: the arguments of tools.teach
    that made it, empty where live streams were marked.
    """

    space: str
    modality: Name
    vector: bytes
    method: Literal["prototype", "ridge"]
    ordinary: tuple[float, float]
    source: str = ""

    def __post_init__(self) -> None:
        mean, deviation = self.ordinary
        if not (math.isfinite(mean) and 0 <= deviation < math.inf):
            raise ValueError(f"ordinary is {list(self.ordinary)}, expected a mean and a deviation")


class LogCut(Settings, frozen=True, kw_only=True):
    """All that a stream of a recording has from `from_s` to `to_s`, seconds into it; at most
    MAX_CUT_S of it.
    """

    file: Path
    stream: str
    from_s: NotNegative
    to_s: Positive

    def __post_init__(self) -> None:
        if self.to_s <= self.from_s:
            raise ValueError(f"to_s {self.to_s:g} must be above from_s {self.from_s:g}")
        if self.to_s - self.from_s > MAX_CUT_S:
            raise ValueError(
                f"to_s {self.to_s:g} is more than {MAX_CUT_S:g} s after from_s {self.from_s:g}"
            )


class AskedConfig(Settings, frozen=True, kw_only=True):
    """What is asked for, in any sense: exactly one of these, or none of them where a query has
    `sum` or `when`.

    text: one phrase, or several whose mean is taken. audio, image, depth, thermal, imu: a file, as
    encoders.files.read_file reads it. file: of any other sense, named by `modality`. log: a cut of
    a recording. vector: a file that tools.teach wrote; taught: what such a file holds.
    """

    text: str | list[str] | None = None
    audio: Path | None = None
    image: Path | None = None
    depth: Path | None = None
    thermal: Path | None = None
    imu: Path | None = None
    file: Path | None = None
    modality: Name | None = None
    log: LogCut | None = None
    vector: Path | None = None
    taught: Taught | None = None

    def __post_init__(self) -> None:
        given = self.given()
        if len(given) != 1:
            raise ValueError(f"exactly one of {self._choices()} is needed, got {given or 'none'}")
        if self.text is not None and not (self.phrases and all(p.strip() for p in self.phrases)):
            raise ValueError("text is empty")
        if (self.file is None) != (self.modality is None):
            raise ValueError("file and modality go together; a known sense has a field of its own")

    def given(self) -> list[str]:
        """Which of the fields say what is asked for."""
        return [name for name in _ASKED if getattr(self, name) is not None]

    def _choices(self) -> str:
        return ", ".join(_ASKED)

    @property
    def phrases(self) -> tuple[str, ...]:
        """Of `text`, none where something else is asked for."""
        text = self.text
        return () if text is None else (text,) if isinstance(text, str) else tuple(text)

    def sense_file(self) -> tuple[str, Path] | None:
        """(modality, file) where a whole file is asked for."""
        if self.file is not None and self.modality is not None:
            return self.modality, self.file
        files = ((sense, getattr(self, sense)) for sense in _SENSES)
        return next(((sense, file) for sense, file in files if file is not None), None)

    def title(self) -> str:
        """For people: the first phrase, or the name of the file; "" where there is neither."""
        if self.phrases:
            return self.phrases[0]
        sensed = self.sense_file()
        file = sensed[1] if sensed else self.log.file if self.log else self.vector
        return file.stem if file else ""


class PartConfig(AskedConfig, frozen=True, kw_only=True):
    """One part of a sum. weight: its say beside the others, of a size of LEAST_WEIGHT to
    1 / LEAST_WEIGHT; below 0 it is to be absent.
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not LEAST_WEIGHT <= abs(self.weight) <= 1 / LEAST_WEIGHT:
            raise ValueError(
                f"weight is {self.weight:g}, expected {LEAST_WEIGHT:g} to {1 / LEAST_WEIGHT:g} "
                "or as much below 0"
            )


class QueryConfig(AskedConfig, frozen=True, kw_only=True):
    """What a person asks for (docs/queries.md): one thing in any sense, as AskedConfig has it; or
    `sum`, several parts by weight, at least one of it above 0; or `when`, how other queries follow
    one another in time (agent/match/grammar.py).

    id: one level of a topic; made from the label or what is asked for where left out. not: what it
    must not be taken for, as phrases or in any sense. templates: by sense, sentences with `{}` for
    a phrase; where one is given for the sense of a stream, text is compared with it as the mean of
    them. streams, senses: which may answer; where both are left out all, but to a taught vector the
    sense of its examples. gate: None takes `match.gate`. max_false_alarms_per_hour: in place of the
    gate's enter and exit; where both this and gate are left out, that of `match`. enabled: whether
    it tells events; one that is not still counts in a `when` that names it. At most MAX_PARTS parts
    and contrasts, and MAX_TEXTS phrases in all, each counted once for itself and each template.
    """

    id: Name = ""
    label: str = ""
    sum: list[PartConfig] | None = None
    when: str | None = None
    against: list[str | AskedConfig] = msgspec.field(default_factory=list, name="not")
    templates: dict[str, list[str]] = msgspec.field(default_factory=dict)
    streams: list[str] | None = None
    senses: list[str] | None = None
    enabled: bool = True
    gate: GateConfig | None = None
    max_false_alarms_per_hour: Positive | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sum is not None and all(part.weight < 0 for part in self.sum):
            raise ValueError("sum has no part whose weight is above 0, expected at least one")
        if self.when is not None and self.against:
            raise ValueError("when and not do not go together, expected not in what it names")
        if any(isinstance(each, str) and not each.strip() for each in self.against):
            raise ValueError("not has an empty phrase")
        for sense, sentences in self.templates.items():
            if not sentences or any(sentence.count("{}") != 1 for sentence in sentences):
                raise ValueError(
                    f"templates.{sense} is {sentences}, expected sentences with one {{}} each"
                )
        asked = (*self.parts(), *self.contrasts())
        if len(asked) > MAX_PARTS:
            raise ValueError(f"sum and not have {len(asked)} parts, expected at most {MAX_PARTS}")
        ways = 1 + sum(map(len, self.templates.values()))
        if (texts := ways * sum(len(each.phrases) for each in asked)) > MAX_TEXTS:
            raise ValueError(
                f"has {texts} texts to embed, phrases times templates, expected at most {MAX_TEXTS}"
            )

    def given(self) -> list[str]:
        own = [name for name in ("sum", "when") if getattr(self, name) is not None]
        return [*super().given(), *own]

    def _choices(self) -> str:
        return f"{super()._choices()}, sum, when"

    def parts(self) -> tuple[PartConfig | AskedConfig, ...]:
        """What is added up; none for a `when`."""
        return () if self.when is not None else tuple(self.sum or (self,))

    def contrasts(self) -> tuple[AskedConfig, ...]:
        """What it must not be taken for."""
        return tuple(AskedConfig(text=a) if isinstance(a, str) else a for a in self.against)

    def title(self) -> str:
        if self.sum is None:
            return self.when or super().title()
        signed = [(part.title(), part.weight < 0) for part in self.sum]
        return " ".join(f"{'-' if less else '+'} {name}" for name, less in signed).removeprefix(
            "+ "
        )

    def named(self) -> QueryConfig:
        """The same query with its id and label filled in."""
        label = self.label or self.title() or self.id
        return msgspec.structs.replace(self, id=self.id or slug(label), label=label)

    def said(self) -> dict[str, Any]:
        """JSON values, without what says nothing: as YAML and query.put take it."""
        fields: dict[str, Any] = _said(msgspec.to_builtins(self, enc_hook=str))
        if self.enabled:
            del fields["enabled"]
        return fields


def _said(value: Any) -> Any:
    if isinstance(value, dict):
        each = {name: _said(inner) for name, inner in value.items()}
        return {name: inner for name, inner in each.items() if inner not in (None, "", [], {})}
    return [_said(inner) for inner in value] if isinstance(value, list) else value
