"""A config from what is connected: a block a device, and the whole commented file around them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import yaml

from agent.config_file import build_config
from agent.contracts import Device
from agent.errors import ConfigError
from tools.device_search import Found

__all__ = ["block", "config_text", "refuse_twins", "twins", "without_doubles"]

HEAD = """\
# What was connected when this file was made, by: python -m tools.devices --write {name}
#   python -m agent --config {name} --check
#   python -m agent --config {name}
# Paths are relative to this file. Every field that can be set: python -m agent --schema
agent: sensebind             # one level of every topic on the bus

space:
  path: compact              # a folder with a space.yaml, or the name of a space that ships

# A driver that is not required is tried again until it is there; where required, the agent does
# not start without it. Its name is that of its streams.
drivers:
"""

TAIL = """
# What to listen and look for: words, a sound file or a picture, each answered by any sense unless
# `senses` or `streams` says which.
queries:
  - text: a dog barking
  - text: someone walking

match:
  max_age_s: 2.0             # older evidence does not count
  gate:
    enter: 0.7               # a score that starts an event ...
    exit: 0.4                # ... which ends when no score has reached this ...
    hold_s: 1.0              # ... for so long

bus:
  events: tcp://127.0.0.1:5556    # python -m tools.watch shows what goes over it
  control: tcp://127.0.0.1:5557
  score_hz: 2                     # live scores a second
"""

# What V4L2 calls cameras that another kind reads -> that kind.
V4L2_NAMES = {"RealSense": "realsense", "Boson": "flir", "PureThermal": "flir"}
MODES = 6  # of a device that are named in a comment


def block(found: Found) -> str:
    """The YAML of one driver, as it stands below `drivers:` but for its indent."""
    fields = {"kind": found.device.kind, **found.device.settings}
    text: str = yaml.safe_dump(
        {found.name: fields}, sort_keys=False, allow_unicode=True, width=1000
    )
    return text


def twins(devices: Iterable[Device]) -> list[list[Device]]:
    """Groups of devices that nothing of their own tells apart: only the port each is in, or not
    even that.
    """
    groups: dict[tuple[str, ...], list[Device]] = defaultdict(list)
    for device in devices:
        if device.by_port:
            groups["port", device.kind, device.name].append(device)
        else:
            groups["own", device.kind, device.identity].append(device)
    return [group for group in groups.values() if len(group) > 1]


def refuse_twins(devices: Iterable[Device]) -> None:
    """Raise ConfigError, one line, where a config could take one device for another."""
    for group in twins(devices):
        first = group[0]
        identities = " and ".join(device.identity for device in group)
        raise ConfigError(
            f"{first.kind} {first.name!r}: {identities} are identical and have no serial number "
            "of their own, so nothing was written; unplug all but one, or put the block of each "
            "into a config by hand: it then goes by the port it is plugged into"
        )


def without_doubles(found: Sequence[Found]) -> list[Found]:
    """`found`, where each that another may stand for has that as its problem.

    What has a name alone may be a way to another one: "default" and "pulse" are the same
    microphone, and so may be the card behind them. Of a kind's, "default" is taken, or the first;
    none of them where one of the kind is known by more than a name. And a device that has a kind
    of its own is a camera to V4L2 too.
    """
    usable = [each for each in found if not each.device.problem]
    best: dict[str, Found] = {}
    for each in sorted(usable, key=lambda each: (_name_alone(each), each.device.name != "default")):
        best.setdefault(each.device.kind, each)

    def doubt(each: Found) -> str:
        first = best[each.device.kind]
        if _name_alone(each) and each is not first:
            return f"only a name tells it, and it may be the same as {first.name}"
        for word, kind in V4L2_NAMES.items():
            if each.device.kind == "camera" and word in each.device.name and kind in best:
                return f"it is the same as {best[kind].name}"
        return ""

    return [
        each
        if each.device.problem
        else replace(each, device=replace(each.device, problem=doubt(each)))
        for each in found
    ]


def config_text(found: Sequence[Found], name: str) -> str:
    """A whole config with `found`; an unusable device is there as a comment that says why.

    Raises ConfigError where none is usable, where two cannot be told apart, and where a driver
    refuses what it offered itself.
    """
    refuse_twins(each.device for each in found)
    if not any(not each.device.problem for each in found):
        raise ConfigError(
            f"{name}: not written: found {len(found)} devices of which none can be used, "
            "expected at least one"
        )
    text = HEAD.format(name=name) + "\n".join(map(_entry, found)) + TAIL
    build_config(yaml.safe_load(text))
    return text


def _name_alone(found: Found) -> bool:
    return found.device.identity.startswith("name:")


def _entry(found: Found) -> str:
    device = found.device
    told = [f"{device.name}, {device.identity}"]
    if device.by_port:
        told.append("It has no serial number: this is whatever is plugged into that port.")
    if device.modes:
        more = f" and {len(device.modes) - MODES} more" if len(device.modes) > MODES else ""
        told.append(f"Gives {', '.join(device.modes[:MODES])}{more}.")
    told += _measured(found)
    lines = block(found).splitlines()
    if device.problem:
        told.append(f"Left out: {device.problem}")
        lines = [f"# {line}" for line in lines]
    else:
        lines.append("  required: false")
    comments = [f"# {' '.join(line.split())}" for line in told]
    return "".join(f"  {line}\n" for line in [*comments, *lines])


def _measured(found: Found) -> list[str]:
    if found.probe is None:
        return []
    rates = [
        f"{stream.stream} {stream.rate_hz:.2f} Hz"
        for stream in found.probe.streams
        if stream.rate_hz is not None
    ]
    told = [f"Measured: {', '.join(rates)}."] if rates else []
    return [*told, f"When tried: {found.probe.problem}"] if found.probe.problem else told
