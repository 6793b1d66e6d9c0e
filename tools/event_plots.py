"""The detection-error plot of tools/evaluate.py events. Needs the extra `bind`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.extras import needs_extra
from tools.event_baselines import Point
from tools.event_scores import Counts

__all__ = ["draw"]


def draw(path: Path, curves: Mapping[str, Sequence[Point]], ours: Counts, title: str) -> None:
    """Missed events over false alarms an hour and query, of each way to set one threshold for all
    queries; and where the agent's own thresholds lie. Raises ConfigError without the extra.
    """
    with needs_extra("bind"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, points in curves.items():
        every = [point.all for point in points]
        rates = [max(counts.per_hour, 1e-3) for counts in every]
        axes.plot(rates, [1 - counts.recall for counts in every], marker=".", label=name)
    axes.plot([max(ours.per_hour, 1e-3)], [1 - ours.recall], "k*", ms=12, label="as configured")
    axes.set(
        xscale="log",
        ylim=(0, 1),
        xlabel="false alarms an hour and query",
        ylabel="missed",
        title=title,
    )
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
