"""One stream of each sense with made samples, for the tests of logs."""

from __future__ import annotations

import numpy as np

from agent.types import Array, Int64Array, Sample, StreamInfo

START_NS = 1_700_000_000_123_456_789

STREAMS = {
    "cam": StreamInfo("cam", "image", "uint8", (48, 64, 3), 30.0, "rgb8", frame_id="cam_optical"),
    "grey": StreamInfo("grey", "image", "uint8", (48, 64), 30.0, "mono8"),
    "depth": StreamInfo("depth", "depth", "uint16", (48, 64), 30.0, "mm"),
    "thermal": StreamInfo("thermal", "thermal", "uint16", (60, 80), 9.0, "counts"),
    "thermal8": StreamInfo("thermal8", "thermal", "uint8", (60, 80), 9.0, "mono8"),
    "celsius": StreamInfo("celsius", "thermal", "float32", (60, 80), 9.0, "c"),
    "mic": StreamInfo("mic", "audio", "int16", (2,), 48_000.0, "full_scale"),
    "mic_float": StreamInfo("mic_float", "audio", "float32", (1,), 16_000.0, "full_scale"),
    "imu": StreamInfo("imu", "imu", "float32", (6,), 200.0, "m/s^2,rad/s", frame_id="imu_link"),
    "radar": StreamInfo("radar", "radar", "float64", (2, 3), 10.0, "m"),
}
BLOCK = {"mic": 480, "mic_float": 160, "imu": 20}


def ticks(info: StreamInfo, count: int, rng: np.random.Generator) -> Array:
    """(count, *shape) of the stream's dtype; pictures are smooth, so that JPEG keeps them."""
    shape = (count, *info.shape)
    if info.modality == "image":
        rows, columns = np.mgrid[0 : info.shape[0], 0 : info.shape[1]]
        base = (rows * 2 + columns + rng.integers(0, 60)) % 256
        tail = (1,) * (len(info.shape) - 2)
        return np.broadcast_to(base.reshape(*base.shape, *tail), shape).astype(np.uint8)
    if info.dtype == "float32" and info.modality == "audio":
        return (rng.integers(-32768, 32768, shape) / 32768).astype(np.float32)
    if info.dtype.startswith("float"):
        return rng.normal(0, 20, shape).astype(info.dtype)
    limits = np.iinfo(info.dtype)
    return rng.integers(limits.min, limits.max, shape, info.dtype, endpoint=True)


def make_samples(info: StreamInfo, blocks: int, seed: int = 0, device: bool = True) -> list[Sample]:
    """Blocks with uneven stamps, a device clock of its own and a loss in the middle."""
    rng = np.random.default_rng(seed)
    size = BLOCK.get(info.name, 1)
    step_ns = 1e9 / (info.rate_hz or 1)
    samples, seq = [], 0
    for i in range(blocks):
        lost = 3 if i == blocks // 2 and i else 0
        seq += lost
        jitter = rng.integers(0, max(2, int(step_ns / 4)), size)
        offsets = np.rint((seq + np.arange(size)) * step_ns)
        t_ns: Int64Array = np.sort(START_NS + offsets.astype(np.int64) + jitter)
        samples.append(
            Sample(
                stream=info,
                seq=seq,
                t_ns=t_ns,
                arrival_ns=int(t_ns[-1]) + 1_000_000 + int(rng.integers(0, 1000)),
                data=ticks(info, size, rng),
                device_t_ns=t_ns - START_NS + 42 if device else None,
                lost=lost,
            )
        )
        seq += size
    return samples
