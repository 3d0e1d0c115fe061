"""`topics.json` of a shard set: what its images show, where the recipe inspects by topic."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

from core.errors import ConfigError

TOPICS = "topics.json"


def topics_bytes(topics: Mapping[str, str]) -> bytes:
    """Topics by image id, as they lie in a set."""
    return (json.dumps(topics, indent=0, sort_keys=True, ensure_ascii=False) + "\n").encode()


def read_topics(folder: Path) -> Mapping[str, str]:
    """Topics by image id; none where the set has none."""
    path = folder / TOPICS
    if not path.is_file():
        return {}
    try:
        topics: dict[str, str] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}; build the set again") from None
    return topics


def without(folder: Path, image_ids: Collection[str]) -> bytes:
    """The file as it is once some images have left the set."""
    topics = read_topics(folder)
    return topics_bytes({name: topic for name, topic in topics.items() if name not in image_ids})
