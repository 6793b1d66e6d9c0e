"""Optional packages: imported only by the module that uses them, named when missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from agent.errors import ConfigError

__all__ = ["needs_extra"]


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turn a failed import inside the block into one line that says what to install.

    Raises ConfigError naming the missing package and the pip extra that brings it.
    """
    try:
        yield
    except ImportError as exc:
        missing = exc.name or str(exc)
        raise ConfigError(
            f"package {missing!r} is not installed: "
            f"run  pip install 'sensebind[{extra}]'  (or pip install -e '.[{extra}]' in a checkout)"
        ) from exc
