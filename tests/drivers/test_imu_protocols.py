"""The parsers, on bytes built from the manuals: cuts, garbage, wrong checksums."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.imu import ImuConfig
from drivers.imu_protocols import Decoder
from tests.fakes.imu_messages import MESSAGES, expected, vectornav, wit, wit_cycle, xsens

PROTOCOLS = sorted(MESSAGES)
BINARY = [name for name in PROTOCOLS if name not in ("csv", "json")]
# int16 over 2000 degree/s or 16 g is the coarsest of them.
TOLERANCE = 0.003


def make(protocol: str) -> Decoder:
    fields = {"port": "/dev/ttyX", "protocol": protocol, "text": MESSAGES[protocol][1]}
    return msgspec.convert(fields, ImuConfig).decoder()


def message(protocol: str, number: int) -> bytes:
    return MESSAGES[protocol][0](number)


@pytest.mark.parametrize("protocol", PROTOCOLS)
class TestEach:
    def test_values_are_in_si_units_and_numbered(self, protocol: str) -> None:
        readings = make(protocol).feed(b"".join(message(protocol, n) for n in range(300)))
        assert len(readings) == 300
        for number, reading in enumerate(readings):
            np.testing.assert_allclose(
                reading.values, expected(protocol, number), rtol=1e-6, atol=TOLERANCE
            )
        counts = [r.count for r in readings]
        if protocol != "vectornav":
            assert np.all(np.diff(counts) % make(protocol).count_modulo == 1)
        if protocol in ("xsens", "vectornav", "csv"):
            assert [r.device_ns for r in readings[:3]] == [0, 10_000_000, 20_000_000]

    def test_any_cut_gives_the_same(self, protocol: str) -> None:
        stream = b"noise\n\xaa\x55\xfa\n" + b"".join(message(protocol, n) for n in range(3))
        whole = make(protocol)
        readings = whole.feed(stream)
        assert len(readings) == 3
        for at in range(len(stream)):
            cut = make(protocol)
            assert cut.feed(stream[:at]) + cut.feed(stream[at:]) == readings
            assert cut.bad_bytes == whole.bad_bytes

    @given(st.lists(st.tuples(st.binary(max_size=40), st.booleans()), max_size=8), st.data())
    def test_any_garbage_in_any_pieces_gives_the_same(
        self, protocol: str, parts: list[tuple[bytes, bool]], data: st.DataObject
    ) -> None:
        stream = b"".join(
            noise + (message(protocol, n) if good else b"") for n, (noise, good) in enumerate(parts)
        )
        whole, pieces = make(protocol), make(protocol)
        readings = whole.feed(stream)
        size = data.draw(st.integers(1, 30))
        got = [r for at in range(0, len(stream), size) for r in pieces.feed(stream[at : at + size])]
        assert got == readings
        # Where noise swallows a message it gives it back: enough sound ones always get through.
        tail = b"\n" + bytes(2100) + b"\n" + b"".join(message(protocol, n) for n in range(200, 210))
        assert len(whole.feed(tail)) >= 9

    def test_garbage_is_counted(self, protocol: str) -> None:
        decoder = make(protocol)
        noise = b"0123456789\n"
        assert len(decoder.feed(message(protocol, 0) + noise + message(protocol, 1))) == 2
        assert decoder.bad_bytes == len(noise)

    def test_garbage_without_end_takes_no_memory(self, protocol: str) -> None:
        decoder = make(protocol)
        for _ in range(200):
            decoder.feed(b"\xaa\x00\xfa\x01x" * 100)
        assert len(decoder._buffer) < 5000


@pytest.mark.parametrize("protocol", BINARY)
def test_no_single_wrong_byte_gives_a_wrong_reading(protocol: str) -> None:
    before, broken, after = (message(protocol, n) for n in range(3))
    good = make(protocol).feed(before + broken + after)
    for at in range(len(broken)):
        wrong = bytearray(broken)
        wrong[at] ^= 0x10
        decoder = make(protocol)
        # The zeros let a length that has grown run out.
        got = decoder.feed(before + bytes(wrong) + after + bytes(4096))
        assert {r.values for r in got} <= {r.values for r in good}
        assert got[0].values == good[0].values
        assert got[-1].values == good[2].values
        assert decoder.bad_bytes > 4096 - 4


class TestWitMotion:
    def test_half_a_cycle_is_a_lost_one(self) -> None:
        half = wit(0x51, [1, 2, 3, 4])
        other = wit(0x52, [1, 2, 3, 4])
        readings = make("witmotion").feed(wit_cycle(0) + half + wit_cycle(1) + other + wit_cycle(2))
        assert [r.count for r in readings] == [1, 3, 5]

    def test_other_ranges(self) -> None:
        fields = {"port": "/dev/ttyX", "protocol": "witmotion"}
        ranges = {"accel_range_g": 4, "gyro_range_dps": 500}
        decoder = msgspec.convert(fields | ranges, ImuConfig).decoder()
        (reading,) = decoder.feed(wit_cycle(3, range_g=4, range_dps=500))
        np.testing.assert_allclose(reading.values, expected("witmotion", 3), atol=0.001)


class TestXsens:
    @pytest.mark.parametrize("fields", [{"double": True}, {"extended": True}])
    def test_other_forms_of_the_same(self, fields: dict[str, Any]) -> None:
        (plain,), (other,) = (make("xsens").feed(m) for m in (xsens(7), xsens(7, **fields)))
        np.testing.assert_allclose(other.values, plain.values, rtol=1e-6)
        assert (other.count, other.device_ns) == (7, 70_000_000)

    def test_a_message_without_what_is_needed_gives_nothing(self) -> None:
        body = b"\xff\x36\x05\x10\x20\x02\x00\x07"
        decoder = make("xsens")
        assert decoder.feed(b"\xfa" + body + bytes([-sum(body) & 0xFF])) == []
        assert decoder.bad_bytes == 0


class TestVectorNav:
    @pytest.mark.parametrize("form", ["imu", "groups", "raw"])
    def test_any_set_of_fields(self, form: str) -> None:
        (plain,), (other,) = (
            make("vectornav").feed(m) for m in (vectornav(7), vectornav(7, form=form))
        )
        assert other == plain

    @pytest.mark.parametrize(
        "header", ["fa 00", "fa 80 01 00", "fa 01 00 00", "fa 01 00 80", "fa 08 00 40"]
    )
    def test_a_message_of_no_known_length_is_refused_at_once(self, header: str) -> None:
        decoder = make("vectornav")
        start = bytes.fromhex(header)
        assert len(decoder.feed(start + vectornav(7))) == 1
        assert decoder.bad_bytes == len(start)

    def test_its_length_is_that_of_a_sensor_as_used(self) -> None:
        # A VN-100's set-up with the header fa 14 3e 00 3a 00, whose owner counts 123 bytes after
        # the first: github.com/jerabaul29/LoggerWavesInIce.
        length = make("vectornav")._length(bytearray.fromhex("fa 14 3e 00 3a 00"))
        assert length == 1 + 123


class TestText:
    @pytest.mark.parametrize(
        "line",
        [
            b"1,2,3",
            b"0,1,a,2,3,4,5,6",
            b"0,1,2,3,4,5,6,7,8",
            b"inf,1,2,3,4,5,6,7",
            b"\xff",
            b"x" * 3000,
        ],
    )
    def test_a_line_that_cannot_be_read_is_garbage(self, line: bytes) -> None:
        decoder = make("csv")
        assert decoder.feed(line + b"\n" + MESSAGES["csv"][0](3))[0].count == 3
        assert decoder.bad_bytes == len(line) + 1

    @pytest.mark.parametrize("line", [b"[1]", b"{}", b"{", b'{"accX": "1"}', b"null"])
    def test_nor_json(self, line: bytes) -> None:
        decoder = make("json")
        assert decoder.feed(line + b"\n" + MESSAGES["json"][0](3))[0].count == 3
        assert decoder.bad_bytes == len(line) + 1

    @pytest.mark.parametrize(
        "text",
        [
            {"columns": ["ax", "ay", "az"]},
            {"columns": ["ax", "ax", "ay", "az", "gx", "gy", "gz"]},
            {"columns": ["ax", "ay", "az", "gx", "gy", "gz", "temperature"]},
            {"acceleration": "ft/s^2"},
            {"time_bits": 65},
        ],
    )
    def test_what_may_not_be(self, text: dict[str, Any]) -> None:
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({"port": "auto", "protocol": "csv", "text": text}, ImuConfig)
