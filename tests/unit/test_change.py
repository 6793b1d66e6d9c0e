"""Change gate: it opens for what is new, however small or slow, and for nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.clock import NS_PER_S, ManualClock
from agent.config import TowerConfig
from agent.errors import EncodeFailed
from agent.stream.change import Change, fingerprint
from agent.stream.lane import Lane
from agent.stream.ring import Ring
from agent.stream.windows import Windows
from agent.types import Array, Embedding, Sample, StreamInfo, Window, WindowSpec

HOP = NS_PER_S // 2
PICTURE, SOUND = 0.2, 0.3  # thresholds


def window(data: Array, modality: str = "image", n: int = 0) -> Window:
    info = StreamInfo("made", modality, str(data.dtype), data.shape[1:], None, "")
    t_ns = np.arange(len(data), dtype=np.int64) + n * HOP
    return Window(info, n * HOP, (n + 1) * HOP, data, t_ns, arrival_ns=(n + 1) * HOP + 5)


def scene(seed: int, height: int = 120, width: int = 160) -> Array:
    """A smooth picture with a contrast of its own, 0..1."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / height
    waves = [np.sin(rng.uniform(2, 9) * x + rng.uniform(2, 9) * y + n) for n in range(4)]
    return 0.5 + np.sum(waves, axis=0) / 10


def shot(light: Array, dtype: str, gain: float, seed: int = 0) -> Array:
    """One tick of it: (1, height, width) with a sensor's noise, of the dtype's range."""
    noise = np.random.default_rng(seed).normal(0, 0.004, light.shape)
    if dtype == "uint8":
        return np.clip((light * gain + noise) * 255, 0, 255).astype(dtype)[np.newaxis]
    if dtype == "uint16":  # millimetres, or counts well away from 0
        return (7000 + (light * gain + noise) * 500).astype(dtype)[np.newaxis]
    return (20 + (light * gain + noise) * 15).astype(dtype)[np.newaxis]  # Celsius


def difference(before: Array, now: Array, modality: str = "image") -> float:
    return fingerprint(window(before, modality)).difference(fingerprint(window(now, modality)))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("gain", [1.0, 0.2])
def test_noise_does_not_open_it_and_a_small_object_does(dtype: str, gain: float) -> None:
    """In a bright scene and in a dark one, by the same threshold."""
    light = scene(1, 480, 640)
    before = shot(light, dtype, gain, 1)
    assert difference(before, shot(light, dtype, gain, 2)) < PICTURE
    light[200:230, 300:330] = 1.1 - light[200:230, 300:330].round()  # 30 x 30 of 640 x 480
    now = shot(light, dtype, gain, 3)
    assert difference(before, now) > PICTURE
    mean = np.abs(fingerprint(window(before)).values - fingerprint(window(now)).values).mean()
    contrast = fingerprint(window(before)).contrast
    assert contrast is not None
    assert mean / contrast < PICTURE / 5, "the mean would not have seen it"


@given(
    height=st.integers(1, 130),
    width=st.integers(1, 200),
    channels=st.sampled_from([(), (1,), (3,)]),
    seed=st.integers(0, 99),
)
def test_every_block_is_seen(height: int, width: int, channels: tuple[int, ...], seed: int) -> None:
    """Of a picture of any size and shape: a bar over any of its columns is a change."""
    rng = np.random.default_rng(seed)
    before = rng.integers(100, 110, (1, height, width, *channels)).astype(np.uint8)
    assert difference(before, before) == 0
    now = before.copy()
    edge = width // 128  # of up to a block's width, half on either side, nothing is said
    now[:, :, rng.integers(edge, width - edge)] = 250
    assert difference(before, now) > PICTURE
    values = fingerprint(window(before)).values
    assert values.shape[0] == min(36, height)
    assert min(64, width) <= values.shape[1] < 128
    assert 100 <= values.min() <= values.max() < 110


def tone(hz: float, level: float, rate: int = 16_000, noise: float = 0.001, seed: int = 0) -> Array:
    """Two seconds, int16 (n, 1)."""
    t_s = np.arange(2 * rate) / rate
    sound = level * np.sin(2 * np.pi * hz * t_s)
    sound += np.random.default_rng(seed).normal(0, noise, len(sound))
    return (np.clip(sound, -1, 1) * 32767).astype(np.int16)[:, np.newaxis]


def test_another_sound_as_loud_opens_it() -> None:
    assert difference(tone(440, 0.1), tone(1760, 0.1), "audio") > SOUND


def test_a_short_sound_opens_it_whenever_it_comes_and_again_when_it_is_gone() -> None:
    quiet, click = tone(100, 0.0), tone(100, 0.0, seed=1)
    for at in (0, 9000, 30_000):
        now = click.copy()
        now[at : at + 1600] += tone(3000, 0.3)[:1600]
        assert difference(quiet, now, "audio") > SOUND
        assert difference(now, quiet, "audio") > SOUND


def test_the_same_sound_a_hop_later_does_not() -> None:
    long = np.concatenate([tone(300, 0.2), tone(300, 0.2, seed=1)])
    ticks = 16_000 // 2
    assert difference(long[:32_000], long[ticks : ticks + 32_000], "audio") < SOUND
    noise = tone(300, 0.0, noise=0.1, seed=2)
    assert difference(noise, tone(300, 0.0, noise=0.1, seed=3), "audio") < SOUND


def test_silence_is_silence_however_its_last_bits_fall() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-1, 2, (32_000, 2)).astype(np.int16) for _ in range(2))
    assert difference(a, b, "audio") < SOUND
    assert difference(a, np.zeros_like(a), "audio") < SOUND


def held(axis: int, shake: float, seed: int) -> Array:
    """Five seconds of an IMU at 100 Hz that is held with gravity along `axis`."""
    rng = np.random.default_rng(seed)
    motion = rng.normal(0, 0.01, (500, 6))
    motion[:, axis] += 9.81
    motion[:, 3] += shake * np.sin(2 * np.pi * 1.5 * np.arange(500) / 100)
    return motion.astype(np.float32)


def test_motion_and_another_posture_open_it_and_rest_does_not() -> None:
    rest = held(0, 0.0, 1)
    assert difference(rest, held(0, 0.0, 2), "imu") < SOUND
    assert difference(rest, held(1, 0.0, 2), "imu") > SOUND
    assert difference(rest, held(0, 0.5, 2), "imu") > SOUND


@given(ticks=st.integers(1, 200), channels=st.integers(1, 6), sound=st.booleans())
def test_a_sequence_of_any_length_has_a_fingerprint(ticks: int, channels: int, sound: bool) -> None:
    rng = np.random.default_rng(ticks)
    data = rng.normal(0, 1, (ticks, channels)).astype(np.float32)
    modality = "audio" if sound else "imu"
    assert np.isfinite(fingerprint(window(data, modality)).values).all()
    assert difference(data, data.copy(), modality) == 0


def test_another_size_is_another_scene() -> None:
    assert difference(shot(scene(1), "uint8", 1), shot(scene(1, 60, 80), "uint8", 1)[:, :30]) > 1e9


def test_slow_drift_is_not_unseen() -> None:
    """Each window is like the one before it; it is compared with the last that was encoded."""
    gate = Change(PICTURE, max_reuse_s=1000)
    light, target = scene(1), scene(2)
    new = []
    for n in range(200):
        mixed = light + (target - light) * n / 200
        new.append(gate.is_new(window(shot(mixed, "uint8", 1, n), n=n)))
        if new[-1]:
            gate.keep(Embedding("s@1", np.eye(1, 4, dtype=np.float32)[0], "image"))
    steps = np.flatnonzero(new)
    assert 3 < len(steps) < 60
    assert np.diff(steps).min() > 1


def test_after_a_while_it_is_encoded_anyway() -> None:
    gate = Change(1.0, max_reuse_s=2.0)
    still = shot(scene(1), "uint8", 1)
    assert [gate.is_new(window(still, n=n)) for n in range(9)] == [n % 4 == 0 for n in range(9)]


class Counting:
    """Vectors that name their window by number; a window of `poison` fails."""

    modality, space = "image", "fake@1"
    window = WindowSpec(0.5, 0.5, 1)

    def __init__(self) -> None:
        self.encoded: list[int] = []
        self.poison: set[int] = set()

    def load(self) -> None: ...

    def close(self) -> None: ...

    def encode(self, windows: Sequence[Window]) -> list[Embedding]:
        numbers = [w.end_ns // HOP for w in windows]
        if self.poison & set(numbers):
            raise EncodeFailed("will not go in")
        self.encoded += numbers
        return [
            Embedding(
                self.space,
                np.array([np.cos(n), np.sin(n)], np.float32),
                "image",
                w.stream.name,
                w.start_ns,
                w.end_ns,
                w.arrival_ns,
            )
            for n, w in zip(numbers, windows, strict=True)
        ]


def play(
    frames: Sequence[int], together: int, config: TowerConfig, poison: Sequence[int] = ()
) -> tuple[list[Embedding], Counting, Lane]:
    """A picture of scene `frames[n]` for each hop; the lane steps after every `together` ticks."""
    encoder = Counting()
    encoder.poison = set(poison)
    lane = Lane(encoder, ManualClock(), config)
    pictures = {n: shot(scene(n), "uint8", 1) for n in set(frames)}
    info = StreamInfo("camera", "image", "uint8", pictures[frames[0]].shape[1:], 2.0, "mono8")
    ring = Ring(info, len(frames) + 2)
    lane.add(Windows(ring, lane.spec))
    told = []
    for n, frame in enumerate(frames):
        t_ns = np.array([n * HOP], np.int64)
        ring.push(Sample(info, n, t_ns, n * HOP + 5, pictures[frame]))
        if n % together == 0 or n == len(frames) - 1:
            told += lane.step((n + 2) * HOP)
    return told, encoder, lane


def test_a_reused_embedding_is_that_of_the_last_encoded_window_with_its_own_span() -> None:
    told, encoder, lane = play([1, 1, 1, 2, 2, 1], 1, TowerConfig(change=PICTURE))
    assert encoder.encoded == [1, 4, 6]
    assert [e.reused for e in told] == [False, True, True, False, True, False]
    for n, embedding in enumerate(told):
        source = max(e for e in encoder.encoded if e <= n + 1)
        np.testing.assert_allclose(embedding.vector, [np.cos(source), np.sin(source)], atol=1e-6)
        assert (embedding.start_ns, embedding.end_ns) == (n * HOP, (n + 1) * HOP)
        assert embedding.arrival_ns == n * HOP + 5
    counts = lane.windows[0].counts
    assert (counts.taken, counts.reused, counts.skipped) == (6, 3, 0)


@given(
    frames=st.lists(st.integers(1, 3), min_size=1, max_size=25),
    together=st.integers(1, 8),
    clips=st.integers(1, 3),
)
def test_how_many_windows_come_at_once_makes_no_difference(
    frames: list[int], together: int, clips: int
) -> None:
    config = TowerConfig(change=PICTURE, clips=clips)
    one, by_one, _ = play(frames, 1, config)
    many, by_many, _ = play(frames, together, config)
    assert by_one.encoded == by_many.encoded
    assert [(e.end_ns, e.reused, e.vector.tobytes()) for e in one] == [
        (e.end_ns, e.reused, e.vector.tobytes()) for e in many
    ]


@pytest.mark.parametrize("together", [1, 6])
def test_what_could_not_be_encoded_is_not_told_again(together: int) -> None:
    told, encoder, lane = play([1, 1, 2, 2, 2, 2], together, TowerConfig(change=PICTURE), [3, 4])
    ends = [e.end_ns // HOP for e in told]
    if together == 1:  # the next one like it is tried in its place
        assert (encoder.encoded, ends) == ([1, 5], [1, 2, 5, 6])
        assert lane.failed == 2
    else:  # those that came with it have nothing to be told by
        assert (encoder.encoded, ends) == ([1], [1, 2])
        assert lane.failed == 4, "and are counted"


def test_without_a_threshold_every_window_is_encoded() -> None:
    told, encoder, _ = play([1] * 5, 1, TowerConfig())
    assert encoder.encoded == [1, 2, 3, 4, 5]
    assert not any(e.reused for e in told)
