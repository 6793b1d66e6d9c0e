"""GigE Vision's datagrams and registers, without a camera: orders, holes and ids that Aravis's
fake one never sends.
"""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import BadData
from drivers._flir.genicam import NodeMap
from drivers._flir.gvsp import Assembler, GvspFrame

MONO16, MONO8, RGB8 = 0x01100007, 0x01080001, 0x02180014
PACKET = 28 + 8 + 40
PICTURE = np.arange(9 * 14, dtype=np.uint16).reshape(9, 14) * 257


def packets(
    block: int, extended: bool = False, code: int = MONO16, padding: int = 0
) -> list[bytes]:
    """Leader, data and trailer of PICTURE."""

    def head(kind: int, number: int) -> bytes:
        if extended:
            return struct.pack(">HHBxxxQI", 0, 0, 0x80 | kind, block, number)
        return struct.pack(">HHI", 0, block, kind << 24 | number)

    height, width = PICTURE.shape
    leader = struct.pack(">HHQIIIIIHH", 0, 1, 1000 + block, code, width, height, 0, 0, padding, 0)
    data = PICTURE.astype("<u2").tobytes()
    step = PACKET - 28 - len(head(0, 0))
    parts = [data[at : at + step] for at in range(0, len(data), step)]
    bodies = [head(3, number) + part for number, part in enumerate(parts, 1)]
    return [head(1, 0) + leader, *bodies, head(2, len(parts) + 1) + bytes(8)]


def feed(assembler: Assembler, sent: list[bytes], at_ns: int = 0) -> list[GvspFrame]:
    got = [assembler.feed(memoryview(packet), at_ns + n) for n, packet in enumerate(sent)]
    return [frame for frame in got if frame is not None]


class TestFrames:
    @given(order=st.randoms(), extended=st.booleans(), twice=st.booleans())
    def test_any_order_after_the_leader_gives_the_frame_once(
        self, order: np.random.Generator, extended: bool, twice: bool
    ) -> None:
        leader, *rest = packets(7, extended)
        rest = rest * (1 + twice)
        order.shuffle(rest)
        (frame,) = feed(Assembler(PACKET), [leader, *rest], at_ns=50)
        np.testing.assert_array_equal(frame.pixels, PICTURE)
        assert (frame.ticks, frame.first_ns, frame.lost) == (1007, 50, 0)

    @given(gone=st.sets(st.integers(0, 29)), extended=st.booleans())
    def test_what_has_a_hole_is_lost_and_counted(self, gone: set[int], extended: bool) -> None:
        assembler, got, sent = Assembler(PACKET), [], range(1, 31)
        for block in sent:
            whole = packets(block, extended)
            del whole[block % (len(whole) - 1) : block % (len(whole) - 1) + (block - 1 in gone)]
            got += feed(assembler, whole)
        assert len(got) == 30 - len(gone)
        first = next((b for b in sent if b - 1 not in gone), 31)
        last = next((b for b in reversed(sent) if b - 1 not in gone), 0)
        assert sum(frame.lost for frame in got) == max(0, last - first + 1 - len(got))

    def test_ids_of_16_bits_leave_out_0(self) -> None:
        assembler = Assembler(PACKET)
        got = [feed(assembler, packets(block))[0].lost for block in (65_534, 65_535, 1, 3)]
        assert got == [0, 0, 0, 1]

    def test_ids_that_begin_anew_are_no_loss(self) -> None:
        assembler = Assembler(PACKET)
        assert [feed(assembler, packets(block))[0].lost for block in (900, 1, 2)] == [0, 0, 0]

    def test_a_datagram_that_is_cut_short_is_a_hole(self) -> None:
        sent = packets(1)
        sent[2] = sent[2][:-1]
        assert feed(Assembler(PACKET), sent) == []

    @pytest.mark.parametrize("change", [{"code": RGB8}, {"padding": 2}], ids=["colour", "padding"])
    def test_what_is_no_grey_picture_is_refused(self, change: dict[str, int]) -> None:
        with pytest.raises(BadData, match="expected an image of Mono8, Mono10"):
            feed(Assembler(PACKET), packets(1, **change))

    @given(noise=st.lists(st.binary(max_size=60), max_size=20))
    def test_noise_does_no_harm(self, noise: list[bytes]) -> None:
        assembler = Assembler(PACKET)
        for packet in noise:
            if len(packet) < 5 or packet[4] & 0x0F != 1:  # no leader
                assert assembler.feed(memoryview(packet), 0) is None
        assert len(feed(assembler, packets(9))) == 1


XML = b"""<?xml version="1.0"?>
<RegisterDescription xmlns="http://www.genicam.org/GenApi/Version_1_1">
 <Group Comment="one">
 <Enumeration Name="PixelFormat">
  <EnumEntry Name="Mono16"><Value>0x01100007</Value></EnumEntry>
  <EnumEntry Name="Start"><Value>9</Value></EnumEntry>
  <pValue>PixelReg</pValue></Enumeration>
 <IntReg Name="PixelReg"><Address>0x100</Address><Address>0x4</Address><Length>4</Length>
  <Endianess>LittleEndian</Endianess></IntReg>
 <Command Name="Start"><pValue>Outer</pValue><CommandValue>5</CommandValue></Command>
 <Integer Name="Outer"><pValue>StartReg</pValue></Integer>
 <IntReg Name="StartReg"><Address>0x200</Address><Length>4</Length>
  <Endianess>BigEndian</Endianess></IntReg>
 <Float Name="B"><pValue>BReg</pValue></Float>
 <FloatReg Name="BReg"><Address>0x300</Address><Length>8</Length>
  <Endianess>LittleEndian</Endianess></FloatReg>
 <Integer Name="Signed"><pValue>SignedReg</pValue></Integer>
 <IntReg Name="SignedReg"><Address>0x400</Address><Length>2</Length><Sign>Signed</Sign>
  <Endianess>BigEndian</Endianess></IntReg>
 <Integer Name="Constant"><Value>0x10</Value></Integer>
 <Float Name="Rate"><pValue>Converted</pValue></Float>
 <Converter Name="Converted"><FormulaFrom>1/TO</FormulaFrom><pValue>StartReg</pValue></Converter>
 <Integer Name="Loop"><pValue>Loop</pValue></Integer>
 <IntReg Name="Moved"><pAddress>Outer</pAddress><Address>8</Address><Length>4</Length></IntReg>
 </Group>
</RegisterDescription>"""


class TestNodes:
    def nodes(self) -> tuple[NodeMap, list[tuple[int, int]]]:
        memory = {(0x300, 8): struct.pack("<d", 1428.5), (0x400, 2): b"\xff\xfe"}
        written: list[tuple[int, int]] = []
        nodes = NodeMap(
            XML, lambda at, size: memory[at, size], lambda at, value: written.append((at, value))
        )
        return nodes, written

    def test_numbers_are_read_in_their_own_form(self) -> None:
        nodes, _ = self.nodes()
        names = ("B", "Signed", "Constant", "Rate", "Loop", "Moved", "Nothing")
        assert [nodes.value(name) for name in names] == [1428.5, -2, 16, None, None, None, None]

    def test_entries_and_commands_are_written_to_their_registers(self) -> None:
        nodes, written = self.nodes()
        assert nodes.choose("PixelFormat", "Mono16")
        assert nodes.execute("Start")  # the command, and not the entry of that name
        assert not nodes.choose("PixelFormat", "Mono12")
        assert not nodes.choose("Nothing", "Mono16")
        assert not nodes.execute("Nothing")
        assert written == [(0x104, 0x07001001), (0x200, 5)]

    def test_what_is_no_description_is_refused(self) -> None:
        with pytest.raises(ValueError, match="no XML"):
            NodeMap(bytes(100), lambda at, size: b"", lambda at, value: None)
