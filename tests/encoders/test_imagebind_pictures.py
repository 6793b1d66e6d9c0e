"""What ImageBind's towers are given of pictures, clips, depth and thermal frames."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from agent.clock import NS_PER_S
from agent.errors import EncodeFailed
from agent.types import Intrinsics, Window
from encoders.preprocess.clip_pictures import CLIP_STD, SquareSettings
from encoders.preprocess.imagebind_depth import ImageBindDepth
from encoders.preprocess.imagebind_image import ImageBindImage
from encoders.preprocess.imagebind_thermal import ImageBindThermal
from encoders.preprocess.imagebind_video import ImageBindVideo
from tests.encoders.imagebind_golden import Golden
from tests.encoders.made import window

HOME = Path(__file__).resolve().parents[2] / "configs" / "demo" / "home.jpg"
STEP = 1 / 255

sizes = st.tuples(st.integers(1, 60), st.integers(1, 60))


def pixels(path: Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(path).convert("RGB"))


def still(frame: NDArray) -> Window:
    return window("image", frame[np.newaxis])


def rough(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """A picture with detail at every scale, as nature has: amplitude falls as 1 / frequency."""
    noise = np.random.default_rng(seed).normal(size=(height, width, 3))
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    spectrum = np.fft.rfft2(noise, axes=(0, 1)) / (np.hypot(rows, columns) + 1 / width)[..., None]
    picture = np.fft.irfft2(spectrum, s=(height, width), axes=(0, 1))
    return np.clip(128 + 50 * picture / picture.std(), 0, 255).astype(np.uint8)


# Stills.


def golden_pictures(shared_data: Path) -> dict[str, tuple[NDArray[np.uint8], NDArray]]:
    folder = shared_data / "imagebind_golden" / "preprocess"
    with np.load(folder / "image_tensors.npz") as tensors:
        return {name: (pixels(folder / f"{name}.png"), tensors[name]) for name in tensors.files}


def test_golden_pictures_exact(shared_data: Path) -> None:
    exact = ImageBindImage(resize="exact")
    std = np.array(CLIP_STD)[:, None, None]
    golden = golden_pictures(shared_data)
    assert len(golden) >= 6
    for name, (picture, wanted) in golden.items():
        (view,) = exact(still(picture))
        np.testing.assert_array_equal(view[:, 0], view[:, 1])
        assert np.abs((view[:, 0] - wanted) * std).max() <= STEP, name


def vision(golden: Golden) -> object:
    pytest.importorskip("torch")
    from encoders.imagebind.checkpoint import open_checkpoint
    from encoders.imagebind.model import load

    return load(open_checkpoint(golden.checkpoint), ["vision"])


def cosine(model: object, picture: NDArray[np.uint8]) -> float:
    """Of a tower's vectors of the two ways to resize."""
    import torch

    views = [ImageBindImage(resize=way)(still(picture)) for way in ("exact", "fast")]
    with torch.no_grad():
        a, b = model.vectors("vision", torch.from_numpy(np.concatenate(views)))  # type: ignore[attr-defined]
    return float(a @ b)


def test_golden_pictures_fast_through_a_tower(golden: Golden, shared_data: Path) -> None:
    model = vision(golden)
    shots = {name: picture for name, (picture, _) in golden_pictures(shared_data).items()}
    shots |= {"home": pixels(HOME)}
    room = shared_data / "training" / "depth_pairs" / "rgb"
    frames = [pixels(path) for path in sorted(room.glob("*.jpg"))[::20]]
    assert len(frames) >= 4
    shots |= {f"room {i}": frame for i, frame in enumerate(frames)}
    # Detail to the last pixel at a size that no picture at hand has.
    shots["mosaic"] = np.vstack([np.hstack(frames[:2]), np.hstack(frames[2:4])])[:720]
    cosines = {name: cosine(model, picture) for name, picture in shots.items()}
    assert min(cosines.values()) >= 0.9995, cosines


@pytest.mark.parametrize("shape", [(1080, 1920), (720, 1280), (480, 640), (300, 400), (100, 60)])
def test_the_fast_way_is_near_the_exact_one_where_there_is_detail(shape: tuple[int, int]) -> None:
    picture = rough(*shape)
    exact, fast = (SquareSettings(resize=way).square(picture) for way in ("exact", "fast"))
    error = np.abs(exact.astype(float) - fast)
    # OpenCV's plain linear resize is off by 11 to 19 here where the frame is larger.
    assert np.sqrt(np.mean(error**2)) < 4.0
    shift = exact.mean() - fast.mean()
    assert abs(shift) < 0.6


@given(sizes, st.sampled_from(["exact", "fast"]))
def test_any_frame_gives_views(size: tuple[int, int], resize: str) -> None:
    frame = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    settings = ImageBindImage(size=32, resize=resize)  # type: ignore[arg-type]
    views = settings(still(frame))
    assert views.shape == (1, *settings.shape)
    assert np.isfinite(views).all()


@given(sizes, st.integers(0, 255), st.sampled_from(["exact", "fast"]))
def test_one_colour_stays_that_colour(size: tuple[int, int], value: int, resize: str) -> None:
    settings = SquareSettings(size=32, resize=resize)  # type: ignore[arg-type]
    square = settings.square(np.full((*size, 3), value, np.uint8))
    assert (square == value).all()


@pytest.mark.parametrize("resize", ["exact", "fast"])
def test_the_centre_is_what_is_cut_out(resize: str) -> None:
    frame = np.zeros((100, 300, 3), np.uint8)
    frame[:, 100:200] = 255
    square = SquareSettings(size=50, resize=resize).square(frame)  # type: ignore[arg-type]
    assert (square[:, 1:-1] > 250).all()


@given(st.integers(1, 300), st.integers(1, 300), st.booleans())
def test_the_fast_way_puts_things_where_the_exact_one_does(
    height: int, width: int, across: bool
) -> None:
    rows, columns = np.linspace(0, 255, height), np.linspace(0, 255, width)
    ramp = np.broadcast_to(columns if across else rows[:, None], (height, width))
    exact, fast = (
        SquareSettings(size=32, resize=way).square(ramp.astype(np.uint8)).astype(float)
        for way in ("exact", "fast")
    )
    assert exact.shape == fast.shape == (32, 32)
    slope = np.abs(np.diff(exact, axis=1 if across else 0)).mean()
    # Half a pixel of it where the side is no multiple of the halvings; and rounding.
    assert np.abs(exact - fast)[2:-2, 2:-2].max() <= 0.5 * slope + 3


def test_a_line_is_no_picture() -> None:
    towers = {"image": ImageBindImage(), "depth": ImageBindDepth(), "thermal": ImageBindThermal()}
    for modality, tower in towers.items():
        line = np.ones((1, 2, 202), np.uint16 if modality == "depth" else np.uint8)
        with pytest.raises(EncodeFailed, match="frames are 202x2, expected no side over 100"):
            tower(window(modality, line))


def test_grey_frames_are_rgb_of_one_value() -> None:
    frame = rough(90, 120)[..., 0]
    for resize in ("exact", "fast"):
        settings = ImageBindImage(resize=resize)  # type: ignore[arg-type]
        grey, colour = settings(still(frame)), settings(still(np.stack([frame] * 3, -1)))
        np.testing.assert_array_equal(grey, colour)


@pytest.mark.parametrize("data", [np.zeros((1, 4, 4, 4), np.uint8), np.zeros((1, 4, 4, 3), float)])
def test_what_is_no_picture_is_refused(data: NDArray) -> None:
    for settings in (ImageBindImage(), ImageBindVideo()):
        with pytest.raises(EncodeFailed, match="expected uint8"):
            settings(window("image", data))


# Clips.


def film(count: int, rate_hz: float, shape: tuple[int, int] = (48, 64)) -> Window:
    """Frame i is all of value i."""
    values = np.arange(count, dtype=np.uint8)[:, None, None, None]
    return window("image", np.broadcast_to(values, (count, *shape, 3)).copy(), rate_hz)


def frames_of(views: NDArray, settings: ImageBindVideo) -> list[tuple[int, int]]:
    mean, std = settings.mean[0], settings.std[0]
    values = np.rint((views[:, 0, :, 0, 0] * std + mean) * 255).astype(int)
    return [tuple(pair) for pair in values.tolist()]


def test_a_film_gives_five_clips_of_first_and_last_frame_and_three_crops() -> None:
    settings = ImageBindVideo(size=32)
    views = settings(film(100, 10.0))  # 10 s: clips start at 0, 2, 4, 6 and 8 s
    assert views.shape == (15, *settings.shape)
    pairs = [(0, 19), (20, 39), (40, 59), (60, 79), (80, 99)]
    assert frames_of(views, settings) == [pair for pair in pairs for _ in range(3)]


def test_a_film_at_another_rate_takes_the_published_frames() -> None:
    settings = ImageBindVideo(size=32, crops=1)
    rate_hz, count = 7.0, 50
    duration = count / rate_hz
    starts = [i * (duration - 2) / 4 for i in range(5)]
    wanted = [
        (int(np.ceil(rate_hz * s - 1e-9)), int(np.ceil(rate_hz * (s + 2) - 1e-6)) - 1)
        for s in starts
    ]
    assert frames_of(settings(film(count, rate_hz)), settings) == wanted


@pytest.mark.parametrize("count", [1, 2, 20])
def test_a_live_window_is_one_clip(count: int) -> None:
    settings = ImageBindVideo(size=32, crops=1)
    assert frames_of(settings(film(count, 10.0)), settings) == [(0, count - 1)]


def test_a_live_window_of_first_and_last_frame_is_one_clip() -> None:
    settings = ImageBindVideo(size=32, crops=1)
    whole = film(60, 30.0)
    ends = [0, 59]
    spread = Window(whole.stream, 0, 2 * NS_PER_S, whole.data[ends], whole.t_ns[ends])
    assert frames_of(settings(spread), settings) == [(0, 59)]


def test_clips_in_a_gap_are_left_out() -> None:
    settings = ImageBindVideo(size=32, crops=1)
    whole = film(40, 10.0)
    t_ns = whole.t_ns.copy()
    t_ns[20:] += 16 * NS_PER_S  # 20 s in all, nothing from 2 to 18
    gap = Window(whole.stream, 0, int(t_ns[-1]) + 1, whole.data, t_ns)
    pairs = frames_of(settings(gap), settings)
    assert pairs[0] == (0, 19)
    assert pairs[-1][1] == 39
    assert len(pairs) < 5


@pytest.mark.parametrize("shape", [(48, 64), (64, 48), (48, 48), (37, 91)])
def test_frames_are_resized_as_torch_does(shape: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    settings = ImageBindVideo(size=32)
    picture = rough(*shape)
    views = settings(window("image", picture[np.newaxis]))
    height, width = shape
    scale = (32, int(width / height * 32)) if width >= height else (int(height / width * 32), 32)
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255,
        size=scale,
        mode="bilinear",
        align_corners=False,
        antialias=False,
    )[0].numpy()
    std, mean = np.array(settings.std), np.array(settings.mean)
    wanted = (resized - mean[:, None, None]) / std[:, None, None]
    spare = max(scale) - 32
    for view, offset in zip(views, (0, -(-spare // 2), spare), strict=True):
        part = wanted[:, :, offset:][:, :, :32] if scale[0] == 32 else wanted[:, offset:][:, :32]
        np.testing.assert_allclose(view[:, 0], part, atol=2e-5)


# Depth.


def depth(frame: NDArray[np.uint16], intrinsics: Intrinsics | None = None) -> Window:
    made = window("depth", frame[np.newaxis])
    return replace(made, stream=replace(made.stream, intrinsics=intrinsics))


def even(depth_m: float, shape: tuple[int, int] = (480, 640)) -> NDArray[np.uint16]:
    return np.full(shape, round(depth_m * 1000), np.uint16)


@pytest.mark.parametrize(
    ("depth_m", "wanted"), [(1.0, 0.78), (1.55, 0.0), (2.5, -0.54), (6.0, -1.05)]
)
def test_depth_in_true_metres_lands_where_the_facts_say(depth_m: float, wanted: float) -> None:
    views = ImageBindDepth(focal_px=38.9 / 0.075)(depth(even(depth_m)))
    assert views.shape == (1, 1, 224, 224)
    np.testing.assert_allclose(views, wanted, atol=0.015)


def test_the_published_recipe_on_a_file_that_it_reads_eightfold() -> None:
    """Omnivore's own words, step by step, on "metres" that are eight times too long."""
    focal_px, depth_mm = 520.0, np.arange(300, 6000, 57, dtype=np.uint16)
    read = np.clip(8 * depth_mm / 1000, 0.01, 50)
    disparity = 0.075 * focal_px / read
    wanted = (np.clip(disparity, 0.01, 75) / 75 - 0.0418) / 0.0295
    ours = [ImageBindDepth(focal_px=focal_px)(depth(even(mm / 1000))).mean() for mm in depth_mm]
    np.testing.assert_allclose(ours, wanted, atol=1e-4)


def test_the_cameras_own_focal_length_counts_and_not_its_resolution() -> None:
    far, near = (Intrinsics(640, 480, fx, fx, 320, 240) for fx in (300.0, 600.0))
    tower = ImageBindDepth()
    weak, strong = (tower(depth(even(2.0), own)).mean() for own in (far, near))
    assert strong > weak + 0.3
    doubled = Intrinsics(1280, 960, 1200.0, 1200.0, 640, 480)
    again = tower(depth(even(2.0, (960, 1280)), doubled)).mean()
    np.testing.assert_allclose(again, strong, atol=1e-5)


def test_an_uncalibrated_cameras_zeros_are_no_focal_length() -> None:
    frame, tower = even(2.0), ImageBindDepth()
    zeros = Intrinsics(640, 480, 0.0, 0.0, 0.0, 0.0)
    np.testing.assert_array_equal(tower(depth(frame, zeros)), tower(depth(frame)))


def test_a_hole_is_as_deep_as_its_nearest_neighbour() -> None:
    frame = np.full((40, 80), 1500, np.uint16)
    frame[:, 40:] = 3000
    holed = frame.copy()
    holed[5:15, 10:20] = 0
    holed[20:30, 60:70] = 65_535
    tower = ImageBindDepth(size=40)
    np.testing.assert_array_equal(tower(depth(holed)), tower(depth(frame)))


def test_a_frame_of_holes_is_refused() -> None:
    with pytest.raises(EncodeFailed, match="made_depth: depth frame is all holes"):
        ImageBindDepth()(depth(np.zeros((48, 64), np.uint16)))


@given(sizes, st.data())
def test_depth_is_finite_and_falls_with_distance(
    size: tuple[int, int], data: st.DataObject
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    frame = rng.integers(200, 6000, size).astype(np.uint16)
    farther = frame + np.uint16(data.draw(st.integers(0, 2000)))
    hole = rng.random(size) < data.draw(st.floats(0, 0.95))
    hole.flat[0] = False
    frame[hole] = farther[hole] = 0
    tower = ImageBindDepth(size=16)
    near, far = tower(depth(frame)), tower(depth(farther))
    assert np.isfinite(near).all()
    assert (near >= far - 1e-5).all()


# Thermal.


def thermal(frame: NDArray) -> Window:
    return window("thermal", frame[np.newaxis])


def test_an_8_bit_picture_is_taken_as_it_is() -> None:
    frame = rough(224, 224)[..., 0]
    np.testing.assert_array_equal(ImageBindThermal()(thermal(frame))[0, 0] * 255, frame)


def test_gain_and_offset_of_a_radiometric_camera_do_not_matter() -> None:
    scene = rough(120, 160)[..., 0].astype(float)
    tower = ImageBindThermal()
    celsius = tower(thermal((20 + scene / 10).astype(np.float32)))
    counts = tower(thermal((7000 + 40 * scene).astype(np.uint16)))
    np.testing.assert_allclose(celsius, counts, atol=2 * STEP)
    assert celsius.min() < 0.05
    assert celsius.max() > 0.95


@pytest.mark.parametrize(
    "wall",
    [
        20 + np.random.default_rng(1).normal(0, 0.05, (120, 160)).astype(np.float32),
        np.random.default_rng(1).integers(7000, 7003, (120, 160)).astype(np.uint16),
        np.full((120, 160), 21.5, np.float32),
    ],
)
def test_the_noise_of_an_even_wall_stays_noise(wall: NDArray) -> None:
    view = ImageBindThermal()(thermal(wall))
    assert abs(view.mean() - 0.5) < 0.02
    assert view.std() < 0.02


@given(
    sizes, st.sampled_from([np.uint8, np.uint16, np.float32]), st.sampled_from(["exact", "fast"])
)
def test_thermal_is_within_0_and_1(size: tuple[int, int], kind: type, resize: str) -> None:
    frame = np.random.default_rng(2).uniform(0, 200, size).astype(kind)
    tower = ImageBindThermal(size=16, resize=resize)  # type: ignore[arg-type]
    views = tower(thermal(frame))
    assert views.shape == (1, *tower.shape)
    assert views.dtype == np.float32
    assert ((views >= 0) & (views <= 1)).all()


def test_percentiles_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match=r"percentiles 99\.0, 1\.0"):
        ImageBindThermal(percentiles=(99.0, 1.0))


@pytest.mark.parametrize("data", [np.zeros((1, 4, 4, 3), np.uint8), np.zeros((1, 4, 4), np.int32)])
def test_what_is_no_thermal_or_depth_frame_is_refused(data: NDArray) -> None:
    for modality, tower in (("thermal", ImageBindThermal()), ("depth", ImageBindDepth())):
        with pytest.raises(EncodeFailed, match=f"made_{modality}"):
            tower(window(modality, data))
