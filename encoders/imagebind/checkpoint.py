"""ImageBind's weights: a published file, checked before anything is read.

Needs the extra `export`. Names and shapes are those of `dims.expected_shapes`.
"""

from __future__ import annotations

import json
import math
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mode
from typing import Any, NamedTuple

from agent.errors import ConfigError, ModelMismatch, ModelMissing
from agent.extras import needs_extra
from encoders.imagebind.dims import (
    HUGE,
    TOWERS,
    Dims,
    Shape,
    TowerDims,
    expected_shapes,
)

with needs_extra("export"):
    import torch
    from safetensors import SafetensorError, safe_open
    from torch import Tensor

__all__ = ["Checkpoint", "Tensors", "open_checkpoint"]

Tensors = dict[str, Tensor]

ZIP_START = b"PK\3\4"
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}  # safetensors' names
# An unpickler raises whatever a stream that is not right makes it stumble over.
STREAM_ERRORS = (AttributeError, EOFError, LookupError, TypeError, ValueError)
NAMED = 3  # keys that an error names; of the rest it says how many

_KEY = re.compile(rf"modality_\w+\.({'|'.join(TOWERS)})\.(?:blocks\.(\d{{1,3}})\.)?")
_TRANSFORMERS_KEY = re.compile(rf"({'|'.join(TOWERS)})_(model|projection|postprocessor)\.")


@dataclass(frozen=True)
class Checkpoint:
    """Weights of some or all of the towers. Nothing is read or made until it is asked for.

    name: of the file, or "random-SEED". dims: of the towers it holds.
    """

    name: str
    dims: Dims
    read: Callable[[str], Tensors] = field(repr=False)

    @property
    def towers(self) -> tuple[str, ...]:
        """The towers it holds, in the order of `dims.TOWERS`."""
        return tuple(self.dims.towers)

    def tensors(self, tower: str) -> Tensors:
        """float32 on the CPU, by official name. Raises ConfigError for a tower it does not hold.

        Of a float32 file, memory-mapped and not copied: writing to one changes this process's
        pages and never the file. Of a half-precision file, or random ones: newly made.
        """
        if tower not in self.dims.towers:
            raise ConfigError(
                f"{self.name}: has no {tower} tower, expected one of {', '.join(self.towers)}"
            )
        return self.read(tower)


class _Entry(NamedTuple):
    shape: Shape
    dtype: str

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


class _File(NamedTuple):
    entries: dict[str, _Entry]
    read: Callable[[str], Tensor]


def open_checkpoint(path: Path, config: Path | None = None) -> Checkpoint:
    """Open a .safetensors file, or a .pth file as torch.save writes them; reads no weights.

    Every key, dtype and shape is checked; a file may hold some of the towers only, each of them
    whole. Widths, blocks and the vectors' length are read off the shapes. The number of heads is
    not in them: it is taken from `config` (the published configuration's JSON, by keys such as
    "vision_num_heads"), without one from config.json beside the file, and where neither says it,
    from the published size. Raises ModelMissing for a file that is not there, ModelMismatch for
    one that is damaged or something else, ConfigError for a configuration that does not fit.
    """
    try:
        with path.open("rb") as content:
            start = content.read(len(ZIP_START))
    except OSError as exc:
        raise ModelMissing(
            f"{path}: cannot be read ({exc.strerror}), expected an ImageBind checkpoint"
        ) from exc
    file = _open_safetensors(path) if path.suffix == ".safetensors" else _open_torch(path, start)
    blocks = _checked_keys(path, file.entries)
    dims = _with_heads(path, _checked_shapes(path, file.entries, blocks), config)

    def read(tower: str) -> Tensors:
        keys = expected_shapes(tower, dims.towers[tower], dims.out)
        return {key: file.read(key).to(torch.float32) for key in keys}

    return Checkpoint(path.name, dims, read)


def _open_safetensors(path: Path) -> _File:
    try:
        file: Any = safe_open(path, framework="pt")
        slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as exc:
        raise ModelMismatch(
            f"{path}: {path.stat().st_size} bytes that cannot be read as safetensors ({exc}), "
            "expected a whole ImageBind checkpoint"
        ) from exc
    entries = {
        key: _Entry(tuple(part.get_shape()), DTYPES.get(part.get_dtype(), part.get_dtype()))
        for key, part in slices.items()
    }
    return _File(entries, file.get_tensor)


def _open_torch(path: Path, start: bytes) -> _File:
    # torch says "invalid argument" of a file that a download left half done.
    if not zipfile.is_zipfile(path):
        found = "cut short: its end is missing" if start == ZIP_START else "not a checkpoint"
        raise ModelMismatch(
            f"{path}: {path.stat().st_size} bytes, {found}, expected a whole file "
            "of torch.save (1.6 or later) or a .safetensors"
        )
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, *STREAM_ERRORS) as exc:
        named = re.search(r"GLOBAL (\S+)", str(exc))
        found = f"holds a Python object ({named[1]})" if named else "damaged, or not of torch.save"
        raise ModelMismatch(f"{path}: {found}, expected tensors only") from exc
    if not isinstance(content, dict):
        raise ModelMismatch(
            f"{path}: holds a {type(content).__name__}, expected a dictionary of tensors"
        )
    entries = {
        str(key): _Entry(tuple(value.shape), str(value.dtype).removeprefix("torch."))
        if isinstance(value, Tensor)
        else _Entry((), type(value).__name__)
        for key, value in content.items()
    }
    return _File(entries, lambda key: content[key].detach())


def _checked_keys(path: Path, entries: Mapping[str, _Entry]) -> dict[str, int]:
    """The number of blocks of each tower that is there; all of its keys are."""
    found: dict[str, int] = {}
    for match in filter(None, map(_KEY.match, entries)):
        tower, number = match.groups()
        found[tower] = max(found.get(tower, 1), int(number or 0) + 1)
    if not found:
        first = next(iter(entries), "nothing")
        whose = "has Transformers' names" if _TRANSFORMERS_KEY.match(first) else "not ImageBind"
        raise ModelMismatch(
            f"{path}: {whose} ({len(entries)} entries, first {first}), expected the official names "
            "(modality_trunks.vision...), as in imagebind_huge.pth or its safetensors mirror"
        )
    blocks = {tower: found[tower] for tower in TOWERS if tower in found}
    known = [key for tower, count in blocks.items() for key in _keys(tower, count)]
    missing = [key for key in known if key not in entries]
    unknown = sorted(entries.keys() - set(known))
    faults = [
        f"{len(keys)} {what} ({_first(keys)})"
        for keys, what in ((missing, "missing"), (unknown, "unknown"))
        if keys
    ]
    if faults:
        raise ModelMismatch(
            f"{path}: keys {' and '.join(faults)}, "
            f"expected the {len(known)} of ImageBind's {', '.join(blocks)}"
        )
    return blocks


def _checked_shapes(path: Path, entries: Mapping[str, _Entry], blocks: Mapping[str, int]) -> Dims:
    """The sizes that most of the shapes agree on, with one head each; all shapes do agree."""
    heads = [
        entries[key].shape[:1]
        for tower, count in blocks.items()
        for key, shape in _keys(tower, count).items()
        if key.startswith("modality_heads.") and len(shape) == 2
    ]
    out = _size(heads)
    towers = {}
    for tower, count in blocks.items():
        norms = [key for key in _keys(tower, count) if key.endswith("norm_1.weight")]
        towers[tower] = TowerDims(_size(entries[key].shape for key in norms), count, 1)
    faults = [
        f"{key} is {entries[key]}, expected float32{list(shape)}"
        for tower, dims in towers.items()
        for key, shape in expected_shapes(tower, dims, out).items()
        if entries[key].shape != shape or entries[key].dtype not in DTYPES.values()
    ]
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise ModelMismatch(f"{path}: {faults[0]}{more}")
    return Dims(out, towers)


def _with_heads(path: Path, dims: Dims, config: Path | None) -> Dims:
    where = config or path.with_name("config.json")
    given = _read_config(where) if config or where.is_file() else {}
    towers = {}
    for tower, size in dims.towers.items():
        for name, actual in (
            ("out_embed_dim", dims.out),
            (f"{tower}_embed_dim", size.width),
            (f"{tower}_num_blocks", size.blocks),
        ):
            if given.get(name, actual) != actual:
                raise ConfigError(
                    f"{where}: {name} is {given[name]!r}, expected {actual} as in {path.name}"
                )
        name, huge = f"{tower}_num_heads", HUGE.towers[tower]
        if name not in given and (size.width, size.blocks) == (huge.width, huge.blocks):
            towers[tower] = huge
            continue
        heads = given.get(name)
        if type(heads) is not int or heads < 1 or size.width % heads:
            raise ConfigError(
                f"{where}: {name} is {'not given' if heads is None else repr(heads)}, expected "
                f"a divisor of {size.width}: {path.name}'s {tower} tower is not of published size"
            )
        towers[tower] = TowerDims(size.width, size.blocks, heads)
    return Dims(dims.out, towers)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{path}: cannot be read ({exc}), expected a JSON object") from exc
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: holds a {type(content).__name__}, expected a JSON object")
    return content


def _keys(tower: str, blocks: int) -> dict[str, Shape]:
    """The keys of a tower of whatever width."""
    return expected_shapes(tower, TowerDims(1, blocks, 1), 1)


def _size(shapes: Iterable[Shape]) -> int:
    """The commonest number of values; 1 for none, so that the fault is named as a shape."""
    return max(1, mode(math.prod(shape) for shape in shapes))


def _first(keys: Sequence[str]) -> str:
    return ", ".join(keys[:NAMED]) + (", ..." if len(keys) > NAMED else "")
