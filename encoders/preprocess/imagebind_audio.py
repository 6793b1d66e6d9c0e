"""Sound to the log-mel pictures that ImageBind's audio tower takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import msgspec
import numpy as np
import soxr

from agent.clock import from_s
from agent.types import Settings, Window
from encoders.preprocess.audio import heard
from encoders.preprocess.base import Float32Array, Preprocess
from encoders.preprocess.kaldi_fbank import BANDS, FRAME_TICKS, HOP_TICKS, RATE_HZ, log_mel

__all__ = ["PLUGIN", "ImageBindAudio"]

FRAMES = 204
MAX_CLIP_S = ((FRAMES - 1) * HOP_TICKS + FRAME_TICKS) / RATE_HZ  # 2.055 s fill the frames

# Within this of an end, resampled ticks miss what lies beyond it: soxr's filter reaches 6 ms at
# 16 kHz and twice that at 8 kHz. In frames of 10 ms.
MARGIN_FRAMES = 2
MIN_RATE_HZ = 8_000
FRAMES_PER_S = RATE_HZ // HOP_TICKS
_NO_FRAMES: Float32Array = np.zeros((0, BANDS), np.float32)


class ImageBindAudio(Settings, frozen=True, kw_only=True):
    """int16 or float (n, channels) at any rate to float32 (k, 1, 128, 204): channel, mel, time.

    channel: the one that is heard; the published recipe takes the left one of two. "mean" mixes.
    clips: views of a window longer than clip_s, evenly from its start to its end; one that is not
    longer, as a live window, gives one view. mean, std: of a log-mel value, taken off and divided
    by; 9.138 is twice the deviation that AST (Gong et al. 2021) measured on AudioSet.

    A clip's frames (198 of 2 s, fewer where there is less) are padded to 204 at the end with 0
    before mean and std are applied, so that the last columns are 0.467. Lost ticks are silence.
    The published recipe also takes the mean off each clip, over all channels: it is left out, as
    `log_mel` takes it off each frame (the difference is rounding, 0.0005 at most on made sounds).

    The resampler is soxr (HQ), the published one torchaudio's (windowed sinc, Hann, width 6,
    rolloff 0.99), which lets pass more near 8 kHz: on a recording at 48 kHz the views differ by
    0.0002 on average in the lower 112 bands and by 0.05 in the upper 16.
    """

    channel: Annotated[int, msgspec.Meta(ge=0)] | Literal["mean"] = 0
    clips: Annotated[int, msgspec.Meta(ge=1)] = 3
    clip_s: Annotated[float, msgspec.Meta(gt=0, le=MAX_CLIP_S)] = 2.0
    mean: float = -4.268
    std: Annotated[float, msgspec.Meta(gt=0)] = 9.138

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, BANDS, FRAMES)

    @property
    def clip_ticks(self) -> int:
        """Of a clip at 16 kHz."""
        return round(self.clip_s * RATE_HZ)

    @property
    def heard_channel(self) -> int | None:
        """None: the mean."""
        return None if self.channel == "mean" else self.channel

    def is_one_clip(self, window: Window) -> bool:
        """By its span and not its ticks: of 2 s a live stream may give one more than its rate."""
        return window.end_ns - window.start_ns <= from_s(self.clip_s)

    def __call__(self, window: Window) -> Float32Array:
        signal = _resampled(*heard(window, self.heard_channel))
        clips = 1 if self.is_one_clip(window) else self.clips
        spare = max(0, len(signal) - self.clip_ticks)
        starts = [spare * i // max(1, clips - 1) for i in range(clips)]
        frames = [log_mel(signal[start : start + self.clip_ticks]) for start in starts]
        return np.stack([self.view(clip) for clip in frames])

    def view(self, frames: Float32Array) -> Float32Array:
        """float32 (n, 128) of log-mel to (1, 128, 204)."""
        padded = np.zeros((FRAMES, BANDS), np.float32)
        padded[: len(frames)] = frames[:FRAMES]
        padded -= np.float32(self.mean)
        padded /= np.float32(self.std)
        picture: Float32Array = padded.T[np.newaxis]
        return picture

    def prepare(self) -> None:
        log_mel(np.zeros(FRAME_TICKS, np.float32))

    def stream(self) -> Preprocess:
        return _LiveAudio(self)


@dataclass(frozen=True)
class _Heard:
    """The last window of a stream: its frames, of which `settled` do not touch its end."""

    window: Window
    frames: Float32Array
    settled: int


class _LiveAudio:
    """ImageBindAudio for one stream: where a window overlaps the one before it by whole frames,
    stamp by stamp and tick by tick, only the frames that are new are computed.

    At 16 kHz it gives what the stateless one gives, within 1e-5. At another rate it differs in a
    window's first two frames, where it has the sound before them for the resampler to look back
    on and the stateless one has not; the others are within 2e-3. What is no such overlap (a jump,
    a gap, a hop that is no multiple of 10 ms in ticks) is computed from scratch.
    """

    def __init__(self, recipe: ImageBindAudio) -> None:
        self._recipe = recipe
        self._last: _Heard | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self._recipe.shape

    def __call__(self, window: Window) -> Float32Array:
        last, self._last = self._last, None
        step = _frame_step(window)
        if step is None or not self._recipe.is_one_clip(window):
            return self._recipe(window)
        now = self._extended(last, window, step) if last else None
        if now is None:
            signal, rate_hz = heard(window, self._recipe.heard_channel)
            now = self._heard(window, _NO_FRAMES, _resampled(signal, rate_hz))
            if len(signal) == len(window.data):  # silence put in shifts what comes after it
                self._last = now
        else:
            self._last = now
        return self._recipe.view(now.frames)[np.newaxis]

    def _heard(self, window: Window, kept: Float32Array, signal: Float32Array) -> _Heard:
        """`kept` frames, then those of `signal`, which is at 16 kHz and begins where they end."""
        room = self._recipe.clip_ticks - len(kept) * HOP_TICKS
        frames = np.concatenate([kept, log_mel(signal[: max(0, room)])])
        beyond = _margin(window) * HOP_TICKS + FRAME_TICKS
        settled = len(kept) + (len(signal) - beyond) // HOP_TICKS + 1
        return _Heard(window, frames, max(0, min(len(frames), settled)))

    def _extended(self, last: _Heard, window: Window, step: int) -> _Heard | None:
        """None where `window` does not go on from the last one. step: ticks of a frame."""
        before, margin = last.window, _margin(window)
        moved = int(np.searchsorted(before.t_ns, window.t_ns[0]))
        shared = len(before.t_ns) - moved
        hop, rest = divmod(moved, step)
        context = last.settled - hop - margin
        if (
            rest
            or hop < margin
            or context < 0
            or before.stream != window.stream
            or not np.array_equal(before.t_ns[moved:], window.t_ns[:shared])
            or not np.array_equal(before.data[moved:], window.data[:shared])
        ):
            return None
        new = slice(context * step, None)
        tail = replace(window, data=window.data[new], t_ns=window.t_ns[new])
        signal, rate_hz = heard(tail, self._recipe.heard_channel)
        if len(signal) != len(tail.data):
            return None
        return self._heard(
            window,
            last.frames[hop : last.settled],
            _resampled(signal, rate_hz)[margin * HOP_TICKS :],
        )


def _resampled(signal: Float32Array, rate_hz: float) -> Float32Array:
    """`signal` (n,) at 16 kHz; its first tick stays where it is in time."""
    if rate_hz == RATE_HZ:
        return signal
    out: Float32Array = soxr.resample(signal, rate_hz, RATE_HZ)
    return out


def _margin(window: Window) -> int:
    return 0 if window.stream.rate_hz == RATE_HZ else MARGIN_FRAMES


def _frame_step(window: Window) -> int | None:
    """Ticks from one frame to the next; None where that is no whole number, or none is known."""
    rate_hz = window.stream.rate_hz
    if not len(window.t_ns) or rate_hz is None or rate_hz < MIN_RATE_HZ or rate_hz % FRAMES_PER_S:
        return None
    return int(rate_hz) // FRAMES_PER_S


PLUGIN = ImageBindAudio
