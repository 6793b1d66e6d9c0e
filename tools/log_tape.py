"""A log's embeddings, made once by a replay and kept beside it: one log is asked many times."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from agent.atomic import open_atomic
from agent.clock import from_s, to_s
from agent.config import Config
from agent.core import Core
from agent.errors import ConfigError
from agent.replay import ReplayOptions, Tape, replay
from agent.types import Embedding, Region, Sample, StreamInfo, Views
from tools.output import progress_bars

__all__ = ["shown_tape", "tape_of"]


class _Kept(msgspec.Struct, array_like=True):
    """An Embedding, its space and sense left out. views: little-endian float32."""

    stream: str
    vector: bytes
    start_ns: int
    end_ns: int
    arrival_ns: int
    encoded_ns: int
    reused: bool
    views: bytes
    regions: tuple[Region, ...]


class _File(msgspec.Struct):
    key: str
    space: str
    streams: dict[str, tuple[StreamInfo, int]]
    embeddings: list[_Kept]
    origin_ns: int
    first_ns: int
    end_ns: int


def tape_of(
    config: Config, log: Path, progress: Callable[[int, int, float], None] = lambda *_: None
) -> Tape:
    """The tape of a log in the space of `config`; `progress` as replay's, where it has to be made.

    It is kept as LOG.<space's hash>.tape, and made anew where the log, the space or how towers are
    run has changed. Raises ConfigError and the errors of `replay`.
    """
    queries = msgspec.structs.replace(config.file, queries=[])
    config = replace(config, file=queries)
    key, name = _key(config, log)
    path = log.with_name(f"{log.name}.{name}.tape")
    if path.exists():
        kept = _read(path)
        if kept.key == key:
            return _tape(kept)
    made = _File(key, "", {}, [], 0, 0, 0)

    def on_streams(core: Core) -> None:
        made.space = core.space.identity
        infos = {state.info.name: state.info for state in core.states()}
        for name, windows in core.windows.items():
            made.streams[name] = infos[name], windows.step_ns
        core.pumps[0].sinks.append(on_block)

    def on_block(sample: Sample) -> None:
        first_ns = int(sample.t_ns[0])
        made.origin_ns = min(made.origin_ns or first_ns, first_ns)

    def on_embedding(embedding: Embedding) -> None:
        made.embeddings.append(_kept(embedding))

    def on_sample(first_ns: int, now_ns: int, duration_s: float) -> None:
        made.first_ns, made.end_ns = first_ns, now_ns
        progress(first_ns, now_ns, duration_s)

    replay(config, log, ReplayOptions(), lambda event: None, on_sample, on_embedding, on_streams)
    made.end_ns += from_s(config.file.space.lateness_s)
    with open_atomic(path) as file:
        file.write(msgspec.msgpack.encode(made))
    return _tape(made)


def shown_tape(config: Config, log: Path) -> Tape:
    """`tape_of` with a bar on a terminal."""
    with progress_bars() as bars:
        task = bars.add_task(f"encoding {log.name}", total=None)
        return tape_of(
            config,
            log,
            lambda first_ns, now_ns, duration_s: bars.update(
                task, completed=to_s(now_ns - first_ns), total=duration_s
            ),
        )


def _key(config: Config, log: Path) -> tuple[str, str]:
    """What the tape depends on, and the hash of the space for its name."""
    from agent.plugins import open_space

    space = config.file.space
    opened = open_space(space.path, space.options())
    identity = opened.identity
    opened.close()
    try:
        status = log.stat()
    except OSError as exc:
        raise ConfigError(f"log {log}: {exc.strerror}, expected a recording") from exc
    run = [
        identity,
        status.st_size,
        status.st_mtime_ns,
        space.lateness_s,
        space.min_coverage,
        msgspec.to_builtins(space.towers),
    ]
    digest = hashlib.sha256(msgspec.json.encode(run, order="sorted")).hexdigest()
    return digest, identity.rpartition("@")[2][:8]


def _read(path: Path) -> _File:
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=_File)
    except (OSError, msgspec.DecodeError) as exc:
        raise ConfigError(f"{path}: {exc}, expected a tape: remove it") from exc


def _kept(embedding: Embedding) -> _Kept:
    views = embedding.views
    return _Kept(
        stream=embedding.stream,
        vector=embedding.vector.astype("<f4").tobytes(),
        start_ns=embedding.start_ns,
        end_ns=embedding.end_ns,
        arrival_ns=embedding.arrival_ns,
        encoded_ns=embedding.encoded_ns,
        reused=embedding.reused,
        views=b"" if views is None else views.vectors.astype("<f4").tobytes(),
        regions=() if views is None else views.regions,
    )


def _tape(kept: _File) -> Tape:
    return Tape(
        kept.streams,
        [_embedding(kept, each) for each in kept.embeddings],
        kept.origin_ns,
        kept.first_ns,
        kept.end_ns,
    )


def _embedding(kept: _File, each: _Kept) -> Embedding:
    vector = np.frombuffer(each.vector, "<f4").astype(np.float32)
    views = None
    if each.views:
        rows = np.frombuffer(each.views, "<f4").astype(np.float32)
        views = Views(rows.reshape(-1, len(vector)), each.regions)
    return Embedding(
        space=kept.space,
        vector=vector,
        modality=kept.streams[each.stream][0].modality,
        stream=each.stream,
        start_ns=each.start_ns,
        end_ns=each.end_ns,
        arrival_ns=each.arrival_ns,
        encoded_ns=each.encoded_ns,
        reused=each.reused,
        views=views,
    )
