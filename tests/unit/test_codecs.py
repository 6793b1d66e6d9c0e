"""Codecs: what goes into a message comes out of it, and others can read it too."""

from __future__ import annotations

import io

import hypothesis.extra.numpy as hnp
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from agent.codecs import STREAM_KEY, Block, codec_for, decode, decode_compressed, decode_pixels
from agent.errors import BadData, ConfigError
from agent.types import Array, Int64Array, Sample, StreamInfo
from tests.fakes.log_streams import STREAMS, make_samples

SCHEMAS = {
    "cam": "foxglove.CompressedImage",
    "grey": "foxglove.CompressedImage",
    "depth": "foxglove.RawImage",
    "thermal": "foxglove.RawImage",
    "thermal8": "foxglove.RawImage",
    "celsius": "foxglove.RawImage",
    "mic": "foxglove.RawAudio",
    "mic_float": "foxglove.RawAudio",
    "imu": "sensor_msgs/msg/Imu",
    "radar": "sensebind.Vector",
}
ENCODINGS = {"depth": "16UC1", "thermal": "mono16", "thermal8": "mono8", "celsius": "32FC1"}
LOSSY = ("cam", "grey")


@pytest.mark.parametrize("name", STREAMS)
def test_every_sense_comes_back(name: str) -> None:
    info = STREAMS[name]
    codec = codec_for(info)
    assert codec.schema.name == SCHEMAS[name]
    assert msgspec.json.decode(codec.metadata[STREAM_KEY], type=StreamInfo) == info
    for sample in make_samples(info, 3):
        found = [decode(codec.schema.name, message, info) for message in codec.encode(sample)]
        assert found[0] is not None
        assert found[0].t_ns == sample.t_ns[0]
        data = np.concatenate([ticks.data for ticks in found if ticks is not None])
        assert data.dtype == sample.data.dtype
        if name in LOSSY:
            assert data.shape == sample.data.shape
            assert np.abs(data.astype(int) - sample.data).mean() < 3
        else:
            np.testing.assert_array_equal(data, sample.data)
        if name in ENCODINGS:
            assert found[0].encoding == ENCODINGS[name]


def test_audio_without_a_rate_cannot_be_recorded() -> None:
    info = StreamInfo("mic", "audio", "int16", (1,), None, "full_scale")
    with pytest.raises(ConfigError, match=r"stream mic: audio needs a rate_hz"):
        codec_for(info)


def test_float_audio_is_clipped_and_not_wrapped() -> None:
    info = STREAMS["mic_float"]
    data = np.array([[1.0], [-1.0], [7.0]], np.float32)
    sample = Sample(info, 0, np.arange(3, dtype=np.int64), 3, data)
    (message,) = codec_for(info).encode(sample)
    ticks = decode("foxglove.RawAudio", message)
    assert ticks is not None
    assert ticks.data.ravel().tolist() == [32767, -32768, 32767]


stamps = hnp.arrays(np.int64, st.integers(1, 50), elements=st.integers(0, 2**62)).map(np.sort)


@given(stamps, st.integers(0, 2**40), st.integers(0, 1000), st.data())
def test_a_block_note_keeps_every_stamp(
    t_ns: Int64Array, seq: int, lost: int, data: st.DataObject
) -> None:
    info = StreamInfo("x", "radar", "uint8", (), None, "m")
    any_int64 = st.integers(-(2**63), 2**63 - 1)
    device = data.draw(st.none() | hnp.arrays(np.int64, len(t_ns), elements=any_int64))
    sample = Sample(info, seq, t_ns, 0, np.zeros(len(t_ns), np.uint8), device, lost)
    note = Block.decode(Block.of(sample).encode())
    assert (note.stream, note.seq, note.lost, note.ticks) == ("x", seq, lost, len(t_ns))
    np.testing.assert_array_equal(note.t_ns(), t_ns)
    if device is None:
        assert note.device_t_ns() is None
    else:
        np.testing.assert_array_equal(note.device_t_ns(), device)


def test_a_damaged_block_note_is_bad_data() -> None:
    sample = make_samples(STREAMS["imu"], 1)[0]
    note = Block.of(sample)
    with pytest.raises(BadData, match="not a block note"):
        Block.decode(b"{}")
    with pytest.raises(BadData, match="cannot be unpacked"):
        msgspec.structs.replace(note, t=b"x").t_ns()
    with pytest.raises(BadData, match="20 stamps, expected 7"):
        msgspec.structs.replace(note, ticks=7).t_ns()


finite32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=50)
@given(hnp.arrays(np.float32, (2, 6), elements=finite32), st.integers(0, 2**31 - 1))
def test_any_imu_tick_comes_back(data: Array, second: int) -> None:
    info = STREAMS["imu"]
    t_ns = np.array([second * 10**9 + 5, second * 10**9 + 999_999_999], np.int64)
    codec = codec_for(info)
    found = [decode(codec.schema.name, m) for m in codec.encode(Sample(info, 0, t_ns, 0, data))]
    np.testing.assert_array_equal(np.concatenate([f.data for f in found if f]), data)
    assert [f.t_ns for f in found if f] == t_ns.tolist()
    assert {f.frame_id for f in found if f} == {"imu_link"}


numbers = st.sampled_from(["float32", "float64", "int64", "uint64", "int8", "bool"])


@settings(max_examples=80)
@given(st.data(), numbers, hnp.array_shapes(min_dims=0, max_dims=3, min_side=1, max_side=4))
def test_any_other_numbers_come_back(
    data: st.DataObject, dtype: str, shape: tuple[int, ...]
) -> None:
    info = StreamInfo("x", "radar", dtype, shape, None, "?")
    elements = {"allow_nan": False, "allow_infinity": False} if dtype.startswith("f") else {}
    block = data.draw(
        hnp.arrays(dtype, (1, *shape), elements=hnp.from_dtype(np.dtype(dtype), **elements))
    )
    codec = codec_for(info)
    if codec.schema.name != "sensebind.Vector":
        return
    (message,) = codec.encode(Sample(info, 0, np.zeros(1, np.int64), 0, block))
    ticks = decode("sensebind.Vector", message, info)
    assert ticks is not None
    assert ticks.data.dtype == block.dtype
    np.testing.assert_array_equal(ticks.data, block)


pixel_types = st.sampled_from([("mono16", "u2"), ("16UC1", "u2"), ("32FC1", "f4"), ("8UC1", "u1")])


@given(pixel_types, st.integers(1, 5), st.integers(1, 5), st.integers(0, 3), st.booleans())
def test_raw_pixels_with_padding_and_either_byte_order(
    kind: tuple[str, str], width: int, height: int, padding: int, big: bool
) -> None:
    encoding, code = kind
    pixels = np.arange(width * height).reshape(height, width).astype(code)
    stored = pixels.astype(np.dtype(code).newbyteorder(">" if big else "<"))
    step = width * stored.itemsize + padding
    data = b"".join(row.tobytes() + b"\xff" * padding for row in stored)
    found = decode_pixels(encoding, width, height, step, data, big)
    assert found.dtype == pixels.dtype
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize(
    ("encoding", "stored"),
    [
        ("rgb8", [1, 2, 3]),
        ("bgr8", [3, 2, 1]),
        ("8UC3", [3, 2, 1]),
        ("rgba8", [1, 2, 3, 9]),
        ("bgra8", [3, 2, 1, 9]),
    ],
)
def test_colours_become_rgb(encoding: str, stored: list[int]) -> None:
    found = decode_pixels(encoding, 2, 1, 2 * len(stored), bytes(stored * 2))
    assert found.tolist() == [[[1, 2, 3], [1, 2, 3]]]


def test_pixels_that_cannot_be() -> None:
    with pytest.raises(
        BadData, match=r"encoding 'bayer_rggb8' is not known, expected one of mono8"
    ):
        decode_pixels("bayer_rggb8", 2, 2, 2, bytes(4))
    with pytest.raises(BadData, match=r"3 bytes in rows of 2, expected 2 rows of >= 2"):
        decode_pixels("mono8", 2, 2, 2, bytes(3))
    with pytest.raises(BadData, match="expected 2 rows of >= 4"):
        decode_pixels("mono16", 2, 2, 2, bytes(8))


def test_compressed_pictures() -> None:
    depth = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000
    file = io.BytesIO()
    Image.fromarray(depth).save(file, "PNG")
    np.testing.assert_array_equal(decode_compressed(file.getvalue()), depth)
    palette = io.BytesIO()
    Image.new("P", (4, 3)).save(palette, "PNG")
    assert decode_compressed(palette.getvalue()).shape == (3, 4, 3)
    with pytest.raises(BadData, match="not a JPEG or PNG"):
        decode_compressed(b"hello")
    with pytest.raises(BadData, match="not a JPEG or PNG"):
        decode_compressed(file.getvalue()[:60])


@pytest.mark.parametrize("schema", sorted(set(SCHEMAS.values())))
def test_messages_that_are_not_what_they_say(schema: str) -> None:
    with pytest.raises(BadData):
        decode(schema, b"\xff\xff\xff")


def test_a_schema_of_others_is_no_error() -> None:
    assert decode("foxglove.Grid", b"") is None
