"""Vectors and pictures for those who want more than events: the bulk socket, and the log."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from agent.clock import NS_PER_S
from agent.types import Embedding, Sample
from agent.wire import Attachment, EmbeddingMessage, Preview, Span, Time, WireStruct

__all__ = ["Previews", "embedding_message", "logged"]

PREVIEW_QUALITY = 75
FLOAT16 = "application/x-float16"
# (message, kind, stream, attachments)
Send = Callable[[WireStruct, str, str, Sequence[bytes]], None]


def embedding_message(
    embedding: Embedding, agent: str, boot_id: str
) -> tuple[EmbeddingMessage, list[bytes]]:
    """The message for the bus and its attachments, little-endian float16: the vector and, where
    there are views, theirs one after the other.
    """
    views = embedding.views
    vectors = [embedding.vector] if views is None else [embedding.vector, views.vectors]
    frames = [each.astype("<f2").tobytes() for each in vectors]
    message = EmbeddingMessage(
        agent=agent,
        boot_id=boot_id,
        stream=embedding.stream,
        modality=embedding.modality,
        space=embedding.space,
        dim=len(embedding.vector),
        window=Span(start=Time.of(embedding.start_ns), end=Time.of(embedding.end_ns)),
        reused=embedding.reused,
        views=list(views.regions) if views else [],
        attachments=[Attachment(media_type=FLOAT16, bytes=len(frame)) for frame in frames],
    )
    return message, frames


def logged(message: EmbeddingMessage, frames: Sequence[bytes]) -> EmbeddingMessage:
    """The same for a log, where a message has no attachments."""
    vector, *views = (base64.b64encode(frame).decode() for frame in frames)
    return msgspec.structs.replace(
        message, vector=vector, view_vectors="".join(views), attachments=[]
    )


class Previews:
    """A sink of a pump: at most `rate_hz` pictures a second of each image stream, as JPEG."""

    def __init__(self, rate_hz: float, agent: str, boot_id: str, send: Send) -> None:
        self._every_ns = round(NS_PER_S / rate_hz)
        self._agent, self._boot_id, self._send = agent, boot_id, send
        self._next_ns: dict[str, int] = {}

    def __call__(self, sample: Sample) -> None:
        """Driver threads, each with streams of its own."""
        info, t_ns = sample.stream, int(sample.t_ns[-1])
        due = t_ns >= self._next_ns.get(info.name, t_ns)
        if info.modality != "image" or sample.data.dtype != np.uint8 or not due:
            return
        from PIL import Image  # here, so that an agent without previews does not pay for it

        self._next_ns[info.name] = t_ns + self._every_ns
        file = io.BytesIO()
        Image.fromarray(sample.data[-1]).save(file, "JPEG", quality=PREVIEW_QUALITY)
        jpeg = file.getvalue()
        height, width = info.shape[:2]
        message = Preview(
            agent=self._agent,
            boot_id=self._boot_id,
            stream=info.name,
            time=Time.of(t_ns),
            width=width,
            height=height,
            attachments=[Attachment(media_type="image/jpeg", bytes=len(jpeg))],
        )
        self._send(message, "preview", info.name, [jpeg])
