"""The parts of an agent wired together, with no thread and no socket: live and replay share it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from agent import plugins
from agent.asking import embed_query
from agent.clock import NS_PER_S, Clock, to_s
from agent.config import Config, QueryConfig
from agent.errors import ConfigError
from agent.isolation.driver import make_driver
from agent.match.calibrated import read_calibration
from agent.match.matcher import EventContext, Matcher
from agent.match.meaning import Meaning
from agent.match.queries import QuerySet
from agent.match.recent import Recent
from agent.stream.lane import Lane
from agent.stream.pump import Pump, StreamState
from agent.stream.ring import Ring
from agent.stream.turns import Turns, slots_for
from agent.stream.windows import Windows
from agent.types import Embedding, Sample
from agent.wire import ClockState, Event, Model

__all__ = ["TICK_NS", "Core"]

logger = logging.getLogger(__name__)

TICK_NS = NS_PER_S // 10  # how often stale evidence is looked for


class Core:
    """Space, queries, pumps, rings, lanes and matcher of one config.

    `open` embeds the queries, so a bad query or model is said before any device opens; `attach`
    gives each stream of a connected driver that the space can encode its ring and lane.
    """

    def __init__(
        self,
        config: Config,
        clock: Clock,
        boot_id: str,
        on_state: Callable[[StreamState], None] = lambda state: None,
        live: bool = True,
    ) -> None:
        """live: windows that fall behind are skipped; in a replay none is."""
        self.config, self.clock, self.boot_id = config, clock, boot_id
        self.on_latency: Callable[[str, float], None] = lambda hop, latency_s: None
        self.queue_drops: Callable[[], dict[str, int]] = dict
        self._live = live
        file = config.file
        self.space = plugins.open_space(file.space.path, file.space.options())
        for name in file.space.towers:
            if name not in self.space.modalities:
                raise ConfigError(
                    f"space.towers.{name}: {self.space.name} has no such tower, expected one of "
                    f"{', '.join(self.space.modalities)}"
                )
        self.pumps = [
            Pump(d.name, make_driver(d, clock), d.config, clock, on_state) for d in config.drivers
        ]
        self.turns = Turns(file.space.slots or slots_for(file.space.threads), clock)
        self.lanes: dict[str, Lane] = {}
        self.windows: dict[str, Windows] = {}
        self._lane_of: dict[str, Lane] = {}
        self.recent = Recent()
        self.queries = QuerySet(self._embed, file.match.gate)
        path = file.match.calibration
        self._calibration = read_calibration(path, self.space.identity) if path else None
        self.matcher = Matcher(
            file.match,
            self.queries,
            self.space,
            EventContext(
                agent=file.agent,
                boot_id=boot_id,
                clock=clock,
                clock_state=self.clock_state,
                model=self.model,
                drops=self.drops,
            ),
            self._calibration,
        )

    def open(self) -> None:
        """Load what the queries need and embed them. Raises ConfigError and EncoderError."""
        numbered = enumerate(self.config.file.queries)
        # What a `when` names may stand after it.
        for number, query in sorted(numbered, key=lambda each: each[1].when is not None):
            try:
                self.queries.put(query)
            except ConfigError as exc:
                raise ConfigError(f"queries[{number}]: {exc}") from exc
        if self._calibration is not None:
            keys = [query.null_key for query in self.queries.all()]
            self._calibration.check(keys, str(self.config.file.match.calibration))

    def load_all(self) -> None:
        """Load every tower, whether or not a stream needs it: `--check`."""
        self.space.text_encoder().load()
        for modality in self.space.modalities:
            self.space.encoder(modality).load()

    def attach(self, pump: Pump) -> None:
        """Give the streams of a connected pump their rings and lanes."""
        for state in pump.streams.values():
            info = state.info
            others = [p.name for p in self.pumps if p is not pump and info.name in p.streams]
            if others:
                raise ConfigError(
                    f"drivers.{pump.name}: stream {info.name!r} is also given by {others[0]}; "
                    "rename one"
                )
            tower = self.config.file.space.towers.get(info.modality)
            if info.modality not in self.space.modalities or (tower and not tower.enabled):
                continue
            if info.name in self.windows:
                continue
            lane = self.lanes.get(info.modality)
            if lane is None:
                encoder = self.space.encoder(info.modality)
                encoder.load()
                lane = self.lanes[info.modality] = Lane(encoder, self.clock, tower)
                lane.on_latency = lambda hop, latency_s: self.on_latency(hop, latency_s)
            space = self.config.file.space
            slack_s = space.lateness_s + pump.config.buffer_s
            ring = Ring(info, Windows.capacity(lane.spec, info.rate_hz, slack_s))
            windows = Windows(
                ring,
                lane.spec,
                space.lateness_s,
                space.min_coverage,
                space.max_backlog if self._live else None,
            )
            lane.add(windows)
            self.windows[info.name] = windows
            self._lane_of[info.name] = lane
            self.matcher.add_stream(info, windows.step_ns)
        if self.push not in pump.sinks:
            pump.sinks.append(self.push)

    def push(self, sample: Sample) -> None:
        """Hop 2: a checked block into its ring."""
        self.on_latency("capture", to_s(sample.arrival_ns - int(sample.t_ns[-1])))
        name = sample.stream.name
        windows = self.windows.get(name)
        if windows is not None:
            windows.ring.push(sample)
            self._lane_of[name].wake()

    def check_streams(self, source: str, topics: Sequence[str]) -> None:
        """Raises ConfigError where no stream of `source` is a sense that a tower can take."""
        if not self.lanes:
            senses = {s.info.topic or s.info.name: s.info.modality for s in self.states()}
            told = ", ".join(f"{t} ({senses.get(t, 'no numbers')})" for t in topics[:8])
            raise ConfigError(
                f"{source}: nothing that space {self.space.name} can encode "
                f"({', '.join(self.space.modalities)}); it has {told or 'no streams'}"
            )

    def check_queries(self) -> None:
        """Raises ConfigError where a query names a stream that no driver gives."""
        known = sorted(state.info.name for state in self.states())
        for query in self.queries.all():
            for name in query.config.streams or ():
                if name not in known:
                    raise ConfigError(
                        f"queries.{query.ref.id}.streams: got {name!r}, expected {_among(known)}"
                    )

    def states(self) -> list[StreamState]:
        return [state for pump in self.pumps for state in pump.streams.values()]

    def observe(self, embedding: Embedding) -> list[Event]:
        """Hops 5 and 6 for one embedding."""
        self.recent.add(embedding)
        events = self.matcher.observe(embedding)
        self.on_latency("match", to_s(self.clock.now_ns() - embedding.encoded_ns))
        return events

    def model(self) -> Model:
        space = self.space
        return Model(space=space.identity, precision=space.precision, provider=space.provider)

    def clock_state(self) -> ClockState:
        return ClockState(
            domain="log" if self.clock.replay else "utc_anchored_monotonic",
            offset_ns=self.clock.utc_offset_ns(),
            uncertainty_ns=self.clock.uncertainty_ns,
            replay=self.clock.replay,
        )

    def drops(self) -> dict[str, int]:
        """What has been lost since start: ticks by stream, and items by queue; zeros left out."""
        out = {state.info.name: state.lost + state.bad for state in self.states()}
        for name, windows in self.windows.items():
            out[f"{name}.windows"] = windows.counts.skipped + windows.counts.overruns
        out |= {f"{name}.encode": lane.failed for name, lane in self.lanes.items()}
        return {name: count for name, count in (out | self.queue_drops()).items() if count}

    def lane_of(self, stream: str) -> Lane | None:
        """The lane that encodes `stream`, where one does."""
        return self._lane_of.get(stream)

    def windows_taken(self) -> int:
        return sum(windows.counts.taken for windows in self.windows.values())

    def close(self) -> None:
        """Disconnect every driver and release the models. Idempotent."""
        for pump in self.pumps:
            pump.driver.disconnect()
        self.space.close()

    def _embed(self, query: QueryConfig) -> Meaning:
        known = {state.info.name for state in self.states()}
        unknown = sorted(set(query.streams or ()) - known) if known else []
        if unknown:
            raise ConfigError(f"streams: got {unknown[0]!r}, expected {_among(sorted(known))}")
        return embed_query(self.space, query, self.config.file.match.min_deviation)


def _among(names: Sequence[str]) -> str:
    return f"one of {', '.join(names)}"
