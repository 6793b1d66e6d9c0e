"""A file as one Window of a sense, so that files and live streams take the same path."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from agent.clock import NS_PER_S
from agent.contracts import MAX_FILE_BYTES
from agent.errors import BadData, ConfigError
from agent.types import Array, Int64Array, StreamInfo, Window, slug
from encoders.signal_files import read_signal

__all__ = ["IMU_COLUMNS", "read_file"]

IMU_COLUMNS = ("t", "ax", "ay", "az", "gx", "gy", "gz")

# By a sensor's name and unit in a header: its column, less the axis, and what makes it SI.
# Standard gravity is that of the 3rd CGPM, 1901.
_NAMED_UNITS = {
    ("time", "s"): ("t", 1.0),
    ("accelerometer", "g"): ("a", 9.80665),
    ("accelerometer", "m/s^2"): ("a", 1.0),
    ("gyroscope", "deg/s"): ("g", math.pi / 180),
    ("gyroscope", "rad/s"): ("g", 1.0),
}
_NAME_WITH_UNIT = re.compile(r"(\w+) ?([xyz]?) \((.+)\)")

# Slower than this is no motion sensor: the column is in another unit than seconds.
MAX_IMU_STEP_S = 1.0


def read_file(path: str, modality: str) -> Window:
    """The whole of a file: start_ns 0, stamps by the file's own rate, one tick for a still.

    image: what Pillow reads, 8 bit, turned as its EXIF says, as RGB. audio: what libsndfile reads
    (WAV, FLAC, Ogg), float32. depth: 16-bit grey PNG or PGM in mm. thermal: a radiometric JPEG of
    FLIR's as degrees Celsius (flir_jpeg.thermal_picture); 8- or 16-bit grey or float TIFF; colour
    is turned to grey, which suits white-hot pictures only. imu: CSV of t in s, ax ay az in m/s^2,
    gx gy gz in rad/s; with a header of those names, in any order, or without; or with names that
    tell their units, as x-io's "Accelerometer X (g)" and "Gyroscope X (deg/s)". Any other sense:
    as signal_files.read_signal.

    Raises ConfigError for a file that is missing, empty, over MAX_FILE_BYTES or not of that kind.
    """
    reader = _READERS.get(modality)
    file = Path(path)
    try:
        size = file.stat().st_size  # of a pipe or a device, which may have no end, 0
        if not size:
            raise ConfigError(f"{path}: empty file, expected {modality}")
        if size > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: {size} bytes, expected at most {MAX_FILE_BYTES}")
        return read_signal(path, modality) if reader is None else reader(file)
    except OSError as exc:
        raise ConfigError(
            f"{path}: cannot be read ({exc.strerror or exc}), expected {modality}"
        ) from exc


def _window(
    file: Path, modality: str, data: Array, t_ns: Int64Array, rate_hz: float | None, unit: str
) -> Window:
    info = StreamInfo(
        name=slug(file.stem),
        modality=modality,
        dtype=str(data.dtype),
        shape=data.shape[1:],
        rate_hz=rate_hz,
        unit=unit,
        topic=str(file),
    )
    return Window(info, 0, int(t_ns[-1]) + 1, data, t_ns)


def _still(file: Path, modality: str, frame: Array, unit: str) -> Window:
    return _window(file, modality, frame[np.newaxis], np.zeros(1, np.int64), None, unit)


@contextmanager
def _pillow_errors(file: Path, expected: str) -> Iterator[None]:
    """Pillow tells a broken picture by errors of several kinds."""
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except UnidentifiedImageError as exc:
        raise ConfigError(f"{file}: not a picture, expected {expected}") from exc
    except (SyntaxError, ValueError, EOFError, OSError, Image.DecompressionBombError) as exc:
        reason = " ".join(str(exc).split())
        raise ConfigError(f"{file}: broken picture ({reason}), expected {expected}") from exc


def _read_image(file: Path) -> Window:
    from PIL import Image, ImageOps

    with _pillow_errors(file, "an 8-bit picture"), Image.open(file) as picture:
        deep = picture.mode[:1] in "IF"
        frame = None if deep else np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
        mode = picture.mode
    if frame is None:
        raise ConfigError(f"{file}: pixels are {mode!r}, expected an 8-bit picture")
    return _still(file, "image", frame, "rgb8")


def _read_pixels(file: Path, expected: str) -> tuple[Array, str]:
    """Grey pixels as stored and Pillow's mode; colour turned to 8-bit grey."""
    from PIL import Image

    with _pillow_errors(file, expected), Image.open(file) as picture:
        mode = picture.mode
        grey = picture if mode[:1] in "LIF" else picture.convert("L")
        pixels = np.asarray(grey)
    if mode.startswith("I"):
        # Pillow gives a 16-bit PGM as int32.
        if pixels.min() < 0 or pixels.max() > np.iinfo(np.uint16).max:
            raise ConfigError(f"{file}: values over 16 bits, expected {expected}")
        pixels = pixels.astype(np.uint16)
    return pixels, mode


def _read_depth(file: Path) -> Window:
    pixels, mode = _read_pixels(file, "a 16-bit grey PNG or PGM in mm")
    if pixels.dtype != np.uint16:
        raise ConfigError(f"{file}: pixels are {mode!r}, expected a 16-bit grey PNG or PGM in mm")
    return _still(file, "depth", pixels, "mm")


def _read_thermal(file: Path) -> Window:
    from agent.flir_jpeg import thermal_picture

    try:
        celsius = thermal_picture(file.read_bytes(), str(file))
    except BadData as exc:
        raise ConfigError(str(exc)) from exc
    if celsius is not None:
        return _still(file, "thermal", celsius, "c")
    pixels, mode = _read_pixels(file, "an 8- or 16-bit grey picture or float TIFF")
    if mode == "LA":
        pixels = pixels[..., 0]
    if not np.isfinite(pixels).all():
        raise ConfigError(f"{file}: pixels that are not finite, expected temperatures or counts")
    unit = {"f": "c", "u": "mono8"}[pixels.dtype.kind] if pixels.dtype != np.uint16 else "counts"
    return _still(file, "thermal", pixels, unit)


def _read_audio(file: Path) -> Window:
    import soundfile

    try:
        data, rate_hz = soundfile.read(file, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as exc:
        raise ConfigError(
            f"{file}: cannot be read ({exc.error_string.strip()}), expected WAV, FLAC or Ogg"
        ) from exc
    if not len(data) or not np.isfinite(data).all():
        raise ConfigError(f"{file}: {len(data)} samples, expected at least one and all finite")
    t_ns = (np.arange(len(data)) * NS_PER_S) // rate_hz
    return _window(file, "audio", data, t_ns, float(rate_hz), "full_scale")


def _read_imu(file: Path) -> Window:
    rows, lines = _read_csv(file)
    steps = np.diff(rows[:, 0])
    if (steps < 0).any():
        line = lines[int(np.argmax(steps < 0)) + 1]
        raise ConfigError(f"{file}:{line}: t goes backwards, expected seconds in order")
    step_s = float(np.median(steps))
    if not 0 < step_s <= MAX_IMU_STEP_S:
        raise ConfigError(
            f"{file}: t steps by {step_s:g}, expected seconds, above 0 and at most {MAX_IMU_STEP_S}"
        )
    t_ns = np.rint((rows[:, 0] - rows[0, 0]) * NS_PER_S).astype(np.int64)
    return _window(file, "imu", rows[:, 1:].astype(np.float32), t_ns, 1 / step_s, "m/s^2,rad/s")


def _read_csv(file: Path) -> tuple[Array, list[int]]:
    """float64 (n >= 2, 7) in the order of IMU_COLUMNS, and the line number of each row."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            reader = csv.reader(text)
            numbered = [(reader.line_num, cells) for cells in reader if cells]
    except (UnicodeDecodeError, csv.Error) as exc:
        raise ConfigError(f"{file}: not CSV ({exc}), expected {','.join(IMU_COLUMNS)}") from exc
    order = list(range(len(IMU_COLUMNS)))
    factors = [1.0] * len(IMU_COLUMNS)
    names = [cell.strip().lower() for cell in numbered[0][1]] if numbered else []
    if names and names[0][:1].isalpha():
        columns, scales = zip(*map(_column, names), strict=True)
        missing = [column for column in IMU_COLUMNS if column not in columns]
        if missing:
            raise ConfigError(
                f"{file}:{numbered[0][0]}: header {','.join(names)!r} lacks {','.join(missing)}, "
                f"expected {','.join(IMU_COLUMNS)}"
            )
        order = [columns.index(column) for column in IMU_COLUMNS]
        factors = [scales[index] for index in order]
        numbered = numbered[1:]
    rows = [_numbers(file, line, cells, order) for line, cells in numbered]
    if len(rows) < 2:
        raise ConfigError(f"{file}: {len(rows)} rows of numbers, expected at least 2")
    return np.array(rows) * factors, [line for line, _ in numbered]


def _column(name: str) -> tuple[str, float]:
    """'accelerometer x (g)' to ('ax', 9.80665); any other name as it is, times 1."""
    found = _NAME_WITH_UNIT.fullmatch(name)
    if found is None or (found[1], found[3]) not in _NAMED_UNITS:
        return name, 1.0
    prefix, factor = _NAMED_UNITS[found[1], found[3]]
    return prefix + found[2], factor


def _numbers(file: Path, line: int, cells: list[str], order: list[int]) -> list[float]:
    if len(cells) <= max(order):
        raise ConfigError(f"{file}:{line}: {len(cells)} columns, expected {','.join(IMU_COLUMNS)}")
    numbers = []
    for column, index in zip(IMU_COLUMNS, order, strict=True):
        try:
            number = float(cells[index])
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ConfigError(f"{file}:{line}: {column} is {cells[index]!r}, expected a number")
        numbers.append(number)
    return numbers


_READERS: dict[str, Callable[[Path], Window]] = {
    "image": _read_image,
    "audio": _read_audio,
    "depth": _read_depth,
    "thermal": _read_thermal,
    "imu": _read_imu,
}
