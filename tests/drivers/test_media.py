"""The media driver on real files."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import soundfile
from PIL import Image

from agent.clock import NS_PER_S, Clock, ManualClock, SystemClock
from agent.contracts import Driver
from agent.errors import ConfigError, DeviceLost, ReadTimeout
from drivers._av.reader import MediaReader
from drivers.media import MediaConfig
from tests.contracts.driver_contract import START_NS, DriverContract, by_stream, read_all
from tests.fakes.clips import packet_times, tone, write_clip
from tests.fakes.media import build, content, pictures, play, short_clip, times

NTSC = Fraction(1001, 30000)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return short_clip(tmp_path_factory.mktemp("media") / "clip.mp4")


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
