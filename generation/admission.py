"""Decide what becomes of a file that could be read: new image, known one, or contradiction."""

from __future__ import annotations

from dataclasses import dataclass

from core.ids import image_id_of
from core.records import Authenticity, ImageRecord
from db.images import ImportOutcome
from imaging.intake import Intake
from imaging.layouts import FoundFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What becomes of one file."""

    outcome: ImportOutcome
    reason: str | None
    """notes on an accepted file, or why it is refused"""
    image_id: str
    record: ImageRecord | None = None
    """to be stored: a new image, or an unlabelled one that gets its label"""


def admit(
    found: FoundFile, intake: Intake, twin: ImageRecord | None, *, twin_name: str, source: str
) -> Admission:
    """`twin` is the image that has the same bytes in the image store, `twin_name` its file."""
    record = make_record(found, intake, source=source)
    if twin is None or (twin.label is None and record.label is not None):
        return _accept(record, intake, was_unlabelled=twin is not None)
    where = f"{twin.source}: {twin_name}"
    if found.label not in (None, twin.label):
        reason = f"labelled {found.label}, but the same image is there as {twin.label} ({where})"
        return Admission(outcome=ImportOutcome.REFUSED, reason=reason, image_id=record.image_id)
    return Admission(
        outcome=ImportOutcome.DUPLICATE,
        reason="; ".join([f"the same image as {where}{_other_maker(record, twin)}", *intake.notes]),
        image_id=record.image_id,
    )


def make_record(found: FoundFile, intake: Intake, *, source: str) -> ImageRecord:
    """The image record of a new image, so far alone in its cluster."""
    image_id = image_id_of(intake.sha256)
    return ImageRecord(
        image_id=image_id,
        sha256=intake.sha256,
        original_sha256=intake.original_sha256,
        path=intake.path,
        width=intake.width,
        height=intake.height,
        format=intake.format,
        jpeg_quality=intake.jpeg_quality,
        phash=intake.phash,
        cluster=image_id,
        group=found.group or image_id,
        label=found.label,
        generator=found.generator if found.label is Authenticity.FAKE else None,
        source=source,
        size_bytes=intake.size_bytes,
        subsampling=intake.subsampling,
    )


def _accept(record: ImageRecord, intake: Intake, *, was_unlabelled: bool) -> Admission:
    notes = [*intake.notes, *(["was there without a label"] if was_unlabelled else [])]
    return Admission(
        outcome=ImportOutcome.CHANGED if intake.is_redrawn else ImportOutcome.ACCEPTED,
        reason="; ".join(notes) or None,
        image_id=record.image_id,
        record=record,
    )


def _other_maker(record: ImageRecord, twin: ImageRecord) -> str:
    if record.label is None or record.generator == twin.generator:
        return ""
    return f", which is there as made by {twin.generator}"
