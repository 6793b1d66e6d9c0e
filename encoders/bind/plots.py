"""The pictures of a report on a bound tower.

Needs the extra `bind`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agent.extras import needs_extra
from agent.types import Array
from encoders.bind.scoring import RetrievalScores

__all__ = ["draw"]


def draw(
    folder: Path,
    ks: Sequence[int],
    tasks: Mapping[str, RetrievalScores],
    cosines: tuple[Array, Array],
    history: Sequence[Any],
) -> None:
    """Write recall.png, cosines.png and history.png into `folder`.

    ks: of recall. cosines: of what belongs together and what does not. history: train.Evaluation.
    Raises ConfigError where the extra is missing.
    """
    with needs_extra("bind"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    def plot(name: str) -> tuple[Any, Any]:
        figure = Figure(figsize=(6, 3.2), layout="constrained")
        FigureCanvasAgg(figure)
        return figure, folder / name

    figure, path = plot("recall.png")
    axes = figure.subplots()
    for i, (name, scores) in enumerate(tasks.items()):
        places = np.arange(len(ks)) + 0.2 * i
        found = [scores.recall[k] for k in ks]
        bounds = [[e.value - e.low for e in found], [e.high - e.value for e in found]]
        errors = np.maximum(bounds, 0)
        drawn = axes.errorbar(places, [e.value for e in found], errors, fmt="o", label=name)
        axes.plot(places, [scores.chance[k] for k in ks], "_", ms=14, color=drawn[0].get_color())
    axes.set(xticks=range(len(ks)), ylim=(0, 1.02), ylabel="recall (bar: chance)")
    axes.set_xticklabels([f"@{k}" for k in ks])
    axes.legend(fontsize="small")
    figure.savefig(path)

    figure, path = plot("cosines.png")
    axes = figure.subplots()
    for name, values in zip(("together", "not together"), cosines, strict=True):
        if len(values):
            axes.hist(values, bins=np.linspace(-1, 1, 81), density=True, alpha=0.6, label=name)
    axes.set(xlabel="cosine", ylabel="density")
    axes.legend()
    figure.savefig(path)

    figure, path = plot("history.png")
    axes = figure.subplots()
    steps = [evaluation.step for evaluation in history]
    axes.plot(steps, [evaluation.recall for evaluation in history], label="dev recall@1")
    axes.plot(steps, [evaluation.cosine for evaluation in history], label="dev cosine")
    axes.set(xlabel="step")
    axes.legend()
    figure.savefig(path)
