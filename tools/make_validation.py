"""Make the folder that tools/evaluate.py scores, of recordings that are never trained on.

example:
  python -m tools.make_validation --training ../shared/data/training --out validation

Which recordings is the rule of encoders/bind/splits.py. Motion comes from the unpacked packages
aeon and seglearn, where they are given; without either its tasks are left out. Photographs of
text_to_image are of classes that no photograph of training shows; tiles are of classes that others
show. Pictures of two things are two pictures side by side. What infrared and depth frames show is
named in validation_crops.csv; a room that no tower of depth was trained in comes from --rooms,
its tasks are those that end in _unseen. Furniture that stood in no room of training comes from
--furniture; its tasks end in _rooms.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the repository's root is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from agent.cli import run_command
from agent.clock import to_s
from agent.types import Window
from encoders.bind import sources, sources_motion
from encoders.bind.sources_tiles import Tiles, read_tiles
from encoders.bind.splits import held_out
from encoders.files import IMU_COLUMNS
from tools.query_folder import QueryFolder
from tools.validation_crops import add_crops

__all__ = ["main"]

A_KIND = 8  # recordings of one label in a pool, at most, so that no label fills it
TILES_A_CLASS = 10
TILES_A_KIND = 4

# Which pictures show what is heard: classes of tiles, and stretches of the photographs' classes,
# which stand in ImageNet's order.
KIND_TILES = {
    "cifar10": {"dog": "dog", "cat": "cat", "bird": "bird", "frog": "frog"},
    "cifar100": {
        "cattle": "cow",
        "lion": "lion",
        "baby": "baby crying",
        "clock": "clock ticking",
        "sea": "sea waves",
    },
}
KIND_PHOTOS = (
    ("Chihuahua", "Mexican hairless", "dog"),
    ("ostrich", "great grey owl", "bird"),
    ("black grouse", "black swan", "bird"),
    ("white stork", "albatross", "bird"),
    ("guenon", "squirrel monkey", "monkey"),
)
SEEN_AS = {"baby crying": "baby", "clock ticking": "clock", "sea waves": "sea"}
SOUND_TEXTS = ("{}", "the sound of {}")
PHOTO_TEXT = "a photo of a {}"

# The smartwatch's exercises of the shoulder are those of Burns et al. 2018
# (doi:10.1088/1361-6579/aacfd9); BasicMotions' labels are words.
MOTION_TEXTS = {
    "PEN": "pendulum arm exercise",
    "ABD": "shoulder abduction exercise",
    "FEL": "forward arm elevation exercise",
    "IR": "internal shoulder rotation exercise",
    "ER": "external shoulder rotation exercise",
    "TRAP": "trapezius extension exercise",
    "ROW": "rowing exercise",
    "Standing": "standing still",
    "Running": "running",
    "Walking": "walking",
    "Badminton": "playing badminton",
}


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code; a fault is one line on stderr."""
    return run_command(_main, argv)


def _main(argv: Sequence[str] | None) -> int:
    args = _parser().parse_args(argv)
    out = QueryFolder(args.out)
    photos = [record for record in sources.photos(args.training, KIND_PHOTOS) if record.held_out]
    tiles = {name: read_tiles(args.training, name) for name in KIND_TILES}
    _add_photos(out, photos)
    _add_tiles(out, tiles)
    sounds = _add_sounds(out, args.training)
    shown = _add_shown(out, photos, tiles, sounds)
    _add_between(out, shown, sounds)
    _add_pairs(out, shown, sounds)
    for sense, pairs in (
        ("thermal", sources.thermal_pairs(args.training)),
        ("depth", sources.depth_pairs(args.training)),
    ):
        kept = [pair for pair in pairs if pair.held_out]
        _add_aligned(out, sense, f"{sense}_to_rgb", kept)
        add_crops(out, sense, kept)
    if args.rooms:
        pairs = sources.slambook_pairs(args.rooms)
        _add_aligned(out, "depth", "depth_to_rgb_unseen", pairs)
        add_crops(out, "depth", pairs, "_unseen")
    if args.furniture:
        # trimesh, of the extra `bind`: for rooms alone.
        from encoders.bind.rooms.pieces import read_pieces
        from tools.validation_rooms import add_rooms

        add_rooms(out, read_pieces(args.furniture))
    motions = sources_motion.basic_motions(args.aeon) if args.aeon else []
    motions += sources_motion.watch(args.seglearn) if args.seglearn else []
    if motions:
        _add_motions(out, motions)
    out.write_queries()
    tasks = dict.fromkeys(line["task"] for line in out.lines)
    print(f"{args.out}: {len(out.lines)} queries of {', '.join(tasks)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--training", required=True, type=Path, help="folder with MANIFEST.tsv")
    parser.add_argument("--aeon", type=Path, metavar="DIR", help="its wheel, unpacked")
    parser.add_argument("--seglearn", type=Path, metavar="DIR", help="its wheel, unpacked")
    parser.add_argument(
        "--rooms", type=Path, metavar="DIR", help="SLAMBench's RGB-D pairs: a room not trained in"
    )
    parser.add_argument(
        "--furniture", type=Path, metavar="DIR", help="sweethome3d-furniture, unpacked"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to make")
    return parser


def _slug(label: str) -> str:
    return label.replace(" ", "_").replace("/", "_")


def _add_photos(out: QueryFolder, photos: Iterable[sources.Record]) -> None:
    by_label: dict[str, list[str]] = {}
    for record in photos:
        by_label.setdefault(record.label, []).append(out.copy("photos", _file(record)))
    for label, files in by_label.items():
        out.ask("text_to_image", files, text=PHOTO_TEXT.format(label), pool="photos")


def _add_tiles(out: QueryFolder, collections: Mapping[str, Tiles]) -> None:
    """Text to all tiles, and each tile to the texts of its own collection's classes."""
    pool = "tiles/images"
    by_text: dict[str, list[str]] = {}
    for name, tiles in collections.items():
        texts = [PHOTO_TEXT.format(label) for label in tiles.labels]
        for number, text in enumerate(texts):
            for i in _kept(tiles, number)[:TILES_A_CLASS]:
                file = out.picture(pool, _slug(tiles.recordings[i]), tiles.pixels[i])
                by_text.setdefault(text, []).append(file)
                out.ask(f"image_to_text_{name}", [text], image=file, candidates=texts)
    for text, files in by_text.items():
        out.ask("text_to_image_seen", files, text=text, pool=pool)


def _kept(tiles: Tiles, number: int) -> list[int]:
    """The numbers of a class's tiles that are for validation."""
    own = np.flatnonzero(tiles.classes == number)
    return [int(i) for i in own if held_out(tiles.recordings[i])]


def _add_sounds(out: QueryFolder, training: Path) -> dict[str, list[str]]:
    """Files by label, of both collections."""
    by_label: dict[str, list[str]] = {}
    for record in (*sources.esc10(training), *sources.animal_sounds(training)):
        own = by_label.setdefault(record.label, [])
        if record.held_out and len(own) < A_KIND:
            own.append(out.copy("audio", _file(record), _slug(record.recording)))
    labels = list(by_label)
    for label, files in by_label.items():
        for text in SOUND_TEXTS:
            out.ask("text_to_audio", files, text=text.format(label), pool="audio")
        for file in files:
            out.ask("audio_to_text", [label], audio=file, candidates=labels)
    return by_label


def _add_shown(
    out: QueryFolder,
    photos: Iterable[sources.Record],
    tiles: Mapping[str, Tiles],
    sounds: Iterable[str],
) -> dict[str, list[str]]:
    """Pictures of what is heard, by its label."""
    pool = "shown/images"
    shown: dict[str, list[str]] = {}
    for name, kinds in KIND_TILES.items():
        for label, kind in kinds.items():
            number = tiles[name].labels.index(label)
            shown[kind] = [
                out.picture(pool, _slug(tiles[name].recordings[i]), tiles[name].pixels[i])
                for i in _kept(tiles[name], number)[:TILES_A_KIND]
            ]
    kinds_heard = set(sounds)
    for record in photos:
        for kind in kinds_heard.intersection(record.texts[1:]):
            own = shown.setdefault(kind, [])
            if len(own) < A_KIND:
                own.append(out.copy(pool, _file(record)))
    return shown


def _add_between(
    out: QueryFolder, shown: dict[str, list[str]], sounds: dict[str, list[str]]
) -> None:
    for kind, pictures in shown.items():
        text = PHOTO_TEXT.format(SEEN_AS.get(kind, kind))
        out.ask("text_to_image_kind", pictures, text=text, pool="shown/images")
        for picture in pictures:
            out.ask("image_to_audio", sounds[kind], image=picture, pool="audio")
        for sound in sounds[kind]:
            out.ask("audio_to_image", pictures, audio=sound, pool="shown/images")


def _add_pairs(out: QueryFolder, shown: dict[str, list[str]], sounds: dict[str, list[str]]) -> None:
    """Two things in one picture, asked for by the sound of one with a picture or text of the other.

    A picture that is asked with is in none of those that are searched.
    """
    pool = "pairs/images"
    kinds = [kind for kind, pictures in shown.items() if len(pictures) > 1]
    for first, second in combinations(kinds, 2):
        halves = [out.square(shown[kind][0]) for kind in (first, second)]
        both = out.picture(pool, _slug(f"{first}-{second}"), np.concatenate(halves, axis=1))
        for heard, other in ((first, second), (second, first)):
            audio = sounds[heard][0]
            picture = shown[other][-1]
            out.ask("audio+image_to_image", [both], audio=audio, image=picture, pool=pool)
            text = PHOTO_TEXT.format(SEEN_AS.get(other, other))
            out.ask("text+audio_to_image", [both], text=text, audio=audio, pool=pool)


def _add_aligned(
    out: QueryFolder, sense: str, task: str, records: Iterable[sources.Record]
) -> None:
    folder = task.replace("_to_rgb", "_pairs")
    for record in records:
        assert record.photo is not None
        frame = out.copy(f"{folder}/{sense}", _file(record))
        photo = out.copy(f"{folder}/rgb", record.photo)
        out.ask(task, [photo], query=frame, pool=f"{folder}/rgb")


def _add_motions(out: QueryFolder, records: Sequence[sources.Record]) -> None:
    by_label: dict[str, list[str]] = {}
    for number, record in enumerate(records):
        if record.held_out:
            file = _motion_file(out, f"{_slug(record.recording)}_{number}", record.window())
            by_label.setdefault(MOTION_TEXTS[record.label], []).append(file)
    candidates = list(by_label)
    for text, files in by_label.items():
        out.ask("text_to_imu", files, text=text, pool="imu")
        for file in files:
            out.ask("imu_to_text", [text], query=file, candidates=candidates)


def _motion_file(out: QueryFolder, stem: str, window: Window) -> str:
    def write(path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as text:
            rows = csv.writer(text)
            rows.writerow(IMU_COLUMNS)
            for t_ns, tick in zip(window.t_ns, window.data, strict=True):
                rows.writerow([f"{to_s(int(t_ns)):.6f}", *(f"{value:.6g}" for value in tick)])

    return out.add(f"imu/{stem}.csv", write)


def _file(record: sources.Record) -> Path:
    assert isinstance(record.content, Path)
    return record.content


if __name__ == "__main__":
    sys.exit(main())
