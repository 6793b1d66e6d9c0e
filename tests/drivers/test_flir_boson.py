"""The flir driver's UVC sources: Boson's control on a pseudo-terminal; OpenCV's capture is faked.

There is no V4L2 where these tests run: what cv2.VideoCapture does with `Y16 ` is from its source
and from flirpy, and not from a device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.clock import Clock, SystemClock
from agent.contracts import Driver
from agent.errors import BadData, DeviceLost, DeviceNotFound, ReadTimeout
from agent.types import Array
from drivers._flir import usb
from drivers._flir.fslp import BosonControl, Fslp, Reply, encode
from drivers._serial_ports import SerialPort
from drivers.flir import PLUGIN, FlirConfig, FlirDriver
from tests.contracts.driver_contract import LiveDriverContract, read_all
from tests.fakes.boson_port import BosonPort

cv2 = pytest.importorskip("cv2", reason="needs pip install 'sensebind[flir]'")
pytest.importorskip("serial", reason="needs pip install 'sensebind[flir]'")

# Of a real camera, as its owner has published them (github.com/thurberdog/ghostCommand).
REAL_REQUEST = bytes.fromhex("8e000000000100050002ffffffff010bae")
REAL_SERIAL = bytes.fromhex("8e0000000001000500020000000000016d943010ae")
REAL_FPA = bytes.fromhex("8e000000000100050030 00000000 017c bdce ae")


class Capture:
    """cv2.VideoCapture of a camera that gives `frames`, one a grab, and then `pictures` anew."""

    frames: ClassVar[Callable[[int], Array | None]]
    flat: ClassVar[bool] = False
    opened: ClassVar[bool] = True
    held: ClassVar[int] = 0
    asked: ClassVar[dict[int, float]] = {}

    def __init__(self, path: str, api: int) -> None:
        assert api == cv2.CAP_V4L2
        self.path, self.number = path, -1
        type(self).held += self.opened

    def isOpened(self) -> bool:
        return self.opened

    def set(self, prop: int, value: float) -> bool:
        self.asked[prop] = value
        return True

    def get(self, prop: int) -> float:
        shape = (8, 10) if (first := type(self).frames(0)) is None else first.shape
        return {
            cv2.CAP_PROP_FRAME_WIDTH: shape[1],
            cv2.CAP_PROP_FRAME_HEIGHT: shape[0],
            cv2.CAP_PROP_FPS: 60.0,
        }[prop]

    def grab(self) -> bool:
        self.number += 1
        return type(self).frames(self.number) is not None

    def retrieve(self) -> tuple[bool, Array | None]:
        frame = type(self).frames(self.number)
        assert frame is not None
        return True, frame.view(np.uint8).reshape(1, -1) if self.flat else frame

    def release(self) -> None:
        type(self).held -= self.opened
        self.opened = False  # type: ignore[misc]  # of this one


def picture(number: int) -> Array:
    return np.arange(number, number + 80, dtype=np.uint16).reshape(8, 10)


@pytest.fixture
def capture(monkeypatch: pytest.MonkeyPatch) -> type[Capture]:
    made = type("Made", (Capture,), {"frames": staticmethod(picture), "asked": {}, "held": 0})
    monkeypatch.setattr(cv2, "VideoCapture", made)
    return made


@pytest.fixture
def port(tmp_path: Path) -> Iterator[BosonPort]:
    port = BosonPort(tmp_path / "boson")
    port.plug()
    yield port
    port.unplug()


def build(clock: Clock | None = None, source: str = "boson", **fields: Any) -> FlirDriver:
    own = {"device": "0"} | fields.pop("own", {})
    config = msgspec.convert({"source": source, source: own} | fields, FlirConfig)
    return PLUGIN("hot", config, clock or SystemClock())


class TestBoson(LiveDriverContract):
    max_reads = 20

    @pytest.fixture
    def make_driver(
        self, capture: type[Capture], port: BosonPort, clock: Clock
    ) -> Callable[[], Driver]:
        return lambda: build(clock, own={"port": str(port.path)})

    @pytest.fixture
    def broken(
        self, capture: type[Capture], port: BosonPort, clock: Clock
    ) -> tuple[Driver, Callable[[], Any]]:
        port.unplug()
        return build(clock, own={"port": str(port.path)}), port.plug


class TestFrames:
    @pytest.mark.parametrize("flat", [False, True])
    def test_counts_are_told_to_be_counts(self, capture: type[Capture], flat: bool) -> None:
        capture.flat = flat
        driver = build(own={"port": None, "size": (10, 8)})
        driver.connect()
        (sample,) = driver.read(1)
        driver.disconnect()
        np.testing.assert_array_equal(sample.data[0], picture(0))
        info = sample.stream
        assert (info.unit, info.dtype, info.clock, info.rate_hz) == ("counts", "uint16", "host", 60)
        assert capture.asked[cv2.CAP_PROP_FOURCC] == cv2.VideoWriter.fourcc(*"Y16 ")
        assert capture.asked[cv2.CAP_PROP_CONVERT_RGB] == 0
        assert capture.asked[cv2.CAP_PROP_FRAME_WIDTH] == 10
        assert capture.held == 0

    def test_a_radiometric_one_gives_celsius(self, capture: type[Capture]) -> None:
        driver = build(own={"port": None, "kelvin_per_count": 0.01}, celsius="require")
        driver.connect()
        (sample,) = driver.read(1)
        driver.disconnect()
        assert sample.stream.unit == "c"
        np.testing.assert_allclose(sample.data[0], picture(0) / 100 - 273.15, atol=1e-3)

    def test_a_correction_is_a_gap(self, capture: type[Capture], port: BosonPort) -> None:
        driver = build(own={"port": str(port.path)})
        driver.connect()
        assert [s.seq for s in read_all(driver, 4)] == [0, 1, 2, 3]
        port.correcting = True
        with pytest.raises(ReadTimeout, match="no new frame"):
            driver.read(0.05)
        port.correcting = False
        (after,) = driver.read(1)
        driver.disconnect()
        assert after.lost >= 2
        assert after.seq == 4 + after.lost
        np.testing.assert_array_equal(after.data[0], picture(after.seq))

    def test_a_frame_of_another_size_is_bad_and_counted(self, capture: type[Capture]) -> None:
        frames = [picture(0), picture(1), picture(2)[:4], picture(3)]
        capture.frames = staticmethod(lambda n: frames[n] if n < 4 else None)  # type: ignore[assignment]  # as above
        driver = build(own={"port": None})
        driver.connect()
        driver.read(1)
        driver.read(1)
        with pytest.raises(BadData, match=r"expected 10 x 8 pixels of 16 bits"):
            driver.read(1)
        (sample,) = driver.read(1)
        assert (sample.seq, sample.lost) == (3, 1)
        with pytest.raises(DeviceLost, match="gives no more frames"):
            driver.read(1)
        driver.disconnect()

    def test_a_control_port_that_is_unplugged_is_a_lost_camera(
        self, capture: type[Capture], port: BosonPort
    ) -> None:
        driver = build(own={"port": str(port.path)})
        driver.connect()
        driver.read(1)
        port.unplug()
        with pytest.raises(DeviceLost, match="is gone"):
            list(read_all(driver, 5))
        with pytest.raises(DeviceNotFound, match="there is no such port"):
            driver.connect()
        assert capture.held == 0
        port.plug()
        driver.connect()
        assert [s.seq for s in read_all(driver, 3)] == [0, 1, 2]
        driver.disconnect()

    def test_settings_are_sent(self, capture: type[Capture], port: BosonPort) -> None:
        driver = build(own={"port": str(port.path), "ffc": "manual", "gain": "low"})
        driver.connect()
        driver.disconnect()
        assert (0x0005_0012, bytes(4)) in port.asked
        assert (0x0005_0014, bytes((0, 0, 0, 1))) in port.asked

    def test_what_cannot_be_opened_says_why(self, capture: type[Capture]) -> None:
        capture.opened = False
        with pytest.raises(DeviceNotFound, match=r"/dev/video0 cannot be opened \(there is no"):
            build(own={"port": None}).connect()


def lepton_frame(
    number: int, counter: int, ffc: int = 3, tlinear: int = 1, resolution: int = 1
) -> Array:
    words = np.zeros(240, np.uint16)
    up_ms = 70_000 + counter * 115
    words[1], words[2] = up_ms & 0xFFFF, up_ms >> 16
    words[3] = ffc << 4
    words[20], words[21] = counter & 0xFFFF, counter >> 16
    words[160 + 48], words[160 + 49] = tlinear, resolution
    pixels = np.full((60, 80), 30_000 + counter % 100, np.uint16)
    return np.vstack([pixels, words.reshape(3, 80)])


class TestLepton:
    def take(self, capture: type[Capture], frames: list[Array], **fields: Any) -> list[Any]:
        def give(number: int) -> Array | None:
            return frames[number] if number < len(frames) else None

        capture.frames = staticmethod(give)  # type: ignore[assignment]  # a plain function there
        driver = build(source="lepton", own={"size": (80, 63)}, **fields)
        driver.connect()
        samples = []
        try:
            for _ in frames:
                samples += driver.read(1)
        except DeviceLost:
            pass
        driver.disconnect()
        return samples

    def test_repeats_are_left_out_and_counted_as_nothing(self, capture: type[Capture]) -> None:
        counters = [65_534 + n // 3 for n in range(12)]  # over the end of 16 bits too
        frames = [lepton_frame(n, counter) for n, counter in enumerate(counters)]
        samples = self.take(capture, frames)
        assert [(s.seq, s.lost) for s in samples] == [(0, 0), (1, 0), (2, 0), (3, 0)]
        (info,) = {s.stream for s in samples}
        assert (info.shape, info.unit, info.clock_domain) == ((60, 80), "c", "Lepton time counter")
        assert samples[3].device_t_ns[0] - samples[0].device_t_ns[0] == 3 * 115_000_000
        np.testing.assert_allclose(samples[1].data, 300.35 - 273.15, rtol=1e-5)

    def test_missing_frames_and_a_correction_are_lost_ticks(self, capture: type[Capture]) -> None:
        ffc = {13: 1, 14: 2, 15: 2}
        frames = [lepton_frame(n, c, ffc.get(c, 3)) for n, c in enumerate([10, 13, 14, 15, 16, 17])]
        samples = self.take(capture, frames)
        assert [(s.seq, s.lost) for s in samples] == [(0, 0), (3, 2), (6, 2), (7, 0)]

    def test_a_tenth_of_a_kelvin(self, capture: type[Capture]) -> None:
        (sample,) = self.take(capture, [lepton_frame(0, 1, resolution=0)])
        np.testing.assert_allclose(sample.data, 3000.1 - 273.15, rtol=1e-5)

    def test_counts_where_it_is_not_radiometric(self, capture: type[Capture]) -> None:
        (sample,) = self.take(capture, [lepton_frame(0, 1, tlinear=0)])
        assert (sample.stream.unit, sample.data.dtype) == ("counts", np.uint16)


class TestControl:
    def test_a_real_cameras_frames(self) -> None:
        assert encode(1, 0x0005_0002) == REAL_REQUEST
        assert Fslp().feed(REAL_SERIAL) == [Reply(1, 0x0005_0002, 0, b"\x00\x01\x6d\x94")]
        (fpa,) = Fslp().feed(REAL_FPA)
        assert int.from_bytes(fpa.data, "big") / 10 == 38.0

    @given(
        frames=st.lists(st.tuples(st.binary(max_size=40), st.binary(max_size=8)), max_size=6),
        cut=st.integers(1, 9),
    )
    def test_any_data_comes_through_noise_in_any_pieces(
        self, frames: list[tuple[bytes, bytes]], cut: int
    ) -> None:
        stream = b""
        for data, noise in frames:
            clean = bytes(byte for byte in noise if byte not in (0x8E, 0xAE))
            stream += clean + encode(7, 9, data, 0)
        decoder = Fslp()
        got = [r for at in range(0, len(stream), cut) for r in decoder.feed(stream[at : at + cut])]
        assert [reply.data for reply in got] == [data for data, _ in frames]
        assert decoder.bad == 0

    @given(data=st.binary(max_size=30), at=st.integers(1, 200), flip=st.integers(1, 255))
    def test_a_broken_byte_never_makes_another_answer(
        self, data: bytes, at: int, flip: int
    ) -> None:
        good = encode(7, 9, data, 0)
        broken = bytearray(good)
        broken[at % len(good)] ^= flip
        assert all(reply.data == data for reply in Fslp().feed(bytes(broken)))
        assert Fslp().feed(bytes(broken) + good)[-1:] == [Reply(7, 9, 0, data)]

    def test_it_is_asked_over_a_noisy_line_in_halves(self, port: BosonPort) -> None:
        port.noise, port.split_s = b"\x00\x8e\x01\x02\xae\xff\x9e", 0.01
        control = BosonControl(str(port.path), "boson", SystemClock())
        assert control.serial_number() == 0x8E9E_AE01
        assert control.part_number() == "20640A012-6PAAX"
        assert control.fpa_c() == pytest.approx(31.4)
        assert control.gain() == 2
        control.correct()
        assert port.asked[-1] == (0x0005_0007, b"")
        control.close()
        control.close()

    def test_a_silent_or_refusing_camera_is_told(self, port: BosonPort) -> None:
        control = BosonControl(str(port.path), "boson", SystemClock())
        port.refused = 0x161
        with pytest.raises(BadData, match="0x00050030 gave status 0x161"):
            control.fpa_c()
        port.silent = True
        with pytest.raises(ReadTimeout, match="no answer to 0x00050030"):
            control.fpa_c()
        control.close()


class TestDiscovery:
    @pytest.fixture
    def tree(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        monkeypatch.setattr(usb, "SYS_VIDEO", tmp_path / "class")
        monkeypatch.setattr(usb, "V4L_LINKS", tmp_path / "by-path")
        monkeypatch.setattr(usb, "DEV", tmp_path / "dev")
        for folder in ("class", "by-path", "dev"):
            (tmp_path / folder).mkdir()

        def add(number: int, ids: tuple[str, str], serial: str, index: int = 0) -> None:
            usb = tmp_path / f"usb/1-{number // 2}"
            interface = usb / f"1-{number // 2}:1.0"
            interface.mkdir(parents=True, exist_ok=True)
            (usb / "idVendor").write_text(ids[0] + "\n")
            (usb / "idProduct").write_text(ids[1] + "\n")
            if serial:
                (usb / "serial").write_text(serial + "\n")
            entry = tmp_path / f"class/video{number}"
            entry.mkdir()
            (entry / "device").symlink_to(interface)
            (entry / "index").write_text(f"{index}\n")
            (tmp_path / f"dev/video{number}").touch()
            link = tmp_path / f"by-path/pci-usb-{number // 2}-index{index}"
            link.symlink_to(tmp_path / f"dev/video{number}")

        return add

    def test_known_cameras_are_found_by_their_ids(self, tree: Callable[..., None]) -> None:
        tree(0, ("046d", "0825"), "web")
        tree(2, ("09cb", "4007"), "1234")
        tree(3, ("09cb", "4007"), "1234", index=1)
        tree(4, ("1e4e", "0100"), "8001")
        boson, lepton = usb.discover_uvc()
        assert (boson.identity, boson.by_port, boson.problem) == ("serial:1234", False, "")
        assert boson.settings == {"source": "boson", "boson": {"device": "usb:1234", "port": None}}
        assert lepton.settings == {"source": "lepton", "lepton": {"device": "usb:8001"}}
        msgspec.convert(lepton.settings, FlirConfig)
        assert usb.find_video("auto", "boson", "x").endswith("/video2")

    def test_twins_are_told_by_their_sockets_and_never_guessed(
        self, tree: Callable[..., None]
    ) -> None:
        tree(2, ("1e4e", "0100"), "")
        tree(4, ("1e4e", "0100"), "")
        found = usb.discover_uvc()
        assert [device.by_port for device in found] == [True, True]
        assert [device.identity for device in found] == [
            "by-path:pci-usb-1-index0",
            "by-path:pci-usb-2-index0",
        ]
        with pytest.raises(DeviceNotFound, match=r"'auto' means no one camera of: .*1-1.*1-2"):
            usb.find_video("auto", "lepton", "x")
        with pytest.raises(DeviceNotFound, match="no FLIR Boson answers to 'usb:9'"):
            usb.find_video("usb:9", "boson", "x")

    def test_a_boson_comes_with_the_control_port_of_its_own_socket(
        self, tree: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(usb, "SYS_TTY", tmp_path / "tty")
        ports = []
        for number in (2, 4):
            tree(number, ("09cb", "4007"), "")
            (tmp_path / f"tty/ttyACM{number}").mkdir(parents=True)
            interface = tmp_path / f"usb/1-{number // 2}/1-{number // 2}:1.2"
            interface.mkdir()
            (tmp_path / f"tty/ttyACM{number}/device").symlink_to(interface)
            path = str(tmp_path / f"dev/ttyACM{number}")
            link = f"/dev/serial/by-path/{number // 2}"
            ports.append(SerialPort(link, path, "Boson", "", True, 0x09CB, 0x4007, None))
        ports.append(SerialPort("usb:7", "/dev/ttyUSB0", "GPS", "", False, 1, 2, "7"))
        monkeypatch.setattr(usb, "find_ports", lambda: ports[::-1])
        found = [dict(device.settings["boson"]) for device in usb.discover_uvc()]
        assert [boson["port"] for boson in found] == [
            "/dev/serial/by-path/1",
            "/dev/serial/by-path/2",
        ]
