"""URLs for people: what a log, an error or a message may show of one."""

from __future__ import annotations

import re

__all__ = ["is_url", "redact", "redact_text"]


def is_url(source: str) -> bool:
    """True for scheme://..., False for a path."""
    return "://" in source


def redact(source: str) -> str:
    """`source` for people: a URL without user, password, query and fragment; a path as it is.

    A password that should have been percent-encoded can look like a host or a path: where an '@'
    comes later than it should, less is shown.
    """
    if not is_url(source):
        return source
    scheme, rest = source.split("://", 1)
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    after = rest[len(authority) :]
    login, _, host = authority.rpartition("@")
    if "@" in after:
        plain = not login and re.fullmatch(r"(\[[^]]*\]|[^:]*)(:\d+)?", host)
        return f"{scheme}://{host}/***" if plain else f"{scheme}://***"
    return f"{scheme}://{host}{re.split(r'[?#]', after, maxsplit=1)[0]}"


def redact_text(text: str) -> str:
    """`text` with every URL in it that has a login redacted."""
    return re.sub(r"[\w+.:-]+://[^\s'\"]*@[^\s'\"]*", lambda found: redact(found[0]), text)
