"""What the thousand classes of ImageNet are called, and what they are kinds of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agent.errors import ConfigError

__all__ = ["class_texts"]


def class_texts(
    photos: Sequence[str],
    absent: Mapping[int, str],
    hypernyms: Sequence[Sequence[str]],
    groups: Mapping[str, Sequence[str]],
) -> list[tuple[str, ...]]:
    """Of each class of ImageNet in order, its label and what that is a kind of.

    photos: labels in order of the classes that are not in `absent`, which has the others by number.
    hypernyms: (first label, last label, text...) of a stretch of classes. groups: labels by text.
    Raises ConfigError for a label that is not there.
    """
    rest = iter(photos)
    count = len(photos) + len(absent)
    labels = [absent[number] if number in absent else next(rest) for number in range(count)]
    texts = [[label] for label in labels]
    for first, last, *kinds in hypernyms:
        if first not in labels or last not in labels[labels.index(first) :]:
            raise ConfigError(f"hypernyms: {first!r} to {last!r}, expected two labels in order")
        start = labels.index(first)
        for own in texts[start : labels.index(last, start) + 1]:
            own.extend(kinds)
    for kind, members in groups.items():
        for label in members:
            if label not in labels:
                raise ConfigError(f"groups: {kind!r} has {label!r}, expected a class's label")
            # Two labels stand for two things each: the second, of objects, is the one grouped.
            texts[len(labels) - 1 - labels[::-1].index(label)].append(kind)
    return [tuple(dict.fromkeys(own)) for own in texts]
