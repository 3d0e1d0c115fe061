"""Where a trace is: between our regions and Label Studio's boxes, polygons and brushes.

Places there are percentages of the upright picture, however an expert turned or enlarged it on the
screen: `image_rotation` tells what the screen showed and moves nothing. Here they are fractions, or
the pixels of a mask.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from annotation.brush import decode, encode, mask_of
from annotation.interface import BOX, BRUSH, POLYGON, REGIONS
from core.records import ImageRecord, Mask, Region

Corners = list[tuple[float, float]]


def drawn(region: Region | Mask, image: ImageRecord) -> tuple[str, dict[str, Any]]:
    """How a region would have been drawn, and the parts of a result that say so."""
    shape, value = _value_of(region)
    kind = REGIONS[shape].lower()
    size = {"original_width": image.width, "original_height": image.height, "image_rotation": 0}
    return shape, {"type": kind, "value": {**value, kind: [shape]}, **size}


def region_of(results: Sequence[Mapping[str, Any]], image: ImageRecord) -> Region | Mask | None:
    """The region that these results, all of one trace, draw on an image.

    One box, one polygon, or any number of brush strokes; None where all was erased again.
    ValueError, KeyError or TypeError for anything else.
    """
    for result in results:
        _require_shown_upright(result, image)
    if all(result["type"] == REGIONS[BRUSH].lower() for result in results):
        strokes = [decode(r["value"]["rle"], image.width, image.height) for r in results]
        return mask_of(np.logical_or.reduce(strokes))
    (result,) = results
    value = result["value"]
    if result["type"] == REGIONS[POLYGON].lower():
        corners = [(float(x), float(y)) for x, y in value["points"]]
        if len(corners) < 3:
            raise ValueError("a polygon needs three corners")
    else:
        corners = _rectangle_corners(value, image)
    return Region(points=tuple((_fraction(x), _fraction(y)) for x, y in corners))


def _require_shown_upright(result: Mapping[str, Any], image: ImageRecord) -> None:
    """A browser that leaves a photograph lying on its side measures another picture."""
    width, height = int(result["original_width"]), int(result["original_height"])
    longest = max(width, height, image.width, image.height)
    if abs(width * image.height - height * image.width) > longest:  # sides are whole pixels
        raise ValueError(f"drawn on {width} x {height}, not {image.width} x {image.height} pixels")


def _value_of(region: Region | Mask) -> tuple[str, dict[str, Any]]:
    if isinstance(region, Mask):
        return BRUSH, {"format": "rle", "rle": encode(region)}
    left, top, right, bottom = region.bounding_box()
    if region.points != ((left, top), (right, top), (right, bottom), (left, bottom)):
        return POLYGON, {"points": [[100 * x, 100 * y] for x, y in region.points], "closed": True}
    sides = {"x": left, "y": top, "width": right - left, "height": bottom - top}
    return BOX, {**{name: 100 * side for name, side in sides.items()}, "rotation": 0}


def _rectangle_corners(value: Mapping[str, Any], image: ImageRecord) -> Corners:
    """The corners in percent. A turned rectangle turns in pixels, around its first corner."""
    left, top = float(value["x"]), float(value["y"])
    width, height = float(value["width"]), float(value["height"])
    turn = math.radians(float(value.get("rotation", 0)))
    if not turn:
        right, bottom = left + width, top + height
        return [(left, top), (right, top), (right, bottom), (left, bottom)]
    aspect = image.width / image.height
    right_x, right_y = width * math.cos(turn), width * aspect * math.sin(turn)
    down_x, down_y = -height / aspect * math.sin(turn), height * math.cos(turn)
    return [
        (left, top),
        (left + right_x, top + right_y),
        (left + right_x + down_x, top + right_y + down_y),
        (left + down_x, top + down_y),
    ]


def _fraction(percent: float) -> float:
    if not math.isfinite(percent):
        raise ValueError(f"{percent} is no place on a picture")
    return min(max(percent / 100, 0.0), 1.0)
