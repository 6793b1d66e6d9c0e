"""Values that many fields of a config have, with their ranges: a wrong one is refused as read."""

from __future__ import annotations

from typing import Annotated

import msgspec

from agent.types import NAME_PATTERN

__all__ = ["Name", "NotNegative", "Positive", "Unit"]

# As seconds 31 years, and in ns still an int64, of which several can be added up.
MOST = 1e9

Name = Annotated[str, msgspec.Meta(pattern=f"^{NAME_PATTERN}$")]
Positive = Annotated[float, msgspec.Meta(gt=0, le=MOST)]
NotNegative = Annotated[float, msgspec.Meta(ge=0, le=MOST)]
Unit = Annotated[float, msgspec.Meta(ge=0, le=1)]
