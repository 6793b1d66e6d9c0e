"""The media driver on files that are damaged, cut off or something else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.clock import NS_PER_S
from agent.errors import DeviceNotFound, EndOfStream
from tests.contracts.driver_contract import START_NS, by_stream
from tests.fakes.clips import corrupt, tone, write_clip
from tests.fakes.media import build, content, pictures, play, play_damaged, times


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
