"""Signals of a sense that no space knows, told apart by rhythm, and the recipe of a tower of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

HZ = 20
SECONDS = 2.0
RHYTHMS_HZ = {"clapping": 1.0, "walking": 2.5, "a phone ringing": 5.0}
RECIPE = {
    "window": {"length_s": SECONDS, "hop_s": 1.0},
    "preprocess": {
        "name": "signal",
        "parameters": {"channels": 2, "rate_hz": HZ, "length_s": SECONDS, "hop_s": SECONDS},
    },
    "augment": "none",
    "train": {"batch": 12, "ema": 0.9, "evaluations": 4, "rate": 3e-3},
}


def write_gesture(path: Path, gesture: str, rng: np.random.Generator) -> None:
    """Two channels for SECONDS, at a phase of its own."""
    t_s = np.arange(SECONDS * HZ) / HZ
    phase = 2 * np.pi * (RHYTHMS_HZ[gesture] * t_s + rng.uniform())
    data = np.stack([t_s, np.sin(phase), np.cos(phase)], axis=1)
    data[:, 1:] += rng.normal(0, 0.1, (len(t_s), 2))
    np.savetxt(path, data, delimiter=",", header="t,left,right", comments="")
