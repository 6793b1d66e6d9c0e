"""The space that ships, with a tower that looks at parts of a frame too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

import encoders.models.compact

__all__ = ["VIEWS", "with_views"]

COMPACT = Path(encoders.models.compact.__file__).parent
VIEWS = {"squares": True, "tiles": [2, 3]}


def with_views(folder: Path, sense: str = "image", **views: Any) -> Path:
    """Written into `folder`, without a background: what ships was made with other views, or none.
    views: VIEWS where nothing is said; `views=None` for none.
    """
    manifest = yaml.safe_load((COMPACT / "space.yaml").read_text())
    manifest["towers"][sense]["views"] = views.get("views", views or VIEWS)
    del manifest["background"]
    for path in COMPACT.iterdir():
        if path.suffix in (".onnx", ".npz", ".json"):
            (folder / path.name).symlink_to(path)
    (folder / "space.yaml").write_text(yaml.safe_dump(manifest))
    return folder
