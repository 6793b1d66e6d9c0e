"""Putting a source's own time line on the agent's clock: exact stamps, and waits that end."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from agent.clock import NS_PER_S, Clock, from_s, to_s
from agent.errors import NotDue
from agent.types import Int64Array

__all__ = ["ns_per_s", "ticks_ns", "wait_until_due"]


def ns_per_s(speed: float) -> Fraction:
    """Nanoseconds on the agent's clock for a second of a source played at `speed`.

    Speed 0 is unpaced and keeps the source's own time line, as speed 1 does. Speeds are taken to
    0.001: exact for all that people write down, and `ticks_ns` stays within int64.
    """
    exact = Fraction(speed or 1).limit_denominator(1000)
    return NS_PER_S / max(exact, Fraction(1, 1000))


def ticks_ns(first_ns: Fraction | int, step_ns: Fraction, count: int) -> Int64Array:
    """int64 (count,): first + k * step, each rounded down to 1 ns from its exact value."""
    whole_ns, rest_ns = divmod(first_ns, 1)
    # In units of 1 / denominator. What is cut off of `rest_ns` is less than one of them, and so
    # cannot carry into a nanosecond: the result is exact, and stays within int64.
    units = np.arange(count, dtype=np.int64) * step_ns.numerator
    units += math.floor(rest_ns * step_ns.denominator)
    return int(whole_ns) + units // step_ns.denominator


def wait_until_due(clock: Clock, due_ns: int, timeout_s: float, label: str) -> None:
    """Sleep until `due_ns`; where that is later than `timeout_s` from now, only until then.

    Raises NotDue, beginning with `label`, in the second case.
    """
    deadline_ns = clock.now_ns() + from_s(timeout_s)
    clock.wait_until_ns(min(due_ns, deadline_ns))
    if due_ns > deadline_ns:
        left_s = to_s(due_ns - deadline_ns)
        raise NotDue(f"{label}: the next block is due in {left_s:.3f} s")
