"""The report of a tower that was bound: what it is worth, as Markdown and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from encoders.bind.judging import KS, Judgement
from encoders.bind.plots import draw
from encoders.bind.scoring import Estimate

__all__ = ["FileFigures", "write_report"]


class FileFigures(NamedTuple):
    """Of one precision. cosine: least with the trained tower. latency_ms: median of one window,
    preprocessing included.
    """

    bytes: int
    cosine: float
    latency_ms: float


def write_report(
    folder: Path,
    title: str,
    facts: Mapping[str, str],
    judgement: Judgement,
    history: Sequence[Any],
    files: Mapping[str, FileFigures],
) -> str:
    """Write report.md and its pictures into `folder` and give the Markdown.

    facts: about the run, by name. history: train.Evaluation, in order. files: by precision, empty
    where no tower was written. Raises ConfigError where the extra is missing.
    """
    verdict = "beats chance" if judgement.beats_chance else "does NOT beat chance"
    lines = [
        f"# {title}",
        "",
        f"The tower **{verdict}** on {judgement.recordings} recordings kept out of training.",
        "",
        *(f"- {name}: {value}" for name, value in facts.items()),
        "",
        "## Retrieval",
        "",
        "95 % intervals by bootstrap over recordings; chance in brackets. Equal scores count "
        "against the tower.",
        "",
        "| task | queries | " + " | ".join(f"recall@{k}" for k in KS) + " | mAP |",
        "|---|---|" + "---|" * (len(KS) + 1),
    ]
    for name, scores in judgement.tasks.items():
        cells = [f"{_told(scores.recall[k])} ({scores.chance[k]:.3f})" for k in KS]
        row = [name, str(scores.queries), *cells, _told(scores.map)]
        lines.append(f"| {' | '.join(row)} |")
    calibration = judgement.calibration
    lines += [
        "",
        "![recall](recall.png)",
        "",
        "## Calibration",
        "",
        f"- cosine of what belongs together {_pm(calibration.matched)}, of what does not "
        f"{_pm(calibration.mismatched)}; ROC area {calibration.area:.3f}",
        f"- modality gap (distance of the two mean vectors) {judgement.gap:.3f}",
        "",
        "![cosines](cosines.png)",
        "",
        "## Training",
        "",
        "![history](history.png)",
        "",
    ]
    if files:
        lines += ["## Files", "", "| precision | MB | least cosine with the trained tower "
                  "| ms a window, preprocessing included |", "|---|---|---|---|"]  # fmt: skip
        lines += [
            f"| {name} | {f.bytes / 1e6:.2f} | {f.cosine:.5f} | {f.latency_ms:.2f} |"
            for name, f in files.items()
        ]
        lines.append("")
    text = "\n".join(lines)
    folder.mkdir(parents=True, exist_ok=True)
    draw(folder, KS, judgement.tasks, judgement.cosines, history)
    (folder / "report.md").write_text(text, encoding="utf-8")
    return text


def _told(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _pm(pair: tuple[float, float]) -> str:
    return f"{pair[0]:.3f} ± {pair[1]:.3f}"
