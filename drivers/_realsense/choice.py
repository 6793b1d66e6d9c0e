"""Which RealSense, and which of its modes, a config asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agent.errors import DeviceNotFound
from drivers._realsense.config import KINDS, RealSenseConfig
from drivers._realsense.device import PERMISSION, Mode, best_mode, info_of, unreadable

__all__ = ["choose_device", "choose_modes"]


def choose_device(rs: Any, label: str, devices: Sequence[Any], config: RealSenseConfig) -> Any:
    """The device that the config names. Raises DeviceNotFound for none, and for several."""
    serials = [info_of(rs, device, "serial_number") for device in devices]
    there = ", ".join(f"serial:{serial}" for serial in serials) or "none at all"
    matching = [d for d, s in zip(devices, serials, strict=True) if config.serial in (None, s)]
    if not matching:
        hint = ""
        if config.playback is None and unreadable(set(serials)):
            hint = f"; one is on the USB bus, and {PERMISSION}"
        raise DeviceNotFound(f"{label}: no such device; there are: {there}{hint}")
    if len(matching) > 1:
        raise DeviceNotFound(f"{label}: there are several: {there}; set serial to one")
    return matching[0]


def choose_modes(
    label: str,
    there: Mapping[str, Sequence[Mode]],
    config: RealSenseConfig,
    differs: Callable[[str], None],
) -> dict[str, Mode]:
    """The mode of each kind of stream to open; `differs` is told where it is not as asked for.

    Raises DeviceNotFound for a stream that the device lacks.
    """
    wanted: Sequence[str] = config.streams or [s for s in KINDS if there.keys() >= set(KINDS[s])]
    kinds = [kind for sense in wanted for kind in KINDS[sense]]
    has = ", ".join(there) or "no stream of use"
    missing = [kind for kind in kinds if kind not in there]
    if missing or not kinds:
        raise DeviceNotFound(f"{label}: has no {' or '.join(missing or KINDS)}, but {has}")
    if config.align != "none" and not {"depth", "color"} <= set(kinds):
        raise DeviceNotFound(f"{label}: align needs depth and colour; it has {has}")
    chosen = {}
    for kind in kinds:
        chosen[kind], told = best_mode(there[kind], config.asked(kind))
        if told:
            choice = ", ".join(dict.fromkeys(str(mode) for mode in there[kind]))
            differs(f"{kind}: {'; '.join(told)}; it has {choice}")
    return chosen
