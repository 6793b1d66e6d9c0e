"""A user's ONNX network under a trained head: one graph that the agent runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch", reason="needs the extra 'bind'")
pytest.importorskip("onnx", reason="needs the extra 'bind'")

import onnx
from onnx import TensorProto, helper, numpy_helper

from agent.contracts import RuntimeOptions
from agent.errors import ConfigError
from encoders.bind.examples import Examples
from encoders.bind.export import FLOORS, INPUT, OUTPUT, NewSpace, write_tower
from encoders.bind.features import Features, Head, HeadedGraph
from encoders.bind.recall import embed
from encoders.bind.schedule import TrainConfig
from encoders.bind.train import fit
from encoders.providers import make_session
from encoders.space import open_space
from encoders.tower import PreprocessSettings, WindowSettings

CHANNELS, LENGTH, WIDTH, DIM = 2, 40, 24, 16
WINDOW = WindowSettings(length_s=2.0, hop_s=0.5)
PREPROCESS = PreprocessSettings(
    name="signal",
    parameters={"channels": CHANNELS, "rate_hz": 20, "length_s": 2.0, "hop_s": 1.0},
)


def network(
    path: Path, rows: int | str = "n", name: str = "x", opset: int = 17, outputs: int = 1
) -> Path:
    """A convolution, its norm and a pool, as other tools write it; `rows` at once."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(WIDTH, CHANNELS, 5)) / 3,
        "scale": rng.uniform(0.5, 2, WIDTH), "shift": rng.normal(size=WIDTH),
        "mean": rng.normal(size=WIDTH), "var": rng.uniform(0.5, 2, WIDTH),
    }  # fmt: skip
    graph = helper.make_graph(
        [
            helper.make_node("Conv", [name, "w"], ["input.1"], pads=[2, 2]),
            helper.make_node(
                "BatchNormalization", ["input.1", "scale", "shift", "mean", "var"], ["embedding.1"]
            ),
            helper.make_node("Relu", ["embedding.1"], ["r"]),
            helper.make_node("GlobalAveragePool", ["r"], ["p"]),
            helper.make_node("Flatten", ["p"], ["features"]),
            helper.make_node("Neg", ["features"], ["other"]),
        ],
        "user",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, CHANNELS, LENGTH])],
        [
            helper.make_tensor_value_info(output, TensorProto.FLOAT, [rows, WIDTH])
            for output in ("features", "other")[:outputs]
        ],
        [
            numpy_helper.from_array(value.astype(np.float32), key)
            for key, value in weights.items()
        ],
    )  # fmt: skip
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path
    )
    return path


def examples(count: int = 60) -> Examples:
    """Rhythms of three kinds, each a recording of its own; anchors are unit vectors by kind."""
    rng = np.random.default_rng(1)
    kinds = np.arange(count) % 3
    t = np.linspace(0, 2 * np.pi, LENGTH)
    views: list[NDArray[np.float32]] = []
    for kind in kinds:
        phase = (2 + 5 * kind) * t + rng.uniform(0, 6)
        wave = np.stack([np.sin(phase), np.cos(phase)]) + rng.normal(0, 0.1, (2, LENGTH))
        views.append(wave.astype(np.float32))
    anchors = np.eye(DIM, dtype=np.float32)[kinds]
    return Examples(views, anchors, np.arange(count), kinds.astype(np.int64))


@pytest.mark.parametrize(("rows", "name"), [("n", "x"), ("n", INPUT), (1, OUTPUT)])
def test_a_trained_head_and_its_network_are_one_tower(
    tmp_path: Path, rows: int | str, name: str
) -> None:
    made = examples()
    train, dev = made.take(range(40)), made.take(range(40, 60))
    features = Features(network(tmp_path / "user.onnx", rows, name), (CHANNELS, LENGTH), 1)
    assert features.width == WIDTH
    learned = features.examples(train)
    assert learned.view_shape == (WIDTH,)
    head = Head(np.stack(learned.views), DIM, seed=0)
    config = TrainConfig(steps=60, batch=16, rate=1e-2, ema=0.0, evaluations=2)
    fitted = fit(head, learned, features.examples(dev), config, tmp_path / "training")
    assert fitted.best.recall > 0.9  # chance: a third
    graph = HeadedGraph(features, head)
    folder = tmp_path / "space"
    written = write_tower(
        folder, "emg", graph, train.views, window=WINDOW, preprocess=PREPROCESS,
        new=NewSpace(name="made", licence="none"),
    )  # fmt: skip
    assert {key: exported.kept for key, exported in written.items()} == {"fp32": True, "int8": True}
    assert written["fp32"].least > FLOORS["fp32"]
    expected = embed(head, features.examples(dev).views)
    session = make_session(folder / "emg.onnx", RuntimeOptions(providers=("cpu",)))
    got = np.concatenate([session.run([OUTPUT], {INPUT: view[None]})[0] for view in dev.views])
    np.testing.assert_allclose(got, expected, atol=1e-5)
    # What was folded is not there any more, so that the quantiser had what it wants.
    kinds = {node.op_type for node in onnx.load(folder / "emg.onnx").graph.node}
    assert "BatchNormalization" not in kinds
    assert "Neg" not in kinds
    space = open_space(str(folder), RuntimeOptions(providers=("cpu",)))
    tower = space.encoder("emg")
    tower.load()
    assert (written["fp32"].file.max_batch == 1) == (rows == 1)


def test_weights_in_a_file_beside_the_network_end_in_the_towers_own(tmp_path: Path) -> None:
    """As torch.onnx.export writes any network by default."""
    model = onnx.load(network(tmp_path / "whole.onnx"))
    onnx.save(
        model, tmp_path / "user.onnx", save_as_external_data=True, location="user.data",
        size_threshold=0,
    )  # fmt: skip
    made = examples()
    features = Features(tmp_path / "user.onnx", (CHANNELS, LENGTH), 1)
    head = Head(features.vectors(made.views), DIM, seed=0)
    written = write_tower(
        tmp_path / "space", "emg", HeadedGraph(features, head), made.views, window=WINDOW,
        preprocess=PREPROCESS, new=NewSpace(name="made", licence="none"),
    )  # fmt: skip
    assert written["fp32"].least > FLOORS["fp32"]
    assert {path.suffix for path in (tmp_path / "space").iterdir()} == {".onnx", ".yaml"}
    (tmp_path / "user.data").unlink()
    with pytest.raises(ConfigError, match="onnxruntime cannot load it"):
        Features(tmp_path / "user.onnx", (CHANNELS, LENGTH), 1)


def test_the_head_begins_the_same_by_seed_and_takes_a_feature_that_never_changes() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(3, 100, (50, 4)).astype(np.float32)
    features[:, 1] = 7
    one, same, other = (Head(features, DIM, seed) for seed in (0, 0, 1))
    rows = list(features[:5])
    np.testing.assert_array_equal(embed(one, rows), embed(same, rows))
    assert not np.allclose(embed(one, rows), embed(other, rows))
    np.testing.assert_allclose(np.linalg.norm(embed(one, rows), axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such file, expected an ONNX network"),
        (lambda path: path.write_bytes(b"no graph"), "onnxruntime cannot load it"),
        (lambda path: network(path, rows=4), r"takes \{'x': .*expected one input, float32 \[n, 2"),
        (lambda path: network(path, opset=12), "opset 12, expected at least 13"),
        (lambda path: network(path, outputs=2), "expected one output that is float32"),
    ],
)
def test_a_network_that_does_not_fit_is_one_line(
    tmp_path: Path, make: object, message: str
) -> None:
    path = tmp_path / "user.onnx"
    assert callable(make)
    make(path)
    with pytest.raises(ConfigError, match=message) as caught:
        Features(path, (CHANNELS, LENGTH), 1)
    assert "\n" not in str(caught.value)


def test_views_of_another_shape_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected one input, float32 \[n, 3, 40\], the views'"):
        Features(network(tmp_path / "user.onnx"), (3, LENGTH), 1)
