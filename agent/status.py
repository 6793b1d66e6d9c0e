"""The health message: every counter of the agent in one place, once a second."""

from __future__ import annotations

import logging

from agent.clock import to_s
from agent.core import Core
from agent.health import Latencies, Process
from agent.stream.pump import StreamState
from agent.wire import Health, StreamHealth, Time

__all__ = ["Reporter"]

logger = logging.getLogger(__name__)


class Reporter:
    """Makes health messages; rates and latencies are of the time since the last one."""

    def __init__(self, core: Core, latencies: Latencies) -> None:
        self._core, self._latencies = core, latencies
        self._process = Process()
        self._started_ns = self._last_ns = core.clock.now_ns()
        self._received: dict[str, int] = {}
        self._doubted: set[str] = set()

    def report(self, recording: str | None) -> Health:
        """The state of everything, now. One thread."""
        core = self._core
        now = core.clock.now_ns()
        doubts = core.matcher.doubts(now)
        self._tell(doubts)
        streams = [
            self._stream(state, now, doubts.get(state.info.name, "")) for state in core.states()
        ]
        self._last_ns = now
        return Health(
            agent=core.config.file.agent,
            boot_id=core.boot_id,
            time=Time.of(now),
            uptime_s=round(to_s(now - self._started_ns), 3),
            clock=core.clock_state(),
            model=core.model(),
            streams=streams,
            latency_ms=self._latencies.report(),
            drops=core.drops(),
            cpu_percent=self._process.cpu_percent(),
            rss_mb=self._process.rss_mb(),
            temperature_c=self._process.temperature_c(),
            queries=len(core.queries),
            open_events=core.matcher.open_events,
            recording=recording,
        )

    def _tell(self, doubts: dict[str, str]) -> None:
        """Whoever reads no health messages reads this."""
        for name in doubts.keys() - self._doubted:
            logger.warning("stream %s %s", name, doubts[name])
        for name in self._doubted - doubts.keys():
            logger.info("stream %s is as it used to be again", name)
        self._doubted = set(doubts)

    def _stream(self, state: StreamState, now_ns: int, doubt: str) -> StreamHealth:
        name = state.info.name
        windows, lane = self._core.windows.get(name), self._core.lane_of(name)
        guess = state.clock.estimate if state.clock else None
        passed_s = to_s(now_ns - self._last_ns)
        before = self._received.get(name, 0)
        self._received[name] = received = state.received
        return StreamHealth(
            stream=name,
            modality=state.info.modality,
            state=state.state,
            rate_hz=round((received - before) / passed_s, 2) if passed_s > 0 else 0.0,
            received=received,
            lost=state.lost,
            bad=state.bad,
            overruns=windows.counts.overruns if windows else 0,
            reconnects=state.reconnects,
            windows=windows.counts.taken - windows.counts.reused if windows else 0,
            reused=windows.counts.reused if windows else 0,
            skipped=windows.counts.skipped if windows else 0,
            hop_s=to_s(windows.step_ns) if windows else None,
            hop_asked_s=to_s(windows.hop_ns) if windows else None,
            hop_reason=lane.budget.reason if lane else "",
            duty=round(lane.budget.duty(now_ns), 4) if lane else None,
            age_ms=(
                None if state.arrival_ns is None else round((now_ns - state.arrival_ns) / 1e6, 1)
            ),
            clock_offset_ns=guess.offset_ns if guess else None,
            clock_drift_ppm=round(guess.drift * 1e6, 3) if guess else None,
            clock_uncertainty_ns=guess.uncertainty_ns if guess else None,
            clock_steps=state.clock.steps if state.clock else None,
            doubt=doubt,
        )
