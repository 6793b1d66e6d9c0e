"""What `tools.bind` trains: a network of ours, a torch module or the head of an ONNX network.

Needs the extra `bind`.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from agent.errors import ConfigError
from agent.extras import needs_extra
from encoders.bind.augment import augment_for
from encoders.bind.binding import BindRecipe
from encoders.bind.examples import Examples
from encoders.bind.export import Graph
from encoders.bind.features import Features, Head, HeadedGraph
from encoders.bind.recall import embed
from encoders.bind.towers import Size, build, count, kind_of
from encoders.bind.train import Augment
from encoders.manifest import read_entry

with needs_extra("bind"):
    import torch
    from torch import nn

__all__ = ["Network", "network", "user_tower"]


class Network(NamedTuple):
    """tower: what is trained, on `train` and judged on `dev`, which are as it takes them. graph:
    what is written of it. told: one line for report and card.
    """

    tower: nn.Module
    train: Examples
    dev: Examples
    augment: Augment | None
    graph: nn.Module | Graph
    told: str


def network(
    args: argparse.Namespace, recipe: BindRecipe, dim: int
) -> Callable[[Examples, Examples], Network]:
    """What makes the network of the examples to train and to judge on. What was asked for is
    looked at here, before anything is read for it: raises ConfigError.
    """
    shape = recipe.made().shape
    assert recipe.preprocess is not None  # read_recipe filled it in
    augment = augment_for(recipe.preprocess.name, recipe.augment)
    if args.features is not None:
        if recipe.augment not in (None, "none"):
            raise ConfigError(
                f"augment: {recipe.augment!r} with --features, expected none: the features of a "
                "view are made once"
            )
        features = Features(args.features, shape, args.threads)
        return lambda train, dev: _headed(features, train, dev, dim, args.seed)
    if args.tower is not None:
        tower, name = user_tower(args.tower, shape, dim, args.seed), args.tower
    else:
        size: Size = args.size or "watch"
        tower, name = build(kind_of(args.modality, shape), size, shape, dim, seed=args.seed), size
    told = f"{name}, {count(tower) / 1e6:.2f} M parameters, views {list(shape)}"
    return lambda train, dev: Network(tower, train, dev, augment, tower, told)


def user_tower(name: str, view_shape: tuple[int, ...], dim: int, seed: int) -> nn.Module:
    """What MODULE:NAME makes, its random weights the same for the same seed, in training mode.

    Raises ConfigError where there is no such thing, or it does not give float32 unit vectors.
    """
    module, _, made_by = name.partition(":")
    try:
        maker = getattr(importlib.import_module(module), made_by)
    except (ImportError, AttributeError, ValueError) as exc:
        raise ConfigError(
            f"--tower: {name!r} cannot be imported ({exc}), expected MODULE:NAME on PYTHONPATH"
        ) from exc
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tower = maker(view_shape, dim)
        if not isinstance(tower, nn.Module) or not count(tower):
            raise ConfigError(
                f"--tower: {name} makes {type(tower).__name__}, expected a torch module with "
                "parameters"
            )
        views = torch.randn(2, *view_shape).numpy()
    try:
        vectors = embed(tower, list(views))
    except RuntimeError as exc:
        reason = " ".join(str(exc).split())
        raise ConfigError(
            f"--tower: {name} fails ({reason}), expected one that takes float32 "
            f"[n, {', '.join(map(str, view_shape))}]"
        ) from exc
    lengths = np.linalg.norm(vectors, axis=-1)
    if vectors.shape != (2, dim) or not bool((abs(lengths - 1) < 1e-3).all()):
        raise ConfigError(
            f"--tower: {name} gives {list(vectors.shape)} of length {lengths.flat[0]:.3g}, "
            f"expected unit vectors [2, {dim}]: end it with torch.nn.functional.normalize"
        )
    return tower.train()


def _headed(features: Features, train: Examples, dev: Examples, dim: int, seed: int) -> Network:
    learned = features.examples(train)
    head = Head(np.stack(learned.views), dim, seed)
    told = (
        f"linear head of {count(head)} parameters on {features.width} features of "
        f"{features.path.name} (sha256 {read_entry(features.path).sha256[:12]}), views "
        f"{list(features.view_shape)}"
    )
    return Network(head, learned, features.examples(dev), None, HeadedGraph(features, head), told)
