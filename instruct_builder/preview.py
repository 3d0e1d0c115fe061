"""`preview.html`: some images with their findings and instructions, in one self-contained file."""

from __future__ import annotations

import base64
import io
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, zip_longest
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from core.errors import DataError
from core.recipe import is_simulated
from core.records import Authenticity, ImageRecord, Instruction, ReasoningChain, Split, TraceFinding
from core.taxonomy import Taxonomy
from imaging.decode import open_image
from instruct_builder.manifest import Manifest, caveats
from instruct_builder.selection import Member
from instruct_builder.shards import Placed

PREVIEW = "preview.html"
LARGEST_INLINE = 64 * 1024
"""bytes of an image file that is shown as it is"""
THUMBNAIL = 512
"""pixels of the longer side of any other"""
WITHDRAWN = b"<p>An image that stood here was withdrawn.</p>\n"
_SHOWN_AS_IS = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}

ReadImage = Callable[[str], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One image of the preview, ready to be shown."""

    image: ImageRecord
    split: Split
    chain: ReasoningChain
    findings: Sequence[tuple[str, TraceFinding]]
    """category name and finding"""
    families: Sequence[tuple[str, Sequence[Instruction]]]
    is_measured: bool
    address: str | None
    """data URI of the image; None when it cannot be read"""


class Scenes:
    """Chooses images for the preview and collects their instructions while rows are made."""

    def __init__(self, members: Sequence[Member], number: int) -> None:
        self.members = choose_members(members, number)
        self._wanted = {member.image.image_id for member in self.members}
        self.instructions: dict[str, Sequence[Instruction]] = {}

    def see(self, placed: Iterable[Placed]) -> None:
        """Keep the instructions of the chosen images."""
        for item in placed:
            if item.image.image_id in self._wanted:
                self.instructions[item.image.image_id] = item.instructions


def choose_members(members: Sequence[Member], number: int) -> list[Member]:
    """Photographs and fakes in turn, the fakes from every generator in turn, by id: a hash."""
    by_maker: dict[str, list[Member]] = defaultdict(list)
    mixed = sorted(members, key=lambda m: m.image.image_id)
    for member in mixed:
        by_maker[member.image.generator or ""].append(member)
    real = [m for m in mixed if m.image.label is Authenticity.REAL]
    fakes = _in_turn([by_maker[maker] for maker in sorted(by_maker) if maker])
    return _in_turn([real, fakes])[:number]


def _in_turn(queues: Sequence[Sequence[Member]]) -> list[Member]:
    return [member for turn in zip_longest(*queues) for member in turn if member is not None]


def render_preview(
    scenes: Scenes, manifest: Manifest, taxonomy: Taxonomy, read_image: ReadImage
) -> bytes:
    """The page as UTF-8. Everything inserted is escaped; nothing is loaded from elsewhere."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = [
        _show(member, scenes.instructions.get(member.image.image_id, ()), taxonomy, read_image)
        for member in scenes.members
    ]
    page = environment.get_template("preview.jinja").render(
        manifest=manifest, scenes=shown, caveats=caveats(manifest)
    )
    return page.encode()


def remove_scenes(page: bytes, image_ids: Iterable[str]) -> bytes:
    """The page without some images; whatever is inserted is escaped, so only we end an article."""
    for image_id in sorted(image_ids):
        scene = rf'<article id="{re.escape(image_id)}">.*?</article>\n'
        page = re.sub(scene.encode(), WITHDRAWN, page, flags=re.DOTALL)
    return page


def _show(
    member: Member, instructions: Sequence[Instruction], taxonomy: Taxonomy, read_image: ReadImage
) -> Scene:
    families = groupby(instructions, key=lambda instruction: instruction.family)
    return Scene(
        image=member.image,
        split=member.split,
        chain=member.chain,
        findings=[
            (taxonomy[finding.category].name, finding)
            for finding in member.chain.reasoning.supporting()
        ],
        families=[(family, list(rows)) for family, rows in families],
        is_measured=is_simulated(member.chain.teacher),
        address=data_uri(member.image, read_image),
    )


def data_uri(image: ImageRecord, read_image: ReadImage) -> str | None:
    """The image as text: its own bytes while they are few, else a smaller copy."""
    try:
        data, kind = read_image(image.path), _SHOWN_AS_IS.get(image.format)
        if kind is None or len(data) > LARGEST_INLINE:
            data, kind = _shrink(data), "image/jpeg"
    except DataError:
        return None
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _shrink(data: bytes) -> bytes:
    image = open_image(data).rgb.copy()
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
