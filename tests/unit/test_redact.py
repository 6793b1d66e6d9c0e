"""What is told of an address: no password, and enough to find the camera by."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.redact import redact


@given(
    st.text("abc:@/?#%&=.s", max_size=12),
    st.text("abc:@/?#%&=.s", max_size=12),
    st.sampled_from(["http", "rtsp", "async:https"]),
)
def test_no_password_survives_redaction(before: str, after: str, scheme: str) -> None:
    shown = redact(f"{scheme}://user:{before}s3cret{after}@camera:554/live?key=s3cret")
    assert "s3cret" not in shown


def test_redaction_keeps_what_people_need() -> None:
    assert redact("rtsp://me:pw@camera:554/live/1?x=1#y") == "rtsp://camera:554/live/1"
    assert redact("http://[::1]:80") == "http://[::1]:80"
    assert redact("http://camera/a@b") == "http://camera/***"
    assert redact("films/me@home:1.mp4") == "films/me@home:1.mp4"
