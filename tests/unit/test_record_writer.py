"""The recorder: its file as others read it, its queue, its faults."""

from __future__ import annotations

import json
import resource
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from mcap.opcode import Opcode
from mcap.reader import make_reader
from mcap_protobuf.decoder import DecoderFactory as ProtobufFactory
from mcap_ros2.decoder import DecoderFactory as Ros2Factory

from agent import wire
from agent.clock import ManualClock
from agent.errors import BadData, ConfigError, DeviceNotFound, RecordError
from agent.record.reader import LogReader
from agent.record.writer import LogWriter
from agent.types import Sample, StreamInfo
from tests.fakes.log_streams import STREAMS, make_samples
from tests.fakes.wire_messages import event


def stopped() -> threading.Event:
    stop = threading.Event()
    stop.set()
    return stop


def writer(path: Path, **options: object) -> LogWriter:
    return LogWriter(path, clock=ManualClock(5), agent="unit", boot_id="b00t", **options)


def record(path: Path, samples: list[Sample]) -> LogWriter:
    log = writer(path)
    for sample in samples:
        log.put(sample)
    log.run(stopped())
    return log


def test_independent_readers_agree_on_counts_and_values(tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    samples = {name: make_samples(STREAMS[name], 4) for name in ("cam", "depth", "mic", "imu")}
    record(path, [s for blocks in samples.values() for s in blocks])
    found: dict[str, list[object]] = {}
    schemas, times = {}, {}
    with path.open("rb") as file:
        reader = make_reader(file, decoder_factories=[ProtobufFactory(), Ros2Factory()])
        topics = [f"/{name}" for name in samples]
        for schema, channel, message, decoded in reader.iter_decoded_messages(topics):
            found.setdefault(channel.topic, []).append(decoded)
            schemas[channel.topic] = (schema.name, schema.encoding, channel.message_encoding)
            times.setdefault(channel.topic, []).append((message.log_time, message.publish_time))
    assert schemas == {
        "/cam": ("foxglove.CompressedImage", "protobuf", "protobuf"),
        "/depth": ("foxglove.RawImage", "protobuf", "protobuf"),
        "/mic": ("foxglove.RawAudio", "protobuf", "protobuf"),
        "/imu": ("sensor_msgs/msg/Imu", "ros2msg", "cdr"),
    }
    for name, blocks in samples.items():
        per_block = {"mic": [1] * 4}.get(name, [len(b) for b in blocks])
        arrivals = [b.arrival_ns for b, n in zip(blocks, per_block, strict=True) for _ in range(n)]
        assert [log for log, _ in times[f"/{name}"]] == arrivals
        assert all(log == publish for log, publish in times[f"/{name}"])
    image = found["/cam"][0]
    assert (image.format, image.frame_id) == ("jpeg", "cam_optical")
    assert image.timestamp.ToNanoseconds() == samples["cam"][0].t_ns[0]
    depth = found["/depth"][2]
    assert (depth.encoding, depth.width, depth.height, depth.step) == ("16UC1", 64, 48, 128)
    assert depth.data == samples["depth"][2].data.tobytes()
    sound = found["/mic"][1]
    assert (sound.format, sound.sample_rate, sound.number_of_channels) == ("pcm-s16", 48_000, 2)
    assert sound.data == samples["mic"][1].data.tobytes()
    ticks = np.concatenate([b.data for b in samples["imu"]])
    stamps = np.concatenate([b.t_ns for b in samples["imu"]])
    for imu, tick, t_ns in zip(found["/imu"], ticks, stamps, strict=True):
        a, g = imu.linear_acceleration, imu.angular_velocity
        assert [a.x, a.y, a.z, g.x, g.y, g.z] == tick.tolist()
        assert imu.header.stamp.sec * 10**9 + imu.header.stamp.nanosec == t_ns
        assert imu.orientation_covariance[0] == -1


def test_messages_of_the_agent_have_their_schema(tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    log = writer(path)
    payload = wire.encode(event())
    log.put_message("/events_full", "Event", payload, 7)
    log.put_message("/control", "Control", b'{"op":"status","id":"1"}', 8)
    log.run(stopped())
    with path.open("rb") as file:
        reader = make_reader(file, decoder_factories=[ProtobufFactory()])
        messages = {channel.topic: (s, m) for s, channel, m in reader.iter_messages()}
        (short,) = (d for _, c, _, d in reader.iter_decoded_messages("/events"))
    assert sorted(messages) == ["/control", "/events", "/events_full"]
    schema, message = messages["/events_full"]
    assert (schema.name, schema.encoding, message.data) == (
        "sensebind.Event",
        "jsonschema",
        payload,
    )
    jsonschema.validate(json.loads(payload), json.loads(schema.data))
    assert messages["/events"][0].name == "foxglove.Event"
    assert short.start_time.seconds == event().start_time.sec
    assert short.end_time.nanos == event().end_time.nsec
    pairs = {pair.key: pair.value for pair in short.metadata}
    assert pairs["id"] == event().id
    assert pairs["query"] == event().query.id
    with LogReader(path) as reader:
        assert list(reader.messages("/control")) == [(8, b'{"op":"status","id":"1"}')]


def test_an_event_that_is_none_stops_the_recorder(tmp_path: Path) -> None:
    log = writer(tmp_path / "run.mcap")
    log.put_message("/events_full", "Event", b"{}", 7)
    with pytest.raises(RecordError, match="/events: not an Event"):
        log.run(stopped())


def test_the_reader_has_what_replay_needs(tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    log = writer(path, metadata={"config": "a: 1", "config.sha256": "abc"})
    samples = make_samples(STREAMS["imu"], 3)
    log.add_stream(STREAMS["depth"])
    for sample in samples:
        log.put(sample)
    log.run(stopped())
    with LogReader(path) as reader:
        assert reader.complete
        assert reader.run["agent"] == "unit"
        assert reader.run["boot_id"] == "b00t"
        assert reader.run["config"] == "a: 1"
        assert "version.sensebind" in reader.run
        assert reader.streams == {"imu": STREAMS["imu"], "depth": STREAMS["depth"]}
        imu = reader.ledger["imu"]
        assert (imu.received, imu.written, imu.dropped) == (60, 60, 0)
        assert (reader.start_ns, reader.end_ns) == (samples[0].arrival_ns, samples[-1].arrival_ns)


def test_an_empty_log_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    writer(path).run(stopped())
    with LogReader(path) as reader:
        assert reader.complete
        assert (reader.start_ns, reader.end_ns, reader.ledger) == (0, 0, {})


def test_a_full_queue_drops_the_newest_and_counts(tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    samples = make_samples(STREAMS["depth"], 10)
    room = 6.5 * (samples[0].data.nbytes + 16) / 2**20
    log = writer(path, max_queue_mb=room)
    for sample in samples:  # nobody takes anything out: were put() to block, it would for ever
        log.put(sample)
    assert log.dropped == 4
    assert (log.ledger["depth"].received, log.ledger["depth"].dropped) == (10, 4)
    log.run(stopped())
    log.put(samples[0])
    assert log.ledger["depth"].dropped == 5
    with LogReader(path) as reader:
        counts = reader.ledger["depth"]
        assert (counts.received, counts.written, counts.dropped) == (10, 6, 4)
        assert [t for t, _ in reader.messages("/depth")] == [s.arrival_ns for s in samples[:6]]


def test_room_is_made_again_by_writing(tmp_path: Path) -> None:
    samples = make_samples(STREAMS["depth"], 30)
    log = writer(tmp_path / "run.mcap", max_queue_mb=2 * (samples[0].data.nbytes + 16) / 2**20)
    stop = threading.Event()
    thread = threading.Thread(target=log.run, args=(stop,), daemon=True)
    thread.start()
    for i, sample in enumerate(samples):
        log.put(sample)
        while log.ledger["depth"].written <= i:
            time.sleep(0.001)
    stop.set()
    thread.join()
    assert log.dropped == 0


def test_many_threads_lose_nothing_unsaid(tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    log = writer(path, max_queue_mb=0.2)
    stop = threading.Event()
    names = ("depth", "thermal", "imu", "radar")
    recorder = threading.Thread(target=log.run, args=(stop,), daemon=True)

    def produce(name: str) -> None:
        for sample in make_samples(STREAMS[name], 40):
            log.put(sample)

    producers = [threading.Thread(target=produce, args=(name,), daemon=True) for name in names]
    for thread in (recorder, *producers):
        thread.start()
    for thread in producers:
        thread.join()
    stop.set()
    recorder.join()
    with LogReader(path) as reader:
        for name in names:
            counts = reader.ledger[name]
            assert counts.received == 40 * len(make_samples(STREAMS[name], 1)[0])
            assert counts.written + counts.dropped == counts.received
            assert len(list(reader.messages(f"/{name}"))) == counts.written


def test_bad_paths_are_refused_at_once(tmp_path: Path) -> None:
    there = tmp_path / "there.mcap"
    there.write_bytes(b"precious")
    with pytest.raises(RecordError, match=r"there\.mcap: exists already"):
        writer(there)
    assert there.read_bytes() == b"precious"
    with pytest.raises(RecordError, match=r"run\.mcap: cannot be created: No such file"):
        writer(tmp_path / "missing" / "run.mcap")
    with pytest.raises(RecordError, match=r"run\.mcap: cannot be created: Not a directory"):
        writer(there / "run.mcap")


def test_a_stream_that_cannot_be_recorded_is_refused_at_once(tmp_path: Path) -> None:
    log = writer(tmp_path / "run.mcap")
    with pytest.raises(ConfigError, match="stream mic"):
        log.add_stream(StreamInfo("mic", "audio", "int16", (1,), None, "full_scale"))
    log.close()


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """What a full disk is to a program: writes past `size` bytes fail."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("blocks", [2, 400], ids=["at the end", "while it runs"])
def test_a_full_disk_stops_the_recorder(
    tmp_path: Path, blocks: int, capfd: pytest.CaptureFixture[str]
) -> None:
    log = writer(tmp_path / "run.mcap")
    for sample in make_samples(STREAMS["depth"], blocks):
        log.put(sample)
    with (
        no_file_larger_than(8192),
        pytest.raises(RecordError, match=r"run\.mcap: cannot be written: File too large"),
    ):
        log.run(stopped())
    capfd.readouterr()  # the SDK prints it too
    log.close()
    with LogReader(tmp_path / "run.mcap") as reader:
        assert not reader.complete


def test_close_without_run_leaves_a_log_that_says_it_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    log = writer(path)
    log.close()
    log.close()
    with LogReader(path) as reader:
        assert not reader.complete
        assert reader.run["agent"] == "unit"


def test_what_is_flushed_can_be_read_while_recording_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    clock = ManualClock(0)
    log = LogWriter(path, clock=clock, agent="a", boot_id="b")
    stop = threading.Event()
    thread = threading.Thread(target=log.run, args=(stop,), daemon=True)
    thread.start()
    samples = make_samples(STREAMS["depth"], 2)
    log.put(samples[0])
    while log.ledger["depth"].written < 1:
        time.sleep(0.001)
    clock.advance_to_ns(10**9)  # a flush is due
    found: list[tuple[int, bytes]] = []
    while not found:
        with LogReader(path) as reader:
            assert not reader.complete
            found = list(reader.messages("/depth"))
    stop.set()
    thread.join()
    assert [t for t, _ in found] == [samples[0].arrival_ns]


def test_logs_of_others_and_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DeviceNotFound, match=r"none\.mcap: No such file"):
        LogReader(tmp_path / "none.mcap")
    text = tmp_path / "text.mcap"
    text.write_text("hello there")
    with pytest.raises(DeviceNotFound, match="not an MCAP file"):
        LogReader(text)
    log = writer(tmp_path / "odd.mcap")
    log._write_metadata("sensebind.streams", {"x": "not json"})
    log.close()
    with pytest.raises(BadData, match="not of this version"):
        LogReader(tmp_path / "odd.mcap")


@pytest.mark.parametrize("inner", [2**64 - 1, 2**62, 2**40])
def test_a_chunk_whose_header_was_never_filled_in_is_a_cut(tmp_path: Path, inner: int) -> None:
    """A writer that is killed between a chunk's data and its header leaves such a length."""
    path = tmp_path / "run.mcap"
    record(path, make_samples(STREAMS["depth"], 2))
    whole = path.read_bytes()
    position, chunks = 8, []
    while position + 9 <= len(whole):
        opcode, length = struct.unpack_from("<BQ", whole, position)
        if opcode == Opcode.CHUNK:
            chunks.append(position)
        position += 9 + length
    # start, end, uncompressed size: 24 bytes; CRC: 4; the compression's name; then the length.
    at = chunks[-1] + 9 + 28
    name_length = struct.unpack_from("<I", whole, at)[0]
    damaged = bytearray(whole[: chunks[-1]] + whole[chunks[-1] :][:4000])
    struct.pack_into("<Q", damaged, chunks[-1] + 1, len(damaged) - chunks[-1] - 9)
    struct.pack_into("<Q", damaged, at + 4 + name_length, inner)
    path.write_bytes(damaged)
    with LogReader(path) as reader:
        assert not reader.complete
        assert list(reader.messages("/depth")) == []
