from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from agent.contracts import RuntimeOptions
from agent.errors import ConfigError
from encoders.files import read_file
from encoders.space import open_space
from tests.fakes.flir_jpeg import radiometric_jpeg

HEADER = "t,ax,ay,az,gx,gy,gz\n"


def rows(count: int) -> str:
    return "".join(f"{i / 50},{i},0,9.81,0,0,{-i}\n" for i in range(count))


class TestImage:
    @pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp"])
    def test_colour(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"A photo{suffix}"
        Image.new("RGB", (20, 10), (200, 100, 50)).save(path)
        read = read_file(str(path), "image")
        assert read.data.shape == (1, 10, 20, 3)
        assert read.data.dtype == np.uint8
        np.testing.assert_allclose(read.data[0, 5, 5], (200, 100, 50), atol=8)
        assert read.stream.name == "a_photo"
        assert read.start_ns <= read.t_ns[0] < read.end_ns

    @pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "CMYK"])
    def test_other_8_bit_modes_become_rgb(self, tmp_path: Path, mode: str) -> None:
        path = tmp_path / "x.tif"
        Image.new(mode, (4, 4)).save(path)
        assert read_file(str(path), "image").data.shape == (1, 4, 4, 3)

    def test_turned_as_its_exif_says(self, tmp_path: Path) -> None:
        picture = Image.new("RGB", (20, 10))
        picture.paste((255, 255, 255), (0, 0, 10, 10))
        exif = Image.Exif()
        exif[0x0112] = 6  # to be shown turned by 90 degrees
        picture.save(tmp_path / "x.png", exif=exif)
        data = read_file(str(tmp_path / "x.png"), "image").data
        assert data.shape == (1, 20, 10, 3)
        assert data[0, :10].min() == 255
        assert data[0, 10:].max() == 0

    def test_16_bits_are_refused(self, tmp_path: Path) -> None:
        Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "x.png")
        with pytest.raises(ConfigError, match=r"x.png: pixels are 'I;16', expected an 8-bit"):
            read_file(str(tmp_path / "x.png"), "image")


class TestAudio:
    @pytest.mark.parametrize(("suffix", "atol"), [(".wav", 1e-4), (".flac", 1e-4), (".ogg", 0.1)])
    def test_sound(self, tmp_path: Path, suffix: str, atol: float) -> None:
        t_s = np.arange(22_050) / 44_100
        sound = np.stack([np.sin(600 * t_s), np.cos(600 * t_s)], axis=1) * 0.5
        soundfile.write(tmp_path / f"x{suffix}", sound, 44_100)
        read = read_file(str(tmp_path / f"x{suffix}"), "audio")
        assert read.data.shape == (22_050, 2)
        assert read.data.dtype == np.float32
        assert read.stream.rate_hz == 44_100
        np.testing.assert_allclose(read.data, sound, atol=atol)
        assert read.t_ns[-1] == 22_049 * 10**9 // 44_100

    def test_no_samples(self, tmp_path: Path) -> None:
        soundfile.write(tmp_path / "x.wav", np.zeros((0, 1)), 16_000)
        with pytest.raises(ConfigError, match=r"x.wav: 0 samples, expected at least one"):
            read_file(str(tmp_path / "x.wav"), "audio")

    def test_not_finite(self, tmp_path: Path) -> None:
        soundfile.write(tmp_path / "x.wav", np.array([0, np.nan]), 16_000, "FLOAT")
        with pytest.raises(ConfigError, match=r"x.wav: .* all finite"):
            read_file(str(tmp_path / "x.wav"), "audio")


class TestDepthAndThermal:
    @pytest.mark.parametrize("suffix", [".png", ".pgm"])
    @pytest.mark.parametrize(("modality", "unit"), [("depth", "mm"), ("thermal", "counts")])
    def test_16_bits_are_kept(self, tmp_path: Path, suffix: str, modality: str, unit: str) -> None:
        frame = np.arange(48, dtype=np.uint16).reshape(6, 8) * 1300
        Image.fromarray(frame).save(tmp_path / f"x{suffix}")
        read = read_file(str(tmp_path / f"x{suffix}"), modality)
        assert read.data.dtype == np.uint16
        np.testing.assert_array_equal(read.data[0], frame)
        assert read.stream.unit == unit

    def test_depth_of_8_bits_is_refused(self, tmp_path: Path) -> None:
        Image.new("L", (4, 4)).save(tmp_path / "x.png")
        with pytest.raises(ConfigError, match=r"x.png: pixels are 'L', expected a 16-bit grey"):
            read_file(str(tmp_path / "x.png"), "depth")

    def test_values_over_16_bits_are_refused(self, tmp_path: Path) -> None:
        Image.fromarray(np.full((4, 4), 70_000, np.int32)).save(tmp_path / "x.tif")
        with pytest.raises(ConfigError, match=r"x.tif: values over 16 bits"):
            read_file(str(tmp_path / "x.tif"), "depth")

    @pytest.mark.parametrize("mode", ["L", "LA", "RGB", "P"])
    def test_thermal_of_8_bits(self, tmp_path: Path, mode: str) -> None:
        Image.new("L", (8, 6), 99).convert(mode).save(tmp_path / "x.png")
        read = read_file(str(tmp_path / "x.png"), "thermal")
        assert read.data.shape == (1, 6, 8)
        assert (read.data == 99).all()
        assert read.stream.unit == "mono8"

    def test_thermal_in_degrees(self, tmp_path: Path) -> None:
        frame = np.linspace(-20, 80, 48, dtype=np.float32).reshape(6, 8)
        Image.fromarray(frame).save(tmp_path / "x.tif")
        read = read_file(str(tmp_path / "x.tif"), "thermal")
        np.testing.assert_array_equal(read.data[0], frame)
        assert read.stream.unit == "c"

    def test_thermal_that_is_not_finite_is_refused(self, tmp_path: Path) -> None:
        Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(tmp_path / "x.tif")
        with pytest.raises(ConfigError, match="not finite"):
            read_file(str(tmp_path / "x.tif"), "thermal")

    def test_real_depth_in_pgm(self, shared_data: Path) -> None:
        path = shared_data / "recordings" / "slambook_rgbd" / "ch5" / "rgbd" / "depth" / "1.pgm"
        read = read_file(str(path), "depth")
        assert read.data.shape == (1, 480, 640)
        assert read.data.dtype == np.uint16
        assert read.data.max() == 9823


class TestImu:
    def write(self, folder: Path, text: str) -> str:
        (folder / "x.csv").write_text(text)
        return str(folder / "x.csv")

    @pytest.mark.parametrize("header", ["", HEADER, "\ufeff" + HEADER, HEADER.upper()])
    def test_with_and_without_a_header(self, tmp_path: Path, header: str) -> None:
        read = read_file(self.write(tmp_path, header + rows(5)), "imu")
        assert read.data.shape == (5, 6)
        assert read.data.dtype == np.float32
        assert read.stream.rate_hz == pytest.approx(50)
        np.testing.assert_array_equal(read.t_ns, np.arange(5) * 20_000_000)
        np.testing.assert_allclose(read.data[3], [3, 0, 9.81, 0, 0, -3])

    def test_columns_by_name(self, tmp_path: Path) -> None:
        text = "gz, gy,gx,az,ay,ax,temperature,t\n6,5,4,3,2,1,40,0\n6,5,4,3,2,1,40,0.5\n"
        read = read_file(self.write(tmp_path, text), "imu")
        np.testing.assert_array_equal(read.data[0], [1, 2, 3, 4, 5, 6])
        np.testing.assert_array_equal(read.t_ns, [0, 500_000_000])

    def test_columns_whose_names_tell_their_units(self, tmp_path: Path) -> None:
        axes = [f"Gyroscope {a} (deg/s)" for a in "XYZ"] + [f"Accelerometer {a} (g)" for a in "XYZ"]
        text = f"Time (s),{','.join(axes)}\n0,180,0,-90,0,0,1\n0.5,180,0,-90,0,2,1\n"
        read = read_file(self.write(tmp_path, text), "imu")
        first = [0, 0, 9.80665, np.pi, 0, -np.pi / 2]
        np.testing.assert_allclose(read.data, [first, [0, 19.6133, *first[2:]]], rtol=1e-6)
        np.testing.assert_array_equal(read.t_ns, [0, 500_000_000])
        with pytest.raises(ConfigError, match=r"lacks ax,ay,az, expected t,ax"):
            read_file(self.write(tmp_path, text.replace("(g)", "(mg)")), "imu")

    def test_a_real_recording_in_degrees_and_g(self, shared_data: Path) -> None:
        path = shared_data / "recordings/xio_imu/sensor_data.csv"
        read = read_file(str(path), "imu")
        assert read.stream.rate_hz == pytest.approx(100, abs=1)
        acceleration = np.linalg.norm(read.data[:, :3], axis=1)
        assert np.median(acceleration) == pytest.approx(9.81, abs=0.2)
        # Radians: turned by hand, not spun.
        assert 0.5 < np.abs(read.data[:, 3:]).max() < 20

    @given(st.floats(0, 1e9), st.lists(st.floats(1e-3, 0.9), min_size=1, max_size=50))
    def test_time_starts_at_zero(
        self, tmp_path_factory: pytest.TempPathFactory, first: float, steps: list[float]
    ) -> None:
        t_s = first + np.concatenate([[0.0], np.cumsum(steps)])
        text = "".join(f"{t!r},0,0,0,0,0,0\n" for t in t_s.tolist())
        read = read_file(self.write(tmp_path_factory.mktemp("csv"), text), "imu")
        assert read.t_ns[0] == 0
        np.testing.assert_allclose(read.t_ns / 1e9, t_s - t_s[0], atol=1e-6)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (HEADER + "0,1,2,3,4,5,6\n0.1,1,2,x,4,5,6\n", "x.csv:3: az is 'x', expected a number"),
            ("0,1,2,3,4,5,6\n0.1,1,2,3,4,5,\n", "x.csv:2: gz is '', expected a number"),
            ("0,1,2,3,4,5,nan\n", "x.csv:1: gz is 'nan', expected a number"),
            (HEADER + "0,1,2,3,4,5,nan\n", "x.csv:2: gz is 'nan', expected a number"),
            (HEADER + "0,1,2\n", "x.csv:2: 3 columns, expected t,ax"),
            (HEADER, "0 rows of numbers, expected at least 2"),
            (HEADER + "0,1,2,3,4,5,6\n", "1 rows of numbers, expected at least 2"),
            ("time,ax,ay,az,gx,gy,gz\n" + rows(3), "x.csv:1: header .* lacks t, expected t,ax"),
            (HEADER + rows(3) + rows(3), "x.csv:5: t goes backwards"),
            ("0,1,2,3,4,5,6\n0,1,2,3,4,5,6\n", "t steps by 0, expected seconds"),
            ("0,1,2,3,4,5,6\n20000,1,2,3,4,5,6\n", "t steps by 20000, expected seconds"),
        ],
    )
    def test_bad_files_are_told_by_line(self, tmp_path: Path, text: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message) as caught:
            read_file(self.write(tmp_path, text), "imu")
        assert "\n" not in str(caught.value)


def garbage(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 8)


def empty(path: Path) -> None:
    path.touch()


def folder(path: Path) -> None:
    path.mkdir()


def cut_png(path: Path) -> None:
    Image.effect_noise((64, 64), 50).save(path, "png")
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize("modality", ["image", "audio", "depth", "thermal", "imu", "emg"])
@pytest.mark.parametrize("make", [garbage, empty, folder, cut_png, lambda path: None])
def test_a_file_that_cannot_be_read_is_one_line(
    tmp_path: Path, modality: str, make: Callable[[Path], object]
) -> None:
    path = tmp_path / "some.bin"
    make(path)
    with pytest.raises(ConfigError, match=r"some.bin: .*expected") as caught:
        read_file(str(path), modality)
    assert "\n" not in str(caught.value)


def test_a_sense_that_nobody_planned_is_read_as_columns(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("t,left,right\n0,1,2\n0.1,3,4\n")
    read = read_file(str(path), "emg")
    assert (read.data.tolist(), read.stream.modality) == ([[1, 2], [3, 4]], "emg")


class TestRadiometric:
    COUNTS = (15_000 + 61 * np.mgrid[:48, :64][0] + 17 * np.mgrid[:48, :64][1]).astype(np.uint16)

    def test_a_jpeg_of_flirs_is_celsius(self, tmp_path: Path) -> None:
        path = tmp_path / "mug.jpg"
        path.write_bytes(radiometric_jpeg(self.COUNTS, "swapped"))
        read = read_file(str(path), "thermal")
        assert (read.data.dtype, read.data.shape, read.stream.unit) == ("float32", (1, 48, 64), "c")
        assert (np.diff(read.data[0], axis=1) > 0).all()
        # As a picture it is what the camera's eye saw beside it.
        assert read_file(str(path), "image").data.shape == (1, 48, 64, 3)

    def test_a_damaged_one_is_one_line(self, tmp_path: Path) -> None:
        path = tmp_path / "mug.jpg"
        path.write_bytes(radiometric_jpeg(self.COUNTS, "raw", segment_bytes=3000))
        content = path.read_bytes()
        cut = content.index(b"FLIR\0", 3000)
        path.write_bytes(content[:cut] + b"OTHER" + content[cut + 5 :])
        with pytest.raises(ConfigError, match=r"mug\.jpg: \d+ of \d+ segments") as caught:
            read_file(str(path), "thermal")
        assert "\n" not in str(caught.value)

    def test_djis_own_format_is_refused(self, shared_data: Path) -> None:
        file = shared_data / "recordings" / "flir_radiometric" / "images" / "DJI_H20T.jpg"
        with pytest.raises(ConfigError, match=r"DJI_H20T.jpg: .*DJI's own format, expected FLIR's"):
            read_file(str(file), "thermal")

    def test_the_tower_is_indifferent_to_the_unit(self, tmp_path: Path) -> None:
        """One scene as Celsius in a JPEG and in a TIFF, as raw counts and as 8-bit grey."""
        rng = np.random.default_rng(0)
        y, x = np.mgrid[:48, :64]
        warm = (
            900 * np.exp(-((y - 20) ** 2 + (x - 40) ** 2) / 90)
            + 3.0 * y
            + rng.normal(0, 4, (48, 64))
        )
        counts = (15_000 + warm).astype(np.uint16)
        (tmp_path / "a.jpg").write_bytes(radiometric_jpeg(counts, "png"))
        celsius = read_file(str(tmp_path / "a.jpg"), "thermal").data[0]
        Image.fromarray(celsius).save(tmp_path / "b.tif")
        Image.fromarray(counts).save(tmp_path / "c.png")
        grey = (counts - counts.min()) / np.ptp(counts) * 255
        Image.fromarray(grey.astype(np.uint8)).save(tmp_path / "d.png")
        files = [read_file(str(tmp_path / name), "thermal") for name in ("b.tif", "c.png", "d.png")]
        assert [file.stream.unit for file in files] == ["c", "counts", "mono8"]
        space = open_space("compact", RuntimeOptions(providers=("cpu",)))
        own = space.embed_file(str(tmp_path / "a.jpg"), "thermal").vector
        cosines = {
            name: float(space.embed_file(str(tmp_path / name), "thermal").vector @ own)
            for name in ("b.tif", "c.png", "d.png")
        }
        assert cosines["b.tif"] >= 0.999999
        assert cosines["c.png"] >= 0.99  # of a tower in 8 bits
        assert cosines["d.png"] >= 0.99
        # Not so indifferent that any scene would do.
        Image.fromarray(counts[::-1, ::-1].T.copy()).save(tmp_path / "e.png")
        other = float(space.embed_file(str(tmp_path / "e.png"), "thermal").vector @ own)
        assert 1 - other > 10 * (1 - min(cosines.values()))
