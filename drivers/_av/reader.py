"""One pass over a file or a network source with PyAV: tracks found, blocks in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from agent.errors import BadData, DeviceLost, DeviceNotFound
from agent.extras import needs_extra
from agent.redact import is_url, redact
from drivers._av.tracks import AudioTrack, Block, VideoTrack

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.error import FFmpegError
    from av.packet import Packet

__all__ = ["MediaReader"]

# Containers interleave tracks within about a second; a track that is silent for longer than this
# is no longer waited for, so that the packets of the others do not pile up.
MAX_LEAD_S = 2
# A local file that cannot be read on after so many attempts in a row has ended.
MAX_READ_ERRORS = 16


class MediaReader:
    """One pass over a source: its tracks' blocks in the order in which they are complete.

    name: the driver's; tracks are named after it. source: a path, an image pattern
    ("frame_%04d.png") or a URL. max_width, max_height: limits of a picture in pixels. timeout_s:
    how long a network source may be silent. now_ns: read once a packet, just after it has arrived.

    Raises DeviceNotFound where the source cannot be opened, ConfigError where PyAV is missing.
    """

    def __init__(
        self,
        name: str,
        source: str,
        max_width: int | None,
        max_height: int | None,
        timeout_s: float,
        now_ns: Callable[[], int],
    ) -> None:
        with needs_extra("media"):
            import av
        self._ffmpeg_error, self._exit_error = av.FFmpegError, av.error.ExitError
        self._cover = av.stream.Disposition.attached_pic
        self._label = f"media {name}: {redact(source)}"
        self._remote = is_url(source)
        self._now_ns = now_ns
        self._errors: deque[BadData] = deque()
        self._read_errors = 0
        self._ended = False
        # Over UDP, the default, an RTSP camera's picture breaks up with each packet lost.
        options = {"rtsp_transport": "tcp"} if source.startswith("rtsp") else {}
        self._timeout_s = timeout_s
        timeout = timeout_s if self._remote else None
        try:
            self._container: InputContainer = av.open(
                source, options=options, timeout=timeout, metadata_errors="replace"
            )
        except av.FFmpegError as exc:
            raise self._cannot_open(exc) from exc
        try:
            self.tracks = self._find_tracks(name, max_width, max_height)
            self._by_index = {t.stream.index: t for t in self.tracks}
            # A network source of unknown length and size is live: it sets the pace itself.
            self.live = (
                self._remote and self._container.duration is None and self._container.size <= 0
            )
            flags = av.format.Flags(self._container.format.flags)
            self.has_stamps = not flags & av.format.Flags.no_timestamps
            self._demuxer = self._demux()
            self._fill(all_tracks=True)
            starts_s = [t.blocks[0].time_s for t in self.tracks if t.blocks]
            if not starts_s:
                raise DeviceNotFound(f"{self._label}: nothing in it can be decoded")
            self.origin_s = min(starts_s)
        except DeviceNotFound:
            self.close()
            raise
        except DeviceLost as exc:
            self.close()
            raise DeviceNotFound(str(exc)) from exc

    def close(self) -> None:
        """Release the file or connection. Idempotent."""
        self._container.close()

    def next(self) -> tuple[int, Block] | None:
        """The next block and the index of its track in `tracks`; None at the end, again and again.

        Raises BadData once for each packet that cannot be decoded and goes on after it; DeviceLost
        when a network source fails, falls silent, or is live and ends.
        """
        self._fill(all_tracks=not self.live)
        if self._errors:
            raise self._errors.popleft()
        ready = [(t.blocks[0].last_s, i) for i, t in enumerate(self.tracks) if t.blocks]
        if not ready:
            if self.live:
                raise DeviceLost(f"{self._label}: the source has ended the connection")
            return None
        index = min(ready)[1]
        return index, self.tracks[index].blocks.popleft()

    def _cannot_open(self, exc: FFmpegError) -> DeviceNotFound:
        reason = self._reason(exc)
        if isinstance(exc, FileNotFoundError):
            reason = "no such file"
        elif isinstance(exc, ValueError):
            reason = f"not a media file, or damaged ({reason})"
        return DeviceNotFound(f"{self._label}: {reason}")

    def _reason(self, exc: FFmpegError) -> str:
        """What FFmpeg says. Strips from `exc` the URL, which may hold a password."""
        exc.args = exc.args[:2]
        if isinstance(exc, self._exit_error):  # by PyAV's own timeout
            return f"silent for {self._timeout_s:g} s"
        return (exc.strerror or type(exc).__name__).lower()

    def _find_tracks(
        self, name: str, max_width: int | None, max_height: int | None
    ) -> list[VideoTrack | AudioTrack]:
        # A track without a decoder has None for its codec context, whatever PyAV's stubs say.
        streams, tracks = self._container.streams, list[VideoTrack | AudioTrack]()
        for video in streams.video:
            cover = bool(video.disposition & self._cover)
            if getattr(video.codec_context, "width", 0) and not cover:
                tracks.append(VideoTrack(video, max_width, max_height))
        for audio in streams.audio:
            if getattr(audio.codec_context, "sample_rate", 0):
                tracks.append(AudioTrack(audio))
        if not tracks:
            raise DeviceNotFound(f"{self._label}: no video or audio track that can be decoded")
        kinds = list[str]()
        for track in tracks:
            kinds.append(track.kind)
            number = kinds.count(track.kind)
            suffix = f"_{track.kind}" + (f"_{number}" if number > 1 else "")
            track.name = name + suffix if len(tracks) > 1 else name
        return tracks

    def _demux(self) -> Iterator[Packet[Any]]:
        return self._container.demux([t.stream for t in self.tracks])

    def _fill(self, all_tracks: bool) -> None:
        """Read on until each track has a block, or any of them unless `all_tracks`."""
        while True:
            empty = [t for t in self.tracks if not t.blocks and (t.packets or not self._ended)]
            behind = next((t for t in empty if t.packets), None)
            if behind is not None:
                self._decode(behind)
                continue
            heads = [t.blocks[0].last_s for t in self.tracks if t.blocks]
            if not empty or (heads and (not all_tracks or self._lead_s(min(heads)) > MAX_LEAD_S)):
                return
            self._read_packet()

    def _lead_s(self, head_s: Fraction) -> Fraction:
        """How far the file has been read beyond `head_s`."""
        return max(t.demuxed_to_s or head_s for t in self.tracks) - head_s

    def _read_packet(self) -> None:
        try:
            packet = next(self._demuxer, None)
        except self._ffmpeg_error as exc:
            reason = self._reason(exc)
            if self._remote:
                raise DeviceLost(f"{self._label}: connection lost ({reason})") from exc
            self._report(f"{self._label}: cannot be read here ({reason})", exc)
            self._read_errors += 1
            # A generator that has raised is over, but the file may be good further on.
            self._demuxer = self._demux()
            if self._read_errors >= MAX_READ_ERRORS:
                packet = None
            else:
                return
        if packet is None:
            self._ended = True
            return
        self._read_errors = 0
        # Not packet.stream_index, which is 0 in the packets that flush the decoders at the end.
        self._by_index[packet.stream.index].push(packet, self._now_ns())

    def _decode(self, track: VideoTrack | AudioTrack) -> None:
        packet, arrival_ns = track.packets.popleft()
        try:
            frames: Sequence[Any] = packet.decode()
        except EOFError:  # the decoder has been flushed before a file was found to go on
            return
        except self._ffmpeg_error as exc:
            track.skip()
            self._report(f"{self._label}: {track.name}: bad packet ({self._reason(exc)})", exc)
            return
        for frame in frames:
            track.add(frame, arrival_ns)

    def _report(self, message: str, exc: FFmpegError) -> None:
        error = BadData(message)
        error.__cause__ = exc
        self._errors.append(error)
