"""tools/make_labelled_logs.py on a few made recordings: its labels against what is in its logs."""

from __future__ import annotations

from operator import itemgetter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from agent.clock import NS_PER_S
from agent.config_file import load_config
from agent.types import Sample
from encoders.bind.splits import held_out
from tests.fakes.log_reading import read_log
from tests.fakes.training import COLOURS, RATE_HZ, make_training, names, noise_burst
from tools import planted_sounds
from tools.event_labels import Label, read_labels
from tools.make_labelled_logs import SEEN_AS, main
from tools.planted_sounds import ROOMS

SECONDS = 72.0


def make(training: Path, cache: Path, out: Path, *options: str) -> int:
    folders = ["--training", str(training), "--cache", str(cache), "--out", str(out)]
    return main([*folders, "--scale", "0.02", *options])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """training, cache, and in out the logs that are made of them: sounds, and both together."""
    folder = tmp_path_factory.mktemp("labelled")
    make_training(folder / "training")
    everyday = names("pack/s", True, 3)
    for seed, name in enumerate(everyday):
        noise_burst(folder / "cache" / f"{name}.wav", 100 + seed)
    files = [f"{Path(name).name}.wav" for name in everyday]
    sounds = {"whistle": files[:2], "dog": files[2:]}
    listed = {"package": "pack", "licence": "ours", "folder": ".", "sounds": sounds}
    (folder / "sounds.yaml").write_text(yaml.safe_dump({"folders": [listed]}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planted_sounds, "RECIPE", folder / "sounds.yaml")
        for out in ("out", "again"):
            only = "audio,fusion" if out == "out" else "fusion"
            assert make(folder / "training", folder / "cache", folder / out, "--only", only) == 0
    return folder


def sound_of(samples: list[Sample]) -> np.ndarray:
    """float64 (n,) of full scale; nothing is missing."""
    t_ns = np.concatenate([sample.t_ns for sample in samples])
    assert np.ptp(np.diff(t_ns)) <= 1
    assert len(t_ns) == SECONDS * RATE_HZ
    return np.concatenate([sample.data[:, 0] for sample in samples]) / 32768


def found(
    sound: np.ndarray, recording: np.ndarray, about_s: float | None = None
) -> tuple[float, float]:
    """Where a recording begins in a sound, in seconds, and its RMS there: by correlation.

    about_s: within a second of which, as it may come more than once.
    """
    first = 0
    if about_s is not None:
        first = max(0, round((about_s - 1) * RATE_HZ))
        sound = sound[first : first + 3 * RATE_HZ]
    size = 1 << (len(sound) + len(recording)).bit_length()
    across = np.fft.irfft(
        np.fft.rfft(sound, size) * np.conj(np.fft.rfft(recording, size)), size
    ) / np.sum(recording**2)
    at = int(np.argmax(across))
    return (first + at) / RATE_HZ, float(across[at] * np.sqrt(np.mean(recording**2)))


def recording_of(folders: Path, label: Label) -> np.ndarray:
    root = folders / ("cache" if label.recording.startswith("pack/") else "training")
    wave, rate = soundfile.read(root / f"{label.recording}.wav")
    assert rate == RATE_HZ
    return wave


def test_a_sound_is_where_its_label_says_and_as_loud(folders: Path) -> None:
    labels = read_labels(folders / "out/audio/LABELS.json")
    events = [event for event in labels.events if event.log == "3_hour.mcap"]
    assert {event.kind for event in events} == {"dog", "cat", "bird", "frog", "lion", "cow"}
    sound = sound_of(read_log(folders / "out/audio/3_hour.mcap")["microphone"])
    for event in events:
        at_s, rms = found(sound, recording_of(folders, event), event.from_s)
        assert at_s == pytest.approx(event.from_s, abs=0.001)
        assert event.to_s - event.from_s == pytest.approx(1.0, abs=0.002)
        assert 20 * np.log10(rms / ROOMS[2].rms) == pytest.approx(event.db, abs=0.5)


def test_a_quiet_log_has_nothing_that_is_asked_for(folders: Path) -> None:
    labels = read_labels(folders / "out/audio/LABELS.json")
    assert {event.log for event in labels.events} == {f"{i}_hour.mcap" for i in range(1, 7)}
    # Looked for at once: one of n that are unlike one another is a share of 1 / sqrt(n) of the sum.
    recordings = [soundfile.read(path)[0] for path in (folders / "training").rglob("*.wav")]
    least = ROOMS[0].rms * 10 ** (-6 / 20) / np.sqrt(len(recordings))
    for name, asked in (("0_quiet", False), ("1_hour", True)):
        sound = sound_of(read_log(folders / f"out/audio/{name}.mcap")["microphone"])
        assert (found(sound, np.sum(recordings, axis=0))[1] > 0.7 * least) == asked


def test_only_what_is_held_out_is_planted_and_examples_are_kept_back(folders: Path) -> None:
    for name in ("audio", "fusion"):
        labels = read_labels(folders / "out" / name / "LABELS.json")
        assert all(held_out(event.recording) for event in labels.events)
        config = load_config(folders / "out" / name / "config.yaml", ())
        assert {query.id for query in config.file.queries} == labels.queries.keys()
    labels = read_labels(folders / "out/audio/LABELS.json")
    assert labels.queries["dog_heard"] == "dog"
    assert [path.name for path in (folders / "out/audio/examples").iterdir()] == ["dog.wav"]
    example, _ = soundfile.read(folders / "out/audio/examples/dog.wav")
    first, _ = soundfile.read(folders / "training/esc10/4-0-A.wav")
    assert np.corrcoef(example, first)[0, 1] > 0.99
    assert "esc10/4-0-A" not in {event.recording for event in labels.events}


def test_what_is_heard_is_seen_at_the_same_time(folders: Path) -> None:
    path = folders / "out/fusion/1_hour.mcap"
    events = [
        event
        for event in read_labels(folders / "out/fusion/LABELS.json").events
        if event.log == path.name
    ]
    assert sorted(event.kind for event in events) == sorted(SEEN_AS)
    streams = read_log(path)
    start_ns = int(streams["microphone"][0].t_ns[0])
    assert int(streams["camera"][0].t_ns[0]) == start_ns
    sound = sound_of(streams["microphone"])
    waves = [soundfile.read(path)[0] for path in sorted((folders / "training").rglob("*.wav"))]
    for event in events:
        loudest = max((found(sound, wave, event.from_s) for wave in waves), key=itemgetter(1))
        assert loudest[0] == pytest.approx(event.from_s, abs=0.001)
        colour = np.array(COLOURS[SEEN_AS[event.kind]])
        for sample in streams["camera"]:
            t_s = (int(sample.t_ns[0]) - start_ns) / NS_PER_S
            near = np.abs(sample.data[0].astype(int) - colour).max(axis=2) < 60
            assert bool(near.mean() > 0.1) == (event.from_s <= t_s < event.to_s), event.kind


def test_the_same_seed_and_data_give_the_same_files(folders: Path) -> None:
    one, same = folders / "out/fusion", folders / "again/fusion"
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(same) for path in same.rglob("*") if path.is_file())
    assert [path.name for path in files] == [
        "1_hour.mcap", "2_hour.mcap", "LABELS.json", "config.yaml",
    ]  # fmt: skip
    for path in files:
        assert (one / path).read_bytes() == (same / path).read_bytes(), path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "smell"], "--only: 'smell', expected of audio, image, imu"),
        (["--scale", "0"], "--scale: 0, expected above 0 and at most 1"),
        (["--scale", "2"], "--scale: 2, expected above 0 and at most 1"),
        (["--only", "image"], "MANIFEST.tsv: No such file or directory"),
    ],
)
def test_a_bad_argument_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert make(tmp_path / "training", tmp_path / "cache", tmp_path / "out", *options) == 2
    told = capsys.readouterr().err.strip()
    assert message in told
    assert "\n" not in told
