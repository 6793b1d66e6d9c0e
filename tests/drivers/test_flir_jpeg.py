"""Radiometric pictures, real ones and composed ones, and the law that makes Celsius of counts."""

from __future__ import annotations

import io
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from agent.clock import ManualClock
from agent.errors import BadData
from agent.flir_jpeg import thermal_picture
from agent.radiometry import Planck, Scene
from agent.types import Array
from drivers.media import PLUGIN, MediaConfig
from tests.contracts.driver_contract import START_NS, by_stream, read_all
from tests.fakes.flir_jpeg import CAMERA, radiometric_jpeg

pytest.importorskip("av", reason="needs pip install 'sensebind[media]'")

ROOM = Scene(emissivity=1.0, distance_m=0.0)


def ramp(height: int = 24, width: int = 32) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """A smooth picture that passes several multiples of 256."""
    y, x = np.mgrid[:height, :width]
    return (15_000 + 61 * y + 17 * x).astype(np.uint16)


def expected(counts: Array, camera: Any = CAMERA) -> Array:
    """FLIR's formula as it is written out for its pictures, one pixel at a time, in scalars."""
    r1, r2, b, f, o = (camera[name] for name in ("r1", "r2", "b", "f", "o"))
    e, air_c = camera["emissivity"], camera["air_k"] - 273.15
    water = camera["humidity"] * math.exp(
        1.5587 + 0.06939 * air_c - 0.00027816 * air_c**2 + 0.00000068455 * air_c**3
    )
    root = math.sqrt(camera["distance_m"])
    tau = 1.9 * math.exp(-root * (0.006569 - 0.002276 * math.sqrt(water)))
    tau += (1 - 1.9) * math.exp(-root * (0.01262 - 0.00667 * math.sqrt(water)))
    reflected = r1 / (r2 * (math.exp(b / camera["reflected_k"]) - f)) - o
    air = r1 / (r2 * (math.exp(b / camera["air_k"]) - f)) - o
    # The offsets of the three add up to that of the camera: e tau + (1 - e) tau + (1 - tau) = 1.
    own = [
        (raw - (1 - e) * tau * reflected - (1 - tau) * air) / (e * tau)
        for raw in counts.astype(float).ravel()
    ]
    kelvin = [b / math.log(r1 / (r2 * (raw + o)) + f) for raw in own]
    return np.array(kelvin).reshape(counts.shape) - 273.15


class TestPicture:
    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("stored", ["raw", "png", "swapped"])
    def test_its_celsius_are_those_of_the_formula(self, stored: str, order: str) -> None:
        celsius = thermal_picture(radiometric_jpeg(ramp(), stored, order), "hot")
        assert celsius is not None
        assert (celsius.dtype, celsius.shape) == (np.float32, (24, 32))
        want = expected(ramp())
        assert 0 < want.min() < want.max() < 60
        np.testing.assert_allclose(celsius, want, atol=1e-3)

    def test_it_may_be_cut_into_many_segments(self) -> None:
        data = radiometric_jpeg(ramp(), "raw", segment_bytes=300)
        celsius = thermal_picture(data, "hot")
        assert celsius is not None
        np.testing.assert_allclose(celsius, expected(ramp()), atol=1e-3)
        at = data.rindex(b"FLIR\0")
        with pytest.raises(BadData, match=r"hot: \d+ of \d+ segments"):
            thermal_picture(data[: at - 4] + data[at - 4 :].replace(b"FLIR\0", b"XXXX\0"), "hot")

    def test_another_picture_has_none(self) -> None:
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8)).save(buffer, "JPEG")
        assert thermal_picture(buffer.getvalue(), "plain") is None
        assert thermal_picture(b"GIF89a", "plain") is None

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"emissivity": 0.0}, "emissivity"),
            ({"r2": 0.0}, "R2 0.0"),
            ({"reflected_k": 0.01}, "no law of a thermal camera"),
        ],
    )
    def test_constants_that_cannot_be_are_told(self, change: dict[str, float], said: str) -> None:
        data = radiometric_jpeg(ramp(), "raw", camera={**CAMERA, **change})
        with pytest.raises(BadData, match=f"its thermal picture is damaged .*{said}"):
            thermal_picture(data, "hot")

    @given(
        stored=st.sampled_from(["raw", "swapped"]),
        at=st.integers(2, 2000),
        byte=st.integers(0, 255),
        cut=st.integers(200, 4000),
    )
    def test_damage_is_bad_data_or_harmless(
        self, stored: str, at: int, byte: int, cut: int
    ) -> None:
        data = bytearray(radiometric_jpeg(ramp(), stored))
        data[at % len(data)] = byte
        with suppress(BadData):
            celsius = thermal_picture(bytes(data[:cut]), "hot")
            assert celsius is None or bool(np.isfinite(celsius).all())


class TestMedia:
    def test_a_radiometric_picture_has_two_streams(self, tmp_path: Path) -> None:
        path = tmp_path / "hot.jpg"
        path.write_bytes(radiometric_jpeg(ramp(), "swapped"))
        driver = PLUGIN("cam", MediaConfig(path=path, speed=0), ManualClock(START_NS))
        driver.connect()
        streams = by_stream(list(read_all(driver, 10)))
        driver.disconnect()
        assert [(i.name, i.modality, i.unit) for i in driver.streams] == [
            ("cam", "image", "rgb8"),
            ("cam_thermal", "thermal", "c"),
        ]
        (image,), (thermal,) = streams["cam"], streams["cam_thermal"]
        assert image.t_ns[0] == thermal.t_ns[0]
        assert image.data.shape == (1, 48, 64, 3)
        np.testing.assert_allclose(thermal.data[0], expected(ramp()), atol=1e-3)

    def test_it_loops(self, tmp_path: Path) -> None:
        path = tmp_path / "hot.jpg"
        path.write_bytes(radiometric_jpeg(ramp(), "raw"))
        driver = PLUGIN("cam", MediaConfig(path=path, speed=0, loop=True), ManualClock(START_NS))
        driver.connect()
        streams = by_stream(list(read_all(driver, 3)))
        driver.disconnect()
        assert [s.seq for s in streams["cam_thermal"]] == [0, 1, 2]

    def test_a_damaged_one_is_played_without_and_told(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "hot.jpg"
        path.write_bytes(radiometric_jpeg(ramp(), "raw", camera={**CAMERA, "b": -1.0}))
        driver = PLUGIN("cam", MediaConfig(path=path, speed=0), ManualClock(START_NS))
        driver.connect()
        assert [info.name for info in driver.streams] == ["cam"]
        driver.disconnect()
        (record,) = caplog.records
        assert "only the visible one is played" in record.getMessage()


class TestReal:
    """Pictures of FLIR's and DJI's cameras, of which only sizes and what is seen are known."""

    @pytest.mark.parametrize(
        ("file", "shape", "least_c", "most_c"),
        [
            ("FLIR.jpg", (320, 240), 25.9, 62.2),  # a mug of hot water in a room
            ("FLIR_AX8.jpg", (60, 80), 24.3, 25.5),
            ("FLIR_B60.jpg", (180, 180), -67.6, -0.2),  # the sky
            ("FLIR_E40.jpg", (120, 160), 17.9, 24.6),
            ("FLIR_T640.jpg", (480, 640), 25.4, 97.7),
            ("DJI_XT2.jpg", (512, 640), 21.8, 82.3),  # a core of FLIR's in a camera of DJI's
            ("DJI_XTR.jpg", (512, 640), 16.3, 59.4),
        ],
    )
    def test_celsius(
        self, shared_data: Path, file: str, shape: tuple[int, int], least_c: float, most_c: float
    ) -> None:
        data = (shared_data / "recordings" / "flir_radiometric" / "images" / file).read_bytes()
        celsius = thermal_picture(data, file)
        assert celsius is not None
        assert celsius.shape == shape
        assert celsius.min() == pytest.approx(least_c, abs=0.1)
        assert celsius.max() == pytest.approx(most_c, abs=0.1)
        # Bytes in the wrong order would be noise.
        steps = np.abs(np.diff(celsius, axis=1))
        assert np.median(steps) < 0.05 * (most_c - least_c)

    @pytest.mark.parametrize("file", ["DJI_H20T.jpg", "DJI_XTS.jpg"])
    def test_djis_own_format_is_refused(self, shared_data: Path, file: str) -> None:
        data = (shared_data / "recordings" / "flir_radiometric" / "images" / file).read_bytes()
        with pytest.raises(BadData, match=f"^{file}: .*DJI's own format, expected FLIR's"):
            thermal_picture(data, file)


class TestLaw:
    @given(
        celsius=st.floats(-40, 500),
        emissivity=st.floats(0.3, 1.0),
        reflected_c=st.floats(-40, 100),
        air_c=st.floats(-20, 50),
        humidity=st.floats(0, 1),
        distance_m=st.floats(0, 50),
    )
    def test_counts_of_a_temperature_give_it_back(self, celsius: float, **scene: float) -> None:
        law = Planck(15_000, 1400, 1.0, 1000, 20, msgspec.convert(scene, Scene))
        counts = law.counts(celsius)
        below = law(np.array([int(counts)], np.uint16))[0] if counts < 65_535 else None
        if below is not None:
            above = law(np.array([int(counts) + 1], np.uint16))[0]
            assert below - 0.01 <= celsius <= above + 0.01

    def test_a_black_body_is_plancks_law(self) -> None:
        law = Planck(15_000, 1400, 1.0, 1000, 20, ROOM)
        assert law.counts(36.85) == pytest.approx(
            1000 + 20 * 15_000 / (math.exp(1400 / 310) - 1), rel=1e-9
        )

    def test_impossible_counts_are_finite_and_in_order(self) -> None:
        for f in (0.5, 1.0, 2.0):
            table = Planck(500, 1400, f, 4000, 60, ROOM)(np.arange(65536, dtype=np.uint16))
            assert np.isfinite(table).all()
            assert (np.diff(table) >= 0).all()
            assert table[0] == np.float32(-273.15)
