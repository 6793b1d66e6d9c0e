"""A tower for pictures of one channel that begins as the image tower: what it sees of a grey
photograph is known already, and only its later layers learn the new sense.

Needs the extra `bind`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from agent.errors import ModelMismatch
from agent.extras import needs_extra
from agent.types import Array, Window
from encoders.bind.aligned import PairRecipe, part, random_place
from encoders.bind.backbone import CLASSES, EARLY, LiteTower, Name, load_lite, looks, told
from encoders.bind.examples import Examples
from encoders.bind.export import INPUT
from encoders.bind.features import Features
from encoders.bind.losses import cosine_regression, info_nce
from encoders.bind.onnx_graph import free_rows, traced
from encoders.bind.recall import negatives
from encoders.bind.sources import Record
from encoders.bind.train import Batch, Objective
from encoders.preprocess.base import Float32Array
from encoders.preprocess.crops import PictureSettings

with needs_extra("bind"):
    import onnx
    import torch
    from onnx import numpy_helper
    from torch import Tensor, nn

__all__ = [
    "LiteFirst",
    "LiteRest",
    "grey_examples",
    "grey_picture",
    "jitter",
    "pair_objective",
    "read_lite",
    "slim",
]

# What of a tower's graph its body has not.
LAST = (
    *("classes.weight", "classes.bias", "names.weight"),
    *("look.detail.weight", "look.mean", "look.deviation", "look.share"),
)
# compact-recipe, section 5.
INVERTED = 0.35
BLUR = 0.008  # of the short side, at most
# Of normalised views: contrast, brightness and the most noise.
CONTRAST, BRIGHTNESS, NOISE = (0.75, 1.25), 0.3, 0.08


def read_lite(image: Path, name: Name, packages: Path) -> LiteTower:
    """The image tower as compact.pictures makes it: the package's body, with the last layers out of
    its float32 file `image`; in evaluation mode.

    Raises ModelMissing or ModelMismatch for a file that is not there or has other layers.
    """
    weights = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(image).graph.initializer
    }
    try:
        last = {part: weights[part] for part in LAST}
    except KeyError as exc:
        raise ModelMismatch(f"{image}: no layer {exc}, expected an image tower of {name}") from exc
    dim, classes = last["names.weight"].shape
    tower = LiteTower(name, dim, classes - CLASSES)
    load_lite(tower, name, packages)
    tower.load_state_dict({n: torch.tensor(w) for n, w in last.items()}, strict=False)
    return tower.eval()


@torch.no_grad()
def slim(tower: LiteTower, rank: int) -> None:
    """Put two thin layers in the place of the last but one, in place: the nearest to it of that
    rank (Eckart and Young 1936, doi:10.1007/BF02288367). It is a third of the int8 file, and tells
    apart a thousand classes of which streets and rooms have few.
    """
    whole = tower.classes
    left, values, right = torch.linalg.svd(whole.weight, full_matrices=False)
    thin, wide = nn.Linear(right.shape[1], rank, bias=False), nn.Linear(rank, len(left))
    thin.weight.copy_(right[:rank])
    wide.weight.copy_(left[:, :rank] * values[:rank])
    wide.bias.copy_(whole.bias)
    tower.classes = nn.Sequential(thin, wide)  # type: ignore[assignment]  # in the place of one layer


class LiteFirst:
    """The EARLY layers of a tower, which stay as they are, run as a graph: on a CPU three times as
    fast.
    """

    def __init__(
        self, tower: LiteTower, shape: tuple[int, ...], folder: Path, threads: int
    ) -> None:
        """shape: of a view. folder: where the graph is written."""
        first = nn.Sequential(*list(tower.body)[:EARLY], nn.Flatten()).eval()
        example = torch.zeros(2, *shape)
        with torch.no_grad():
            self._shape = tower.body[:EARLY](example).shape[1:]
        path = folder / "first.onnx"
        traced(first, example, {0: free_rows()}, (INPUT, "features")).save(path)
        self._features = Features(path, shape, threads)

    def __call__(self, views: Sequence[Float32Array]) -> Float32Array:
        """float32 (n, channels, rows, columns)."""
        return self._features.vectors(views).reshape(-1, *self._shape)


class LiteRest(nn.Module):
    """The other layers of a tower, which shares them, on what `LiteFirst` gives: to train them
    alone. Norms keep the statistics of the photographs, a hundred streets have none to give.
    """

    def __init__(self, tower: LiteTower) -> None:
        super().__init__()
        self.body = nn.Sequential(*list(tower.body)[EARLY:])
        self.classes, self.names, self.look = tower.classes, tower.names, tower.look

    def train(self, mode: bool = True) -> LiteRest:
        """Only says so: no layer differs by it."""
        self.training = mode
        for child in self.children():
            child.eval()
        return self

    def forward(self, features: Tensor) -> Tensor:
        return told(self, self.body(features).mean((2, 3)), looks(features))


def grey_picture(picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """uint8 (height, width, 3) to (height, width): weighted at random, blurred, some inverted."""
    weighted: Array = picture.astype(np.float32) @ rng.dirichlet(np.ones(3)).astype(np.float32)
    radius = rng.uniform(0, BLUR) * min(weighted.shape)
    blurred = Image.fromarray(weighted.astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius))
    grey = np.asarray(blurred)
    return 255 - grey if rng.random() < INVERTED else grey


def jitter(view: Float32Array, rng: np.random.Generator) -> Float32Array:
    """The view in another contrast and brightness, with noise."""
    noise = rng.uniform(0, NOISE) * rng.standard_normal(view.shape)
    varied = view * rng.uniform(*CONTRAST) + rng.uniform(-BRIGHTNESS, BRIGHTNESS) + noise
    return varied.astype(np.float32)


def grey_examples(
    photos: Sequence[Record],
    preprocess: PictureSettings,
    embed: Callable[[Window], Float32Array],
    recipe: PairRecipe,
    progress: Callable[[int, int], None],
) -> Examples:
    """Parts of photographs turned to one channel, each beside what the image tower says of it in
    colour; groups are photographs. embed: as aligned_examples. The same for the same seed.
    """
    rng = np.random.default_rng(recipe.seed)
    views, anchors = [], []
    for done, record in enumerate(photos, 1):
        photo = record.window()
        for _ in range(recipe.greys):
            place, mirrored = random_place(rng, recipe.least_part), bool(rng.integers(2))
            shown = part(photo, place, mirrored)
            grey = grey_picture(shown.data[0], rng)
            views.append(jitter(preprocess.views(grey[np.newaxis])[0], rng))
            anchors.append(embed(shown))
        progress(done, len(photos))
    groups = np.repeat(np.arange(len(photos)), recipe.greys)
    return Examples(views, np.stack(anchors), groups, np.full(len(views), -1, np.int64))


def pair_objective(
    recipe: PairRecipe, beside: Sequence[tuple[Examples, int]], named: Tensor
) -> Objective:
    """InfoNCE over pairs and what is learned beside them together, those of one scene no negatives
    of one another, and 1 - cosine; `recipe.named` times the same on the axes of words alone.

    beside: examples, views as the pairs', and how many of them a step, at random. named: bool
    (dim,), the axes that names use.
    """
    config = recipe.train
    # No number is a pair's.
    starts = np.cumsum([1, *[int(examples.groups.max()) + 1 for examples, _ in beside]])
    parts = [
        (
            torch.from_numpy(np.stack(examples.views)).contiguous(
                memory_format=torch.channels_last
            ),
            torch.from_numpy(examples.anchors),
            -int(start) - torch.from_numpy(examples.groups),
            count,
        )
        for (examples, count), start in zip(beside, starts, strict=False)
    ]
    none = torch.tensor(-1)

    def loss(tower: nn.Module, batch: Batch, scale: Tensor, generator: torch.Generator) -> Tensor:
        views, wanted, shown = [batch.views], [batch.anchors], [batch.groups]
        for own, anchors, groups, count in parts:
            drawn = torch.randint(len(own), (count,), generator=generator)
            views.append(own[drawn])
            wanted.append(anchors[drawn])
            shown.append(groups[drawn])
        vectors, anchor, scene = tower(torch.cat(views)), torch.cat(wanted), torch.cat(shown)
        apart = negatives(anchor, scene, none.expand(len(scene)))

        def bound(vectors: Tensor, anchor: Tensor) -> Tensor:
            contrast = info_nce(vectors, anchor, scale, apart)
            return contrast + config.regression * cosine_regression(vectors, anchor)

        if not recipe.named:
            return bound(vectors, anchor)
        words = [nn.functional.normalize(whole[:, named], dim=1) for whole in (vectors, anchor)]
        return bound(vectors, anchor) + recipe.named * bound(*words)

    return loss
