"""What a sense is varied by while its tower learns: batches of views in, as many out.

Each function takes float32 (n, *view_shape) as the preprocessing made it and a seeded generator,
and gives a new tensor of the same shape; the anchors stay as they are, so that nothing here may
change what a view is of. The ranges are compact-recipe's, sections 2 to 5.

Needs the extra `bind`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from agent.errors import ConfigError
from agent.extras import needs_extra
from encoders.preprocess.audio import LOG_OFFSET, LOG_SCALE, POWER_FLOOR

with needs_extra("bind"):
    import torch
    from torch import Tensor
    from torch.nn import functional

__all__ = [
    "AUGMENTS",
    "Mix",
    "Mixed",
    "augment_for",
    "grid",
    "log_mel",
    "mix_log_mel",
    "motion",
    "picture",
    "signal",
    "wrist",
]

SPEED = (0.85, 1.18)
GAIN_DB = 10.0
NOISE_RMS = (1e-4, 2e-2)  # of full scale, for sound of RMS 0.1
MEL_GAIN = 100.0 / 4  # power in a mel band (area 100) over noise variance, for a Hann window: about
MIX_CHANCE, MIX_GAIN = 0.4, (0.02, 0.3)  # another clip as background, in power
BAND_SHIFT = 0.05  # of the bands, each way: another voice, another size of animal
TILT_DB = 6.0  # from the lowest band to the highest, each way
MASK = 1 / 6  # of an axis, at most

ROTATION_RAD = math.radians(12)
ONE_G = 0.981  # of accelerations over 10 m/s^2
NO_GRAVITY = 0.3  # of one g: under it a recording had gravity taken out by its maker

CROP = (0.75, 1.0)
TURN_RAD = 0.1
SHIFT = 0.08

Generator = torch.Generator
Augment = Callable[[Tensor, Generator], Tensor]


class Mixed(NamedTuple):
    """views: (n, ...), each mixed with that of the batch's number `other`, int64 (n,). share:
    float (n,), 0.5..1, of its own; 1 where nothing was mixed in.
    """

    views: Tensor
    other: Tensor
    share: Tensor


Mix = Callable[[Tensor, Generator], Mixed]


def log_mel(views: Tensor, rng: Generator) -> Tensor:
    """(n, 1, bands, frames) of encoders.preprocess.audio: speed, place, pitch, a quieter clip
    behind it, gain, spectral tilt, noise, and one band and one stretch of time silent.
    """
    count, _, bands, frames = views.shape
    moved = _warp_time(views, _uniform(count, *SPEED, rng), _uniform(count, -0.25, 0.25, rng))
    pitch = _uniform(count, -BAND_SHIFT, BAND_SHIFT, rng)
    moved = _warp_time(moved.mT, torch.ones(count), pitch).mT
    power = (moved * LOG_SCALE - LOG_OFFSET).exp()
    behind = power[torch.randperm(count, generator=rng)]
    share = _uniform(count, *MIX_GAIN, rng) * (_uniform(count, 0, 1, rng) < MIX_CHANCE)
    power = power + _wide(share, views) * behind
    decibel = _uniform(count, -GAIN_DB, GAIN_DB, rng)[:, None] + torch.outer(
        _uniform(count, -TILT_DB, TILT_DB, rng), torch.linspace(-1, 1, bands)
    )
    power = power * (10 ** (decibel / 10))[:, None, :, None]
    low, high = (math.log(rms) for rms in NOISE_RMS)
    noise = _uniform(count, low, high, rng).exp() ** 2 * MEL_GAIN
    # Power of noise in one frame is exponentially distributed about its mean.
    random = -torch.rand(views.shape, generator=rng).clamp_min(1e-7).log()
    power = power + _wide(noise, views) * random
    power = power * _mask(count, bands, rng)[:, None, :, None]
    power = power * _mask(count, frames, rng)[:, None, None, :]
    return ((power + POWER_FLOOR).log() + LOG_OFFSET) / LOG_SCALE


def mix_log_mel(views: Tensor, rng: Generator, chance: float) -> Mixed:
    """Views as of `log_mel`, with `chance` each heard together with another of them: amplitudes in
    the ratio share to 1 - share, the power of the whole kept (Tokozume et al. 2018, "Learning from
    Between-class Examples", arXiv:1711.10282, for sounds of one loudness).
    """
    count = len(views)
    other = torch.randperm(count, generator=rng)
    mixed = _uniform(count, 0, 1, rng) < chance
    share = torch.where(mixed, _uniform(count, 0.5, 1, rng), 1.0)
    power = (views * LOG_SCALE - LOG_OFFSET).exp()
    own, added = _wide(share**2, views), _wide((1 - share) ** 2, views)
    power = (own * power + added * power[other]) / (own + added)
    return Mixed((power.clamp_min(POWER_FLOOR).log() + LOG_OFFSET) / LOG_SCALE, other, share)


def motion(views: Tensor, rng: Generator) -> Tensor:
    """(n, 6, length) of encoders.preprocess.imu with its scales of 10 and 3: speed, a small turn of
    the unit, gain, noise, and one g in any direction on half of those that have none.
    """
    count = len(views)
    halves = views.reshape(count, 2, 3, -1)
    level = halves[:, 0].mean(-1)
    free = (level.norm(dim=1) < NO_GRAVITY * ONE_G) & (torch.rand(count, generator=rng) < 0.5)
    gravity = functional.normalize(torch.randn(count, 3, generator=rng), dim=1) * ONE_G
    pull = torch.stack([gravity * free[:, None], torch.zeros_like(gravity)], 1)[..., None]
    axis = torch.randn(count, 3, generator=rng) * ROTATION_RAD
    turned = torch.einsum("nij,nhjt->nhit", _rotation(axis), halves + pull)
    moved = _warp_time(turned.reshape(views.shape), _uniform(count, *SPEED, rng), None)
    gained = moved * _wide(_uniform(count, 0.9, 1.1, rng), views)
    return gained + 0.02 * torch.randn(views.shape, generator=rng)


def wrist(views: Tensor, rng: Generator) -> Tensor:
    """As `motion`, for a watch with x along the forearm: half of the views as if it were worn on
    the other wrist, and one stretch of time held at the view's mean.

    A reflection along x turns that acceleration round, and the rotations about y and z.
    """
    count = len(views)
    other = torch.tensor([-1.0, 1, 1, 1, -1, -1]).view(6, 1)
    worn = torch.where(_wide(_uniform(count, 0, 1, rng) < 0.5, views), views * other, views)
    return _masked(motion(worn, rng), rng)


def signal(views: Tensor, rng: Generator) -> Tensor:
    """(n, channels, length) of any sense: speed, gain of each channel, noise of a part of the
    view's own deviation, and one stretch of time held at the view's mean.
    """
    count, channels, _ = views.shape
    moved = _warp_time(views, _uniform(count, *SPEED, rng), None)
    gain = 1 + 0.1 * torch.randn(count, channels, 1, generator=rng)
    noise = 0.05 * views.std(dim=(1, 2), keepdim=True, correction=0)
    return _masked(moved * gain + noise * torch.randn(views.shape, generator=rng), rng)


def picture(views: Tensor, rng: Generator) -> Tensor:
    """(n, channels, rows, columns): crop, shift, small turn, mirror image, contrast, brightness,
    noise.
    """
    return _picture(views, rng, mirror=True)


def grid(views: Tensor, rng: Generator) -> Tensor:
    """As `picture`, never mirrored: left and right of a touch mat or a radar map differ."""
    return _picture(views, rng, mirror=False)


def augment_for(preprocess: str, name: str | None = None) -> Augment | None:
    """The function `name`, or where it is None the one that suits a preprocessing; None for
    "none", and for a preprocessing that there is none for. Raises ConfigError for another name.
    """
    if name == "none":
        return None
    if name is None:
        return _SUITS.get(preprocess)
    if name not in AUGMENTS:
        raise ConfigError(f"augment: {name!r}, expected none or one of {', '.join(AUGMENTS)}")
    return AUGMENTS[name]


def _picture(views: Tensor, rng: Generator, mirror: bool) -> Tensor:
    count = len(views)
    scale = _uniform(count, *CROP, rng)
    angle = TURN_RAD * torch.randn(count, generator=rng)
    side = torch.where(torch.rand(count, generator=rng) < 0.5, -1.0, 1.0) if mirror else 1.0
    cos, sin = scale * angle.cos(), scale * angle.sin()
    shift = _uniform(2 * count, -SHIFT, SHIFT, rng).reshape(2, count)
    rows = [
        torch.stack([side * cos, -sin, shift[0]], 1),
        torch.stack([side * sin, cos, shift[1]], 1),
    ]
    places = functional.affine_grid(torch.stack(rows, 1), list(views.shape), align_corners=False)
    moved = functional.grid_sample(views, places, padding_mode="reflection", align_corners=False)
    mean = moved.mean(dim=(1, 2, 3), keepdim=True)
    contrast = _wide(_uniform(count, 0.75, 1.25, rng), views)
    bright = _wide(_uniform(count, -0.2, 0.2, rng), views)
    return (
        mean + (moved - mean) * contrast + bright + 0.02 * torch.randn(views.shape, generator=rng)
    )


def _uniform(count: int, low: float, high: float, rng: Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=rng)


def _wide(values: Tensor, views: Tensor) -> Tensor:
    """(n,) to (n, 1, ...), as many axes as the views have."""
    return values.reshape(-1, *[1] * (views.ndim - 1))


def _warp_time(views: Tensor, speed: Tensor, shift: Tensor | None) -> Tensor:
    """The last axis played at `speed` (n,) about its middle, moved by `shift` (n,) of its length;
    the ends are held.
    """
    length = views.shape[-1]
    middle = (length - 1) / 2
    places = middle + (torch.arange(length) - middle) * speed[:, None]
    if shift is not None:
        places = places + length * shift[:, None]
    places = places.clamp(0, length - 1)
    low = places.floor().long().clamp(max=max(0, length - 2))
    part = (places - low).reshape(len(views), *[1] * (views.ndim - 2), length)
    index = low.reshape(part.shape).expand(views.shape)
    after = views.gather(-1, (index + 1).clamp(max=length - 1))
    return torch.lerp(views.gather(-1, index), after, part)


def _mask(count: int, length: int, rng: Generator) -> Tensor:
    """(n, length): ones, with one stretch of zeros of up to MASK of the length."""
    width = _uniform(count, 0, MASK * length, rng)
    start = torch.rand(count, generator=rng) * (length - width)
    places = torch.arange(length)
    inside = (places >= start[:, None]) & (places < (start + width)[:, None])
    return (~inside).float()


def _masked(views: Tensor, rng: Generator) -> Tensor:
    """(n, channels, length) with one stretch of time at the channel's mean."""
    mean = views.mean(-1, keepdim=True)
    return mean + (views - mean) * _mask(len(views), views.shape[-1], rng)[:, None, :]


def _rotation(vectors: Tensor) -> Tensor:
    """(n, 3, 3) of rotation vectors (n, 3) in rad: the exponential of the cross product."""
    x, y, z = vectors.T
    zero = torch.zeros_like(x)
    rows = [torch.stack(row, 1) for row in ((zero, -z, y), (z, zero, -x), (-y, x, zero))]
    turn: Tensor = torch.linalg.matrix_exp(torch.stack(rows, 1))
    return turn


AUGMENTS: Mapping[str, Augment] = {
    "grid": grid,
    "log_mel": log_mel,
    "motion": motion,
    "picture": picture,
    "signal": signal,
    "wrist": wrist,
}
_SUITS: Mapping[str, Augment] = {
    "audio": log_mel,
    "depth": picture,
    "grid": grid,
    "image": picture,
    "imu": motion,
    "signal": signal,
    "thermal": picture,
}
