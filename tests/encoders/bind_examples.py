"""Made examples: a signal whose pitches its anchor tells, a recording of several views each."""

from __future__ import annotations

import numpy as np

from encoders.bind.examples import Examples

CHANNELS, TICKS, DIM = 3, 32, 16
VIEWS = 4  # of a recording


def made_examples(recordings: int, seed: int = 0, shuffled: bool = False) -> Examples:
    """Each recording has a pitch a channel, and an anchor that is a fixed function of them; where
    `shuffled`, of another recording's. Views differ in phase and noise.
    """
    rng = np.random.default_rng([seed, 1])
    pitches = rng.uniform(0.5, 6.0, (recordings, CHANNELS))
    # Several waves a channel, so that anchors of near pitches are near and others are not.
    waves = np.concatenate([np.cos(pitches * k) for k in (0.5, 1.0)], axis=1)
    anchors = waves @ np.random.default_rng(7).normal(size=(waves.shape[1], DIM))
    anchors /= np.linalg.norm(anchors, axis=1, keepdims=True)
    if shuffled:
        anchors = anchors[rng.permutation(recordings)]
    groups = np.repeat(np.arange(recordings), VIEWS)
    t = np.linspace(0, 2 * np.pi, TICKS)
    phases = rng.uniform(0, 2 * np.pi, (len(groups), CHANNELS, 1))
    views = np.sin(pitches[groups][:, :, np.newaxis] * t + phases)
    views += rng.normal(scale=0.1, size=views.shape)
    return Examples(
        views=list(views.astype(np.float32)),
        anchors=anchors[groups].astype(np.float32),
        groups=groups.astype(np.int64),
        labels=np.full(len(groups), -1, np.int64),
    )
