"""The media driver on real files and a real local HTTP server."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from agent.clock import NS_PER_S, Clock, ManualClock, SystemClock
from agent.contracts import Driver
from agent.errors import (
    BadData,
    ConfigError,
    DeviceLost,
    DeviceNotFound,
    DriverError,
    EndOfStream,
    ReadTimeout,
)
from agent.redact import redact
from agent.types import Sample
from drivers._av.reader import MediaReader
from drivers.media import PLUGIN, MediaConfig, MediaDriver
from tests.contracts.driver_contract import (
    START_NS,
    DriverContract,
    LiveDriverContract,
    by_stream,
    read_all,
)
from tests.fakes.clips import corrupt, packet_times, tone, write_clip

LOGIN = "me:s3cret@"
NTSC = Fraction(1001, 30000)


def pictures(count: int, size: tuple[int, int] = (64, 48)) -> list[np.ndarray]:
    """Grey pictures, each of another shade than the one before."""
    return [np.full((size[1], size[0], 3), 8 * (n % 30), np.uint8) for n in range(count)]


def build(source: Path | str, clock: Clock | None = None, **fields: Any) -> MediaDriver:
    """A driver named `cam`, unpaced unless said otherwise."""
    place = {"url": source} if isinstance(source, str) else {"path": source}
    config = MediaConfig(**place, **{"speed": 0, **fields})
    return PLUGIN("cam", config, clock or ManualClock(START_NS))


def play(source: Path | str, **fields: Any) -> dict[str, list[Sample]]:
    driver = build(source, **fields)
    driver.connect()
    try:
        return by_stream(list(read_all(driver, 100_000)))
    finally:
        driver.disconnect()


def play_damaged(source: Path | str, **fields: Any) -> tuple[list[Sample], list[str], DriverError]:
    """All samples, what BadData said, and the error that it ended with."""
    driver = build(source, **fields)
    driver.connect()
    samples: list[Sample] = []
    told: list[str] = []
    while True:
        try:
            samples += driver.read(1)
        except BadData as exc:
            told.append(str(exc))
        except DriverError as exc:
            driver.disconnect()
            return samples, told, exc


def times(blocks: list[Sample]) -> np.ndarray:
    """Stamps of all ticks in ns from START_NS."""
    return np.concatenate([b.t_ns for b in blocks]) - START_NS


def content(blocks: list[Sample]) -> np.ndarray:
    return np.concatenate([b.data for b in blocks])


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One second of 30 Hz video and 48 kHz stereo sound."""
    path = tmp_path_factory.mktemp("media") / "clip.mp4"
    sound = tone(48000, 48000, channels=2)
    faststart = {"movflags": "faststart"}
    return write_clip(path, frames=pictures(30), sound=sound, options=faststart)


class FileContract(DriverContract):
    @pytest.fixture
    def broken(self, clip: Path, clock: Clock, tmp_path: Path) -> tuple[Driver, Callable[[], Any]]:
        path = tmp_path / "late.mp4"
        return build(path, clock, speed=1), lambda: path.write_bytes(clip.read_bytes())


class TestPaced(FileContract):
    @pytest.fixture
    def make_driver(self, clip: Path, clock: Clock) -> Callable[[], Driver]:
        return lambda: build(clip, clock, speed=1)


class TestUnpaced(FileContract):
    @pytest.fixture
    def make_driver(self, clip: Path, clock: Clock) -> Callable[[], Driver]:
        return lambda: build(clip, clock)


class TestLooping(FileContract):
    finite = False
    max_reads = 300

    @pytest.fixture
    def make_driver(self, clip: Path, clock: Clock) -> Callable[[], Driver]:
        return lambda: build(clip, clock, speed=1, loop=True)


class TestLiveUrl(LiveDriverContract):
    @pytest.fixture
    def make_driver(self, server: Server, clock: Clock) -> Callable[[], Driver]:
        return lambda: build(server.url("mjpeg"), clock)


class TestTimes:
    """Presentation times, against what the packets say."""

    def test_no_drift_between_tracks_over_five_minutes(self, tmp_path: Path) -> None:
        count, rate = 300 * 30, 8000
        sound = tone(300 * rate, rate)
        path = write_clip(
            tmp_path / "long.mov",
            frames=pictures(count, (16, 16)),
            time_base=NTSC,
            sound=sound,
            rate=rate,
            codecs=("mpeg4", "pcm_s16le"),
        )
        streams = play(path, speed=1)
        video, audio = times(streams["cam_video"]), times(streams["cam_audio"])
        exact_video = [int(n * NTSC * NS_PER_S) for n in range(count)]
        np.testing.assert_array_equal(video, exact_video)
        exact_audio = np.arange(len(sound)) * (NS_PER_S // rate)
        np.testing.assert_array_equal(audio, exact_audio)
        np.testing.assert_array_equal(content(streams["cam_audio"]), sound)

    def test_a_flash_and_a_click_made_together_are_stamped_together(self, tmp_path: Path) -> None:
        rate, at = 48000, [10, 25, 55]
        frames = [np.full((48, 64, 3), 255 * (n in at), np.uint8) for n in range(60)]
        sound = np.zeros((2 * rate, 1), np.int16)
        sound[[n * rate // 30 for n in at]] = 20000
        path = tmp_path / "sync.mkv"
        streams = play(write_clip(path, frames=frames, sound=sound, codecs=("mpeg4", "flac")))
        bright = content(streams["cam_video"]).mean((1, 2, 3)) > 128
        loud = content(streams["cam_audio"])[:, 0] > 10000
        apart_ns = times(streams["cam_video"])[bright] - times(streams["cam_audio"])[loud]
        assert len(apart_ns) == 3
        assert np.abs(apart_ns).max() <= 1_000_000  # Matroska's time base is 1 ms

    def test_variable_frame_rate_keeps_each_pictures_own_time(self, tmp_path: Path) -> None:
        pts = [0, 1001, 1777, 9000, 9001, 90000, 91003, 270001]
        base = Fraction(1, 90000)
        path = write_clip(tmp_path / "v.mp4", frames=pictures(8), pts=pts, time_base=base)
        blocks = play(path)["cam"]
        assert times(blocks).tolist() == [p * NS_PER_S // 90000 for p in pts]
        shades = content(blocks).mean((1, 2, 3))
        np.testing.assert_allclose(shades, [8 * n for n in range(8)], atol=3)

    @pytest.mark.parametrize(
        ("name", "codecs", "within_ns"),
        [
            ("a.mp4", ("libx264", "aac"), 2),
            ("a.mkv", ("libx264", "flac"), 1_000_000),
            ("a.avi", ("mpeg4", "pcm_s16le"), 2),
            ("a.webm", ("libvpx", "libopus"), 1_000_000),
            ("a.ts", ("libx264", "aac"), 20_000),
        ],
    )
    def test_containers(
        self, tmp_path: Path, name: str, codecs: tuple[str, str], within_ns: int
    ) -> None:
        """Both tracks on one line that begins with the first of them; sound without seams."""
        path = write_clip(
            tmp_path / name, frames=pictures(60), sound=tone(96000, 48000, 2), codecs=codecs
        )
        packets, streams = packet_times(path), play(path)
        video, audio = times(streams["cam_video"]), times(streams["cam_audio"])
        assert min(video[0], audio[0]) == 0
        exact_ns = [(t - packets["video"][0]) * NS_PER_S for t in packets["video"]]
        np.testing.assert_allclose(video - video[0], np.array(exact_ns, float), atol=1)
        first_ns = (packets["audio"][0] - packets["video"][0]) * NS_PER_S
        assert abs(audio[0] - video[0] - first_ns) <= within_ns
        assert set(np.diff(audio)) <= {20832, 20833, 20834}
        assert all(b.lost == 0 for blocks in streams.values() for b in blocks)
        assert abs(len(audio) - 96000) <= 2048

    def test_a_track_that_begins_late_is_late(self, tmp_path: Path) -> None:
        path = write_clip(
            tmp_path / "late.mov",
            frames=pictures(150),
            sound=tone(8000, 8000),
            rate=8000,
            sound_from=32000,
            codecs=("mpeg4", "pcm_s16le"),
        )
        streams = play(path, speed=1)
        assert times(streams["cam_video"])[0] == 0
        assert times(streams["cam_audio"])[0] == 4 * NS_PER_S
        arrivals = [b.arrival_ns - START_NS for b in streams["cam_audio"]]
        assert arrivals[0] < 4.2 * NS_PER_S

    def test_a_silent_track_does_not_pile_up_the_other(self, tmp_path: Path) -> None:
        path = write_clip(
            tmp_path / "late.mov",
            frames=pictures(300),
            sound=tone(800, 8000),
            rate=8000,
            sound_from=72000,
            codecs=("mpeg4", "pcm_s16le"),
        )
        reader = MediaReader("cam", str(path), None, None, 1.0, SystemClock().now_ns)
        assert sum(len(track.packets) for track in reader.tracks) < 100
        reader.close()

    def test_delayed_pictures_are_given_at_the_end_whatever_the_order_of_tracks(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "a.mp4"
        write_clip(path, frames=pictures(30), sound=tone(48000, 48000), sound_first=True)
        streams = play(path)
        assert streams["cam_audio"][0].stream.topic.endswith("#0")
        assert len(streams["cam_video"]) == 30

    def test_an_unpaced_reconnect_goes_on_after_the_last_stamp(self, clip: Path) -> None:
        driver = build(clip)
        driver.connect()
        first = [s.t_ns for s in read_all(driver, 50)]
        driver.connect()
        second = [s.t_ns for s in read_all(driver, 50)]
        driver.disconnect()
        shift_ns = second[0][0] - first[0][0]
        assert second[0][0] == max(t_ns[-1] for t_ns in first)
        for before, after in zip(first, second, strict=True):
            np.testing.assert_array_equal(before + shift_ns, after)

    def test_blocks_come_in_order_of_completion(self, clip: Path) -> None:
        driver = build(clip)
        driver.connect()
        last = [int(s.t_ns[-1]) for s in read_all(driver, 1000)]
        driver.disconnect()
        assert last == sorted(last)
        assert len(last) > 70

    @pytest.mark.parametrize("speed", [0.5, 1.0, 1.1, 8.0])
    def test_speed_scales_stamps_exactly_and_paces(self, clip: Path, speed: float) -> None:
        clock = ManualClock(START_NS)
        streams = play(clip, clock=clock, speed=speed)
        scale = Fraction(speed).limit_denominator(1000)
        exact = [int(Fraction(n, 30) * NS_PER_S / scale) for n in range(30)]
        assert times(streams["cam_video"]).tolist() == exact
        for block in streams["cam_video"]:
            assert block.arrival_ns == block.t_ns[-1]  # decoded before it is due, given when due

    def test_at_true_speed_on_the_real_clock(self, clip: Path) -> None:
        clock = SystemClock()
        before_ns = clock.now_ns()
        streams = play(clip, clock=clock, speed=1)
        assert clock.now_ns() - before_ns >= 29 * NS_PER_S // 30
        for block in (b for blocks in streams.values() for b in blocks):
            assert block.arrival_ns >= block.t_ns[-1]

    def test_a_loop_goes_on_where_the_last_pass_ended(self, tmp_path: Path) -> None:
        path = tmp_path / "loop.mov"
        write_clip(path, frames=pictures(30), sound=tone(8000, 8000), rate=8000,
                   codecs=("mpeg4", "pcm_s16le"))  # fmt: skip
        driver = build(path, loop=True)
        driver.connect()
        streams = by_stream(list(read_all(driver, 300)))
        driver.disconnect()
        video, audio = times(streams["cam_video"]), times(streams["cam_audio"])
        assert len(video) > 90
        assert video.tolist() == [n * NS_PER_S // 30 for n in range(len(video))]
        np.testing.assert_array_equal(audio, np.arange(len(audio)) * 125_000)
        np.testing.assert_array_equal(content(streams["cam_audio"])[8000:16000], tone(8000, 8000))

    def test_a_loop_whose_file_goes_away_is_a_lost_device(self, clip: Path, tmp_path: Path) -> None:
        path = tmp_path / "gone.mp4"
        path.write_bytes(clip.read_bytes())
        driver = build(path, loop=True)
        driver.connect()
        path.unlink()
        with pytest.raises(DeviceLost, match=r"gone\.mp4: no such file \(while looping\)"):
            list(read_all(driver, 1000))


class TestSound:
    @pytest.mark.parametrize(
        ("name", "rate", "channels"),
        [("a.wav", 8000, 1), ("a.wav", 44100, 2), ("a.flac", 48000, 2), ("a.wav", 48000, 7)],
    )
    def test_lossless_files_come_bit_for_bit(
        self, tmp_path: Path, name: str, rate: int, channels: int
    ) -> None:
        sound = tone(3 * rate + 17, rate, channels)
        soundfile.write(tmp_path / name, sound, rate, subtype="PCM_16")
        driver = build(tmp_path / name)
        driver.connect()
        (info,) = driver.streams
        blocks = list(read_all(driver, 10_000))
        driver.disconnect()
        assert (info.name, info.modality, info.rate_hz) == ("cam", "audio", rate)
        assert (info.dtype, info.shape, info.unit) == ("int16", (channels,), "full_scale")
        np.testing.assert_array_equal(content(blocks), sound)
        exact = [n * NS_PER_S // rate for n in range(len(sound))]
        assert times(blocks).tolist() == exact
        assert max(map(len, blocks)) <= rate / 10

    @pytest.mark.parametrize("subtype", ["FLOAT", "PCM_24", "PCM_U8"])
    def test_other_sample_formats_become_16_bit(self, tmp_path: Path, subtype: str) -> None:
        sound = tone(4000, 8000)
        soundfile.write(tmp_path / "a.wav", sound / 32768, 8000, subtype=subtype)
        heard = content(play(tmp_path / "a.wav")["cam"]).astype(int)
        assert np.abs(heard - sound).max() <= (256 if subtype == "PCM_U8" else 1)

    def test_floats_beyond_full_scale_clip(self, tmp_path: Path) -> None:
        soundfile.write(tmp_path / "a.wav", np.float32([2.0, -2.0, 0.0]), 8000, subtype="FLOAT")
        assert content(play(tmp_path / "a.wav")["cam"])[:, 0].tolist() == [32767, -32768, 0]

    def test_vorbis(self, tmp_path: Path) -> None:
        sound = tone(44100, 44100, 2)
        soundfile.write(tmp_path / "a.ogg", sound, 44100, format="OGG", subtype="VORBIS")
        blocks = play(tmp_path / "a.ogg")["cam"]
        heard = content(blocks).astype(float)
        assert heard.shape == sound.shape
        assert np.corrcoef(heard[:, 0], sound[:, 0])[0, 1] > 0.99
        assert times(blocks)[0] == 0
        assert set(np.diff(times(blocks))) == {22675, 22676}


class TestPictures:
    def test_video_is_rgb(self, tmp_path: Path) -> None:
        red = np.zeros((48, 64, 3), np.uint8)
        red[..., 0] = 200
        (block, *_) = play(write_clip(tmp_path / "a.mp4", frames=[red] * 5))["cam"]
        assert block.stream.unit == "rgb8"
        np.testing.assert_allclose(block.data[0].mean((0, 1)), [200, 0, 0], atol=6)

    @pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.webp"])
    def test_a_still_image_is_one_tick(self, tmp_path: Path, name: str) -> None:
        shade = np.tile(np.linspace(0, 255, 64).astype(np.uint8)[:, None], (48, 1, 3))
        Image.fromarray(shade).save(tmp_path / name, quality=95)
        (block,) = play(tmp_path / name)["cam"]
        assert np.abs(block.data[0].astype(int) - shade).mean() < 3

    def test_a_grey_16_bit_or_transparent_image_is_rgb_too(self, tmp_path: Path) -> None:
        Image.fromarray(np.full((8, 8), 30000, np.uint16)).save(tmp_path / "deep.png")
        Image.fromarray(np.full((8, 8, 4), 117, np.uint8)).save(tmp_path / "clear.png")
        for name in ("deep.png", "clear.png"):
            (block,) = play(tmp_path / name)["cam"]
            np.testing.assert_allclose(block.data, 117, atol=1)

    def test_an_image_sequence(self, tmp_path: Path) -> None:
        for number, picture in enumerate(pictures(4)):
            Image.fromarray(picture).save(tmp_path / f"f_{number:03d}.png")
        blocks = play(tmp_path / "f_%03d.png")["cam"]
        np.testing.assert_array_equal(content(blocks), pictures(4))
        assert times(blocks).tolist() == [n * NS_PER_S // 25 for n in range(4)]

    def test_a_picture_that_lies_on_its_side_is_turned_upright(self, tmp_path: Path) -> None:
        lying = np.zeros((40, 60, 3), np.uint8)
        lying[:10, :10] = 255  # upper left as stored
        exif = Image.Exif()
        exif[0x0112] = 6  # orientation: turn clockwise by a quarter to see it upright
        Image.fromarray(lying).save(tmp_path / "a.jpg", exif=exif, quality=95)
        (block,) = play(tmp_path / "a.jpg", width=20)["cam"]
        assert block.stream.shape == (30, 20, 3)
        assert block.data[0, :4, -4:].mean() > 240
        assert block.data[0, :4, :4].mean() < 15

    @pytest.mark.parametrize(
        ("limits", "shape"),
        [
            ({}, (48, 64, 3)),
            ({"width": 32}, (24, 32, 3)),
            ({"height": 12}, (12, 16, 3)),
            ({"width": 32, "height": 12}, (12, 16, 3)),
            ({"width": 1920, "height": 1080}, (48, 64, 3)),
        ],
    )
    def test_limits_scale_down_and_never_up(
        self, clip: Path, limits: dict[str, int], shape: tuple[int, int, int]
    ) -> None:
        (first, *_) = play(clip, **limits)["cam_video"]
        assert first.stream.shape == first.data.shape[1:] == shape


class TestDamage:
    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("none.mp4", None, "none.mp4: no such file"),
            ("text.mp4", b"just a few words\n" * 99, "text.mp4: not a media file, or damaged"),
            ("empty.wav", b"", "empty.wav: not a media file, or damaged"),
        ],
    )
    def test_what_cannot_be_opened_is_said_in_one_line(
        self, tmp_path: Path, name: str, content: bytes | None, said: str
    ) -> None:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(DeviceNotFound, match=r"^media cam: .*") as caught:
            build(tmp_path / name).connect()
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(DeviceNotFound, match="is a directory"):
            build(tmp_path).connect()

    def test_subtitles_only(self, tmp_path: Path) -> None:
        (tmp_path / "a.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nHello\n")
        with pytest.raises(DeviceNotFound, match="no video or audio track that can be decoded"):
            build(tmp_path / "a.srt").connect()

    def test_an_mp4_cut_off_before_its_index(self, tmp_path: Path) -> None:
        path = write_clip(tmp_path / "a.mp4", frames=pictures(30))
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(DeviceNotFound, match="not a media file, or damaged"):
            build(path).connect()

    def test_a_file_cut_off_in_the_middle_gives_what_is_there(self, tmp_path: Path) -> None:
        path = tmp_path / "a.mkv"
        write_clip(path, frames=pictures(60), sound=tone(96000, 48000), codecs=("mjpeg", "flac"))
        whole = play(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        samples, _, end = play_damaged(path)
        assert isinstance(end, EndOfStream)
        for name, blocks in by_stream(samples).items():
            assert 0.3 < len(blocks) / len(whole[name]) < 0.7
            got, wanted = content(blocks[:-1]), content(whole[name])
            np.testing.assert_array_equal(got, wanted[: len(got)])

    def test_each_bad_packet_is_told_once_and_counted(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        path = write_clip(
            tmp_path / "a.mov",
            frames=pictures(30),
            sound=tone(8000, 8000),
            rate=8000,
            codecs=("png", "pcm_s16le"),
        )
        corrupt(path, "video", [3, 4, 10])
        samples, told, end = play_damaged(path)
        assert isinstance(end, EndOfStream)
        assert len(told) == 3
        assert all("cam_video: bad packet" in line and "\n" not in line for line in told)
        streams = by_stream(samples)
        video = streams["cam_video"]
        assert [(b.seq, b.lost) for b in video if b.lost] == [(5, 2), (11, 1)]
        assert times(video).tolist() == [
            n * NS_PER_S // 30 for n in range(30) if n not in (3, 4, 10)
        ]
        assert len(content(streams["cam_audio"])) == 8000
        assert capfd.readouterr() == ("", "")

    def test_bad_sound_is_a_gap_of_the_right_length(self, tmp_path: Path) -> None:
        sound = tone(96000, 48000)
        path = write_clip(tmp_path / "a.mkv", sound=sound, codecs=("", "flac"))
        corrupt(path, "audio", [5, 6])
        samples, told, _ = play_damaged(path)
        (gap,) = [s for s in samples if s.lost]
        assert len(told) == 2
        assert sum(map(len, samples)) + gap.lost == len(sound)
        np.testing.assert_array_equal(gap.data, sound[gap.seq : gap.seq + len(gap)])
        assert abs(int(gap.t_ns[0]) - START_NS - gap.seq * NS_PER_S / 48000) < 1_000_000

    def test_a_file_of_nothing_but_bad_packets(self, tmp_path: Path) -> None:
        path = write_clip(tmp_path / "a.mov", frames=pictures(5), codecs=("png", ""))
        corrupt(path, "video", range(5))
        with pytest.raises(DeviceNotFound, match="nothing in it can be decoded"):
            build(path).connect()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        # The driver hangs up when it is disconnected.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.server.serve(self)

    def log_message(self, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """/file: the clip. /cut: half of it. /mjpeg: a live camera of 20 pictures. /stall: one that
    falls silent after five. /live.ts: one with sound and a clock. /private: asks for a password.
    """

    def __init__(self, clip: Path, live: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.clip, self.live = clip.read_bytes(), live.read_bytes()
        self.closing = threading.Event()

    def url(self, path: str, login: str = "") -> str:
        return f"http://{login}127.0.0.1:{self.server_port}/{path}"

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        if path in ("/file", "/cut"):
            request.send_response(200)
            request.send_header("Content-Length", str(len(self.clip)))
            request.end_headers()
            request.wfile.write(self.clip[: len(self.clip) // (2 if path == "/cut" else 1)])
        elif path in ("/mjpeg", "/stall"):
            request.send_response(200)
            request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
            request.end_headers()
            for picture in pictures(5 if path == "/stall" else 20):
                jpeg = io.BytesIO()
                Image.fromarray(picture).save(jpeg, "JPEG")
                head = (
                    f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {jpeg.tell()}\r\n\r\n"
                )
                request.wfile.write(head.encode() + jpeg.getvalue() + b"\r\n")
                self.closing.wait(0.02)
            if path == "/stall":
                self.closing.wait(30)
        elif path == "/live.ts":
            request.send_response(200)
            request.end_headers()
            for start in range(0, len(self.live), 188 * 40):
                request.wfile.write(self.live[start : start + 188 * 40])
                self.closing.wait(0.01)
        elif path == "/private":
            request.send_response(401)
            request.send_header("WWW-Authenticate", 'Basic realm="x"')
            request.end_headers()
        else:
            request.send_error(404)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of an MPEG transport stream."""
    path = tmp_path_factory.mktemp("live") / "live.ts"
    return write_clip(path, frames=pictures(60), sound=tone(96000, 48000))


@pytest.fixture(scope="module")
def server(clip: Path, live: Path) -> Iterator[Server]:
    with Server(clip, live) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.closing.set()
        server.shutdown()
        thread.join()


class TestNetwork:
    def test_a_file_over_http_is_played_as_a_local_one(self, server: Server, clip: Path) -> None:
        local, remote = play(clip, speed=1), play(server.url("file"), speed=1)
        for name in ("cam_video", "cam_audio"):
            np.testing.assert_array_equal(content(local[name]), content(remote[name]))
            np.testing.assert_array_equal(times(local[name]), times(remote[name]))

    def test_a_connection_that_breaks_is_a_lost_device(self, server: Server) -> None:
        driver = build(server.url("cut"))
        driver.connect()
        with pytest.raises(DeviceLost, match="/cut: connection lost"):
            list(read_all(driver, 1000))

    def test_a_live_camera_is_stamped_as_it_arrives(self, server: Server) -> None:
        clock = SystemClock()
        before_ns = clock.now_ns()
        blocks, _, end = play_damaged(server.url("mjpeg"), clock=clock, speed=1)
        assert isinstance(end, DeviceLost)
        assert len(blocks) == 20
        info = blocks[0].stream
        assert (info.rate_hz, info.clock) == (None, "host")  # FFmpeg's 25 Hz would be made up
        for block in blocks:
            assert before_ns < block.t_ns[0] == block.arrival_ns < clock.now_ns()
        assert blocks[-1].t_ns[0] - blocks[5].t_ns[0] > 14 * 15_000_000  # as sent: 20 ms apart

    def test_a_live_source_with_a_clock_gives_its_stamps_too(
        self, server: Server, live: Path
    ) -> None:
        clock = SystemClock()
        samples, _, end = play_damaged(server.url("live.ts"), clock=clock)
        assert isinstance(end, DeviceLost)
        streams = by_stream(samples)
        for kind, exact_s in packet_times(live).items():
            blocks = streams[f"cam_{kind}"]
            assert blocks[0].stream.clock == "device"
            device = np.concatenate([b.device_t_ns for b in blocks if b.device_t_ns is not None])
            assert abs(device[0] - exact_s[0] * NS_PER_S) < 50_000  # a tick of its 90 kHz clock
            assert (np.diff(device) > 0).all()
            for block in blocks:
                assert block.t_ns[-1] <= block.arrival_ns
                assert (np.diff(block.t_ns) >= 0).all()
        video_ns = [
            int(b.device_t_ns[0]) for b in streams["cam_video"] if b.device_t_ns is not None
        ]
        assert len(video_ns) >= 55  # what the decoder still held is lost with the connection
        exact_ns = [t * NS_PER_S // 1 for t in packet_times(live)["video"]]
        assert video_ns == exact_ns[: len(video_ns)]
        span_ns = samples[-1].arrival_ns - samples[0].arrival_ns
        assert span_ns < 2 * NS_PER_S  # not paced: the server sends it faster than it plays

    def test_a_camera_that_falls_silent_is_lost(self, server: Server) -> None:
        driver = build(server.url("stall"), network_timeout_s=0.3)
        driver.connect()
        with pytest.raises(DeviceLost, match=r"silent for 0\.3 s"):
            list(read_all(driver, 1000))
        driver.disconnect()

    @pytest.mark.parametrize("path", ["private?token=s3cret", "missing?token=s3cret"])
    def test_secrets_stay_out_of_messages(self, server: Server, path: str) -> None:
        with pytest.raises(DeviceNotFound) as caught:
            build(server.url(path, LOGIN)).connect()
        whole = "".join(traceback.format_exception(caught.value))
        assert "s3cret" not in whole
        assert "127.0.0.1" in str(caught.value)
        assert "40" in str(caught.value)

    def test_secrets_stay_out_of_streams_and_later_errors(self, server: Server) -> None:
        driver = build(server.url("cut?token=s3cret", LOGIN))
        driver.connect()
        assert "s3cret" not in repr(driver.streams)
        with pytest.raises(DriverError) as caught:
            list(read_all(driver, 1000))
        assert "s3cret" not in "".join(traceback.format_exception(caught.value))

    def test_nobody_listens(self) -> None:
        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as gone:
            port = gone.server_port
        with pytest.raises(DeviceNotFound, match=f"127.0.0.1:{port}/x: connection refused"):
            build(f"rtsp://{LOGIN}127.0.0.1:{port}/x").connect()


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


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"path": "a.mp4", "url": "http://x/y"},
        {"url": "a.mp4"},
        {"path": "a.mp4", "speed": -1},
        {"path": "a.mp4", "width": 0},
        {"path": "a.mp4", "colour": True},
    ],
)
def test_bad_config_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(fields, MediaConfig, dec_hook=lambda kind, value: kind(value))


def test_a_missing_package_names_its_extra(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match=r"pip install 'sensebind\[media\]'"):
        build(clip).connect()


def test_the_module_loads_without_the_package() -> None:
    code = "import sys, drivers.media; sys.exit('av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_block_kept_by_the_reader_is_not_overwritten(clip: Path) -> None:
    """A picture may share the decoder's memory, which must then stay as it is."""
    driver = build(clip)
    driver.connect()
    kept, sums = [], []
    for sample in read_all(driver, 1000):
        kept.append(sample)
        sums.append(int(sample.data.sum()))
    driver.disconnect()
    assert [int(s.data.sum()) for s in kept] == sums


def test_a_timeout_keeps_the_block_for_the_next_read(clip: Path) -> None:
    clock = ManualClock(START_NS)
    driver = build(clip, clock, speed=1)
    driver.connect()
    driver.read(1)  # the first picture is due at once
    with pytest.raises(ReadTimeout, match=r"due in 0\.011 s"):
        driver.read(0.01)
    assert clock.now_ns() == START_NS + 10_000_000
    (sample,) = driver.read(0.1)
    assert (sample.stream.name, sample.seq) == ("cam_audio", 0)
    assert sample.arrival_ns == sample.t_ns[-1]
