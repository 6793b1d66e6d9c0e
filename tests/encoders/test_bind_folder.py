"""The folder that a new tower is put into: the base's other towers, and what is ordinary."""

from __future__ import annotations

import shutil
from hashlib import sha256
from pathlib import Path

import msgspec
import numpy as np
import yaml

import encoders.models.compact
from agent.contracts import RuntimeOptions
from encoders.bind.binding import BACKGROUND_ROWS, copy_base
from encoders.identity import read_versions
from encoders.space import open_space
from tools.npz import write_npz


def test_what_is_ordinary_to_the_other_towers_stays_theirs(tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(Path(encoders.models.compact.__file__).parent, base)
    versions = dict(open_space(str(base), RuntimeOptions()).versions)
    banks = {name: np.eye(256, dtype=np.float16)[:5] for name in ("audio", "imu")}
    told = {name: versions[name] for name in banks}
    write_npz(base / "background.npz", banks, msgspec.json.encode(told).decode())
    manifest = yaml.safe_load((base / "space.yaml").read_text())
    content = (base / "background.npz").read_bytes()
    manifest["background"] |= {"bytes": len(content), "sha256": sha256(content).hexdigest()}
    (base / "space.yaml").write_text(yaml.safe_dump(manifest))

    bank = np.eye(256, dtype=np.float32)[np.arange(1000) % 256]
    copy_base(base, tmp_path / "new", "imu", "made", "none", bank)
    made = open_space(str(tmp_path / "new"), RuntimeOptions())
    assert "imu" not in made.modalities
    np.testing.assert_array_equal(made.background("audio")[:, 0], banks["audio"])
    with np.load(tmp_path / "new" / "background.npz") as archive:
        assert archive["imu"].shape == (BACKGROUND_ROWS, 256)
        assert read_versions(archive.zip.comment) == {"audio": versions["audio"]}
