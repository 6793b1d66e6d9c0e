"""Views of a frame: where they are cut, what a tower gives of them, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agent.contracts import Encoder, RuntimeOptions
from agent.errors import ConfigError, ModelMismatch
from agent.types import Region, Window
from encoders.manifest import read_entry
from encoders.preprocess.base import Preprocess, Square, Squares
from encoders.preprocess.crops import short_side_squares
from encoders.preprocess.image import ImagePreprocess
from encoders.preprocess.imagebind_image import ImageBindImage
from encoders.preprocess.views import ViewSettings, rows_of, tiles
from encoders.space import ModelSpace, open_space
from tests.contracts.encoder_contract import EncoderContract
from tests.encoders.made import made_windows, window
from tests.encoders.viewed import with_views
from tools.make_background import _bank

CPU = RuntimeOptions()
SIZES = st.integers(1, 300)

_IMAGE = ImagePreprocess(
    size=64, mean=(0.48, 0.46, 0.42), std=(0.25, 0.245, 0.26), reducing_gap=3.0
)


def picture(height: int, width: int, frames: int = 1, seed: int = 0) -> Window:
    rng = np.random.default_rng(seed)
    return window("image", rng.integers(0, 256, (frames, height, width, 3)).astype(np.uint8))


class TestTowerWithViews(EncoderContract):
    @pytest.fixture
    def unloaded(self, tmp_path: Path) -> Encoder:
        return open_space(str(with_views(tmp_path)), CPU).encoder("image")

    @pytest.fixture
    def windows(self) -> list[Window]:
        return made_windows("image", 4)

    def test_the_whole_is_as_without_views(
        self, encoder: Encoder, windows: list[Window], tmp_path: Path
    ) -> None:
        (tmp_path / "plain").mkdir()
        plain = open_space(str(with_views(tmp_path / "plain", views=None)), CPU).encoder("image")
        plain.load()
        for seen, expected in zip(encoder.encode(windows), plain.encode(windows), strict=True):
            assert expected.views is None
            np.testing.assert_allclose(seen.vector, expected.vector, atol=1e-6)

    def test_a_view_is_what_the_tower_gives_of_that_part_alone(self, encoder: Encoder) -> None:
        seen = made_windows("image", 1)[0]  # 160 x 120: three squares and six tiles
        (embedding,) = encoder.encode([seen])
        assert embedding.views is not None
        assert len(embedding.views.regions) == 9
        plain = open_space("compact", CPU).encoder("image")
        plain.load()
        for vector, region in zip(embedding.views.vectors, embedding.views.regions, strict=True):
            left, side = round(region.left * 160), round(region.width * 160)
            top = round(region.top * 120)
            assert side == round(region.height * 120)
            part = replace(seen, data=seen.data[:, top : top + side, left : left + side])
            (alone,) = plain.encode([part])
            np.testing.assert_allclose(vector, alone.vector, atol=1e-5)

    def test_several_frames_have_the_mean_of_each_part(self, encoder: Encoder) -> None:
        both = picture(90, 160, frames=2)
        (embedding,) = encoder.encode([both])
        singles = encoder.encode([replace(both, data=both.data[i : i + 1]) for i in (0, 1)])
        mean = np.mean([each.rows[1:] for each in singles], axis=0)
        mean /= np.linalg.norm(mean, axis=1, keepdims=True)
        np.testing.assert_allclose(embedding.rows[1:], mean, atol=1e-5)
        assert embedding.regions == singles[0].regions

    def test_a_square_frame_has_no_squares_beside_itself(self, tmp_path: Path) -> None:
        (tmp_path / "only").mkdir()
        folder = with_views(tmp_path / "only", squares=True)
        tower = open_space(str(folder), CPU).encoder("image")
        tower.load()
        (embedding,) = tower.encode([picture(100, 100)])
        assert embedding.views is None
        assert embedding.regions == (None,)


class TestPlaces:
    @given(SIZES, SIZES, st.integers(1, 4), st.integers(1, 4))
    def test_tiles_are_in_the_frame_alike_and_leave_nothing_out(
        self, height: int, width: int, short: int, long: int
    ) -> None:
        found = tiles(height, width, short, long)
        assert len(found) == short * long
        assert len({square.side for square in found}) == 1
        seen = np.zeros((height, width), bool)
        for left, top, side in found:
            assert 0 <= left <= width - side
            assert 0 <= top <= height - side
            seen[top : top + side, left : left + side] = True
        least, most = sorted((height, width))
        if most <= long * least:  # else the short side is too little to cover the long one
            assert seen.all()

    @given(SIZES, SIZES)
    def test_a_tall_frame_is_a_wide_one_turned(self, height: int, width: int) -> None:
        settings = ViewSettings(squares=True, tiles=(2, 3))
        wide = {(s.left, s.top, s.side) for s in settings.parts(height, width)}
        tall = {(s.top, s.left, s.side) for s in settings.parts(width, height)}
        assert wide == tall or height == width

    def test_by_hand(self) -> None:
        assert tiles(120, 160, 2, 2) == [
            Square(0, 0, 80),
            Square(80, 0, 80),
            Square(0, 40, 80),
            Square(80, 40, 80),
        ]
        assert short_side_squares(90, 160) == [Square(0, 0, 90), Square(70, 0, 90)]
        made = rows_of(picture(120, 160), _IMAGE(picture(120, 160)), _IMAGE, ViewSettings(
            squares=True, tiles=(2, 2)
        ))  # fmt: skip
        assert made.whole == 3
        assert len(made.rows) == 7, "the squares are the whole's own crops"
        assert made.parts[0].region == Region(0.0, 0.0, 0.75, 1.0)
        assert made.parts[-1].region == Region(0.5, 0.333333, 0.5, 0.666667)

    @pytest.mark.parametrize("preprocess", [_IMAGE, ImageBindImage(size=32)])
    @given(st.integers(20, 120), st.integers(20, 120), st.integers(1, 2))
    def test_each_part_is_what_the_preprocessing_makes_of_it(
        self, preprocess: Preprocess, height: int, width: int, frames: int
    ) -> None:
        assert isinstance(preprocess, Squares)
        seen = picture(height, width, frames)
        whole = preprocess(seen)
        assert len(whole) == frames * len(preprocess.squares(height, width))
        made = rows_of(seen, whole, preprocess, ViewSettings(squares=True, tiles=(2, 2)))
        np.testing.assert_array_equal(made.rows[: made.whole], whole)
        for region, rows in made.parts:
            left, top = round(region.left * width), round(region.top * height)
            side = round(region.width * width)
            part = replace(seen, data=seen.data[:, top : top + side, left : left + side])
            np.testing.assert_array_equal(made.rows[list(rows)], preprocess(part))


class TestManifest:
    @pytest.mark.parametrize(
        ("sense", "views", "message"),
        [
            ("image", {"squares": False}, "views ask for nothing, expected squares: true"),
            ("image", {"tiles": [2, 9]}, r"Expected `int` <= 8 - at `\$.views.tiles\[1\]`"),
            ("image", {"tiles": [2]}, "Expected `array` of length 2"),
            ("image", {"whole": 1}, "unknown field `whole`"),
            ("audio", {"squares": True}, "towers.audio.views: preprocess 'audio' cuts no squares"),
        ],
    )
    def test_refuses(self, tmp_path: Path, sense: str, views: Any, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            open_space(str(with_views(tmp_path, sense, **views)), CPU)

    def test_a_space_with_views_is_another(self, tmp_path: Path) -> None:
        folder = with_views(tmp_path)
        seen = open_space(str(folder), CPU).identity
        manifest = yaml.safe_load((folder / "space.yaml").read_text())
        manifest["towers"]["image"]["views"] = None
        (folder / "space.yaml").write_text(yaml.safe_dump(manifest))
        plain = open_space(str(folder), CPU).identity
        assert plain != seen
        del manifest["towers"]["image"]["views"]
        (folder / "space.yaml").write_text(yaml.safe_dump(manifest))
        assert open_space(str(folder), CPU).identity == plain

    @pytest.mark.parametrize("sense", ["thermal", "depth"])
    def test_any_tower_of_pictures_may_have_them(self, tmp_path: Path, sense: str) -> None:
        tower = open_space(str(with_views(tmp_path, sense)), CPU).encoder(sense)
        tower.load()
        assert [len(each.rows) for each in tower.encode(made_windows(sense, 2))] == [10, 10]


class TestBackground:
    def space(self, folder: Path, bank: np.ndarray) -> ModelSpace:
        np.savez(folder / "made.npz", image=bank)
        manifest = yaml.safe_load((folder / "space.yaml").read_text())
        entry = read_entry(folder / "made.npz")
        manifest["background"] = {"path": entry.path, "bytes": entry.bytes, "sha256": entry.sha256}
        (folder / "space.yaml").write_text(yaml.safe_dump(manifest))
        return open_space(str(folder), CPU)

    def test_the_prior_counts_views_as_matching_does(self, tmp_path: Path) -> None:
        folder = with_views(tmp_path)
        tower = open_space(str(folder), CPU).encoder("image")
        tower.load()
        windows = [picture(120, 160, seed=i) for i in range(12)]
        windows += [picture(90, 160, seed=20 + i) for i in range(12)]  # one square less
        seen = tower.encode(windows)
        space = self.space(folder, _bank(seen))
        assert space.background("image").shape == (24, 10, 256)
        query = np.random.default_rng(1).normal(size=256)
        query = (query / np.linalg.norm(query)).astype(np.float32)
        near = [(e.vector @ query + (e.rows @ query).max()) / 2 for e in seen]
        mean, deviation = space.prior(query, "image")
        assert mean == pytest.approx(np.mean(near), abs=1e-3)
        assert deviation == pytest.approx(np.std(near), abs=1e-3)
        assert mean > np.mean([e.vector @ query for e in seen])

    def test_one_that_was_made_without_views_is_refused(self, tmp_path: Path) -> None:
        space = self.space(with_views(tmp_path), np.ones((4, 256), np.float16))
        with pytest.raises(
            ModelMismatch, match=r"image is \[4, 256\], expected \[n >= 1, k of its views, 256\]"
        ):
            space.prior(np.ones(256), "image")
