"""The few nodes of a GenICam camera that a driver sets or reads, by their names.

Integers, floats, enumerations and commands that stand for a register, however many nodes lie in
between; what is computed by a formula (SwissKnife, Converter) is not read. GenICam standard,
section 2.8, as the schema GenApi 1.0 and 1.1 writes it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from xml.etree import ElementTree

__all__ = ["NodeMap"]

Read = Callable[[int, int], bytes]
Write = Callable[[int, int], None]
DEPTH = 16


class NodeMap:
    """read(address, size) and write(address, value of 32 bits) are the camera's registers.

    Raises ValueError for what is no camera description.
    """

    def __init__(self, xml: bytes, read: Read, write: Write) -> None:
        try:
            root = ElementTree.fromstring(xml)
        except ElementTree.ParseError as exc:
            raise ValueError(f"no XML: {exc}") from exc
        self._nodes = {
            name: node
            for node in root.iter()
            if (name := node.get("Name")) and _tag(node) not in ("EnumEntry", "pVariable")
        }
        self._read, self._write = read, write

    def value(self, name: str) -> float | None:
        """The number behind a node; None where there is none, or only by a formula."""
        node = self._register(name)
        if node is None:
            return None
        if isinstance(node, float):
            return node
        address = self._address(node)
        size = int(_text(node, "Length") or "4", 0)
        if address is None:
            return None
        data = self._read(address, size)
        order = "<" if (_text(node, "Endianess") or "").startswith("Little") else ">"
        if _tag(node) == "FloatReg":
            return float(struct.unpack(order + ("d" if size == 8 else "f"), data)[0])
        whole = int.from_bytes(
            data, "little" if order == "<" else "big", signed=_text(node, "Sign") == "Signed"
        )
        return float(whole) if _tag(node) == "IntReg" else None

    def choose(self, name: str, entry: str) -> bool:
        """Set an enumeration to one of its entries; False where it has no such entry."""
        node = self._nodes.get(name)
        if node is None:
            return False
        for child in node:
            if _tag(child) == "EnumEntry" and child.get("Name") == entry:
                return self._set(name, int(_text(child, "Value") or "0", 0))
        return False

    def execute(self, name: str) -> bool:
        """Run a command; False where there is none."""
        node = self._nodes.get(name)
        return node is not None and self._set(name, int(_text(node, "CommandValue") or "1", 0))

    def _set(self, name: str, value: int) -> bool:
        node = self._register(name)
        if node is None or isinstance(node, float):
            return False
        address = self._address(node)
        if address is None or _text(node, "Length") not in (None, "4") or _tag(node) != "IntReg":
            return False
        little = (_text(node, "Endianess") or "").startswith("Little")
        self._write(
            address, int.from_bytes(value.to_bytes(4, "little" if little else "big"), "big")
        )
        return True

    def _register(self, name: str) -> ElementTree.Element | float | None:
        """The register node that `name` stands for, or its constant value."""
        node = self._nodes.get(name)
        for _ in range(DEPTH):
            if node is None or node.find(_any("Address")) is not None:
                return node
            constant = _text(node, "Value")
            if constant is not None:
                return float(constant) if "." in constant else float(int(constant, 0))
            if _tag(node) in ("SwissKnife", "IntSwissKnife", "Converter", "IntConverter"):
                return None
            node = self._nodes.get(_text(node, "pValue") or "")
        return None

    def _address(self, node: ElementTree.Element) -> int | None:
        """Where it is; None where that is computed. The addresses of one node are added up."""
        if node.find(_any("pAddress")) is not None or node.find(_any("pIndex")) is not None:
            return None
        return sum(int(part.text or "0", 0) for part in node.findall(_any("Address")))


def _tag(node: ElementTree.Element) -> str:
    return node.tag.rpartition("}")[2]


def _any(tag: str) -> str:
    return f"{{*}}{tag}"


def _text(node: ElementTree.Element, tag: str) -> str | None:
    found = node.find(_any(tag))
    return None if found is None or found.text is None else found.text.strip()
