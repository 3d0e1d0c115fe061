"""The database side of an import: what is known, what is new, and one whole batch at a time.

Nothing of the run is held but the tally, one batch, and an index of the hashes of all images (some
60 bytes each). What was seen before is looked up batch by batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from core.ids import image_id_of
from core.records import ImageRecord, ImageTopic, Tombstone
from core.topics import COLLECTION
from db.engine import Database
from db.images import (
    ImportedFile,
    ImportOutcome,
    file_names,
    find_imported,
    images_by_id,
    label_images,
    phashes,
    rename_clusters,
    save_images,
    save_imported_files,
    total_images,
)
from db.provenance import save_provenance
from db.tombstones import tombstones_by_hash
from db.topics import save_topics
from generation.admission import Admission, admit
from imaging.intake import Intake, Refusal
from imaging.layouts import FoundFile
from imaging.neighbours import Clusters
from imaging.provenance import C2PA, UNREAD
from imaging.store import ImageStore

Taken = tuple[FoundFile, Intake | Refusal]

REFUSALS_HELD: Final = 1000
"""the first ones; `python -m generation refused` prints them all"""


@dataclass(slots=True)
class Tally:
    """What became of the files so far."""

    outcomes: Counter[ImportOutcome] = field(default_factory=Counter)
    known: int = 0
    known_refused: int = 0
    hidden: int = 0
    unlabelled: int = 0
    unread_c2pa: int = 0
    """new images with a C2PA manifest that nothing here can read"""
    refusals: list[tuple[str, str]] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.outcomes.total() + self.known + self.hidden

    def refuse(self, name: str, reason: str) -> None:
        self.outcomes[ImportOutcome.REFUSED] += 1
        if len(self.refusals) < REFUSALS_HELD:
            self.refusals.append((name, reason))


@dataclass(frozen=True, slots=True)
class _Memory:
    """What the database knows of a batch of files that were taken in."""

    images: Mapping[str, ImageRecord]
    """that have the same bytes, by image id"""
    files: Mapping[str, ImportedFile]
    """of the same names"""
    names: dict[tuple[str, str], str]
    """of the files that the images were taken from, by source and image id"""
    tombstones: Mapping[str, Tombstone]
    """of withdrawn images, by the hashes of the files that were taken in"""


class Register:
    """Images and imported files of one source. Whatever is committed is whole: its clusters too."""

    def __init__(self, database: Database, store: ImageStore, source: str) -> None:
        self.tally = Tally()
        self._database = database
        self.store = store
        self.source = source
        self._rows: list[ImportedFile] = []
        self._topics: dict[str, ImageTopic] = {}
        self._clusters = Clusters()
        self._has_company = False

    def known_among(self, files: Sequence[FoundFile]) -> dict[str, ImportedFile]:
        """The files that were seen before and would end as they did then, by name."""
        with self._database.read() as session:
            before = find_imported(session, self.source, [found.name for found in files])
            ids = [file.image_id for file in before.values() if file.image_id]
            images = images_by_id(session, ids)
        pairs = ((found, before.get(found.name)) for found in files)
        return {
            found.name: file for found, file in pairs if file and self._stands(found, file, images)
        }

    def _stands(
        self, found: FoundFile, file: ImportedFile, images: Mapping[str, ImageRecord]
    ) -> bool:
        if (file.size, file.mtime_ns) != (found.size, found.mtime_ns):
            return False
        if file.image_id is None:
            return True
        image = images.get(file.image_id)
        if image is None or not self.store.holds(image.path):
            return False
        is_contradiction = found.label not in (None, image.label)
        return is_contradiction == (file.outcome is ImportOutcome.REFUSED)

    def count_known(self, found: FoundFile, file: ImportedFile) -> None:
        """Count a file that `known_among` named; its topic may have been named since."""
        self.tally.known += 1
        self._note_topic(found, file.image_id)
        self.tally.known_refused += file.outcome is ImportOutcome.REFUSED

    def refuse(self, found: FoundFile, refusal: Refusal) -> None:
        """Note a refused file; one whose reason may pass is tried again by the next import."""
        self.tally.refuse(found.name, refusal.reason)
        row = self._row(found, ImportOutcome.REFUSED, refusal.reason, None)
        self._rows.append(row if refusal.is_lasting else replace(row, size=0, mtime_ns=0))

    def commit(self, batch: Sequence[Taken]) -> None:
        """Store what became of a batch and of the files noted since the last one."""
        taken = {
            image_id_of(outcome.sha256): outcome
            for _, outcome in reversed(batch)  # of equal images the first one counts
            if isinstance(outcome, Intake)
        }
        with self._database.write() as session:
            memory = _Memory(
                images_by_id(session, list(taken)),
                find_imported(session, self.source, [found.name for found, _ in batch]),
                file_names(session, list(taken)),
                tombstones_by_hash(session, _hashes_of(batch)),
            )
            records = self._decide(batch, memory)
            new = {i: record for i, record in records.items() if i not in memory.images}
            if new and total_images(session) != len(self._clusters):
                self._meet_company(Clusters(phashes(session)))
            joined = self._clusters.add({i: record.phash for i, record in new.items()})
            save_images(session, [replace(r, cluster=joined.cluster_of[i]) for i, r in new.items()])
            rename_clusters(session, joined.renamed)
            label_images(session, [r for i, r in records.items() if i in memory.images])
            save_provenance(session, {image_id: taken[image_id].provenance for image_id in new})
            save_imported_files(session, self._rows)
            save_topics(session, list(self._topics.values()))
        self._topics.clear()
        self.tally.unread_c2pa += sum(taken[i].provenance.get(C2PA) == UNREAD for i in new)
        self._rows.clear()

    def _decide(self, batch: Sequence[Taken], memory: _Memory) -> dict[str, ImageRecord]:
        """Settle each file of a batch; returns the records to be stored, by image id."""
        records: dict[str, ImageRecord] = {}
        for found, taken in batch:
            if isinstance(taken, Refusal):
                self.refuse(found, taken)
                continue
            if tombstone := _find_tombstone(taken, memory.tombstones):
                self._turn_away(found, taken, tombstone, memory)
                continue
            image_id = image_id_of(taken.sha256)
            twin = records.get(image_id) or memory.images.get(image_id)
            name = memory.names.get((twin.source, image_id), image_id) if twin else ""
            before = memory.files.get(found.name)
            is_itself = twin is not None and (twin.source, name) == (self.source, found.name)
            self._note_topic(found, image_id)
            if before and twin and is_itself and _agree(found, twin):
                self._renew(found, before)
                continue
            admission = admit(found, taken, twin, twin_name=name, source=self.source)
            self._settle(found, admission)
            if admission.record is not None:
                records[image_id] = admission.record
                memory.names[self.source, image_id] = found.name
        return records

    def _turn_away(
        self, found: FoundFile, taken: Intake, tombstone: Tombstone, memory: _Memory
    ) -> None:
        """Refuse a withdrawn image, and take it out of the image store again."""
        is_itself = taken.sha256 == tombstone.sha256
        if is_itself or image_id_of(taken.sha256) not in memory.images:
            self.store.remove(taken.sha256)
        reason = f"the same image was withdrawn on {tombstone.withdrawn_at:%Y-%m-%d}"
        self.refuse(found, Refusal(f"{reason}: {tombstone.reason}"))

    def _settle(self, found: FoundFile, admission: Admission) -> None:
        outcome, reason = admission.outcome, admission.reason
        if outcome is ImportOutcome.REFUSED:
            self.tally.refuse(found.name, reason or "")
        else:
            self.tally.outcomes[outcome] += 1
        if admission.record is not None:
            self.tally.unlabelled += admission.record.label is None
        self._rows.append(self._row(found, outcome, reason, admission.image_id))

    def _renew(self, found: FoundFile, before: ImportedFile) -> None:
        """The same file with another time, or lost from the store meanwhile: known all the same."""
        self._rows.append(replace(before, size=found.size, mtime_ns=found.mtime_ns))
        self.tally.known += 1

    def _note_topic(self, found: FoundFile, image_id: str | None) -> None:
        if found.topic and image_id:
            word = ImageTopic(image_id=image_id, said_by=COLLECTION, topic=found.topic)
            self._topics[image_id] = word

    def _row(
        self, found: FoundFile, outcome: ImportOutcome, reason: str | None, image_id: str | None
    ) -> ImportedFile:
        return ImportedFile(
            source=self.source,
            name=found.name,
            outcome=outcome,
            reason=reason,
            image_id=image_id,
            size=found.size,
            mtime_ns=found.mtime_ns,
        )

    def _meet_company(self, clusters: Clusters) -> None:
        """Go on with the clusters of the database: another import has added images meanwhile."""
        self._has_company |= len(self._clusters) > 0
        self._clusters = clusters

    def join_company(self) -> None:
        """Search near-duplicates between this import's images and those of another one meanwhile.

        Two PostgreSQL transactions at the same time do not see each other's images.
        """
        if not len(self._clusters):
            return
        with self._database.write() as session:
            if self._has_company or total_images(session) != len(self._clusters):
                rename_clusters(session, Clusters(phashes(session)).search_all())


def _hashes_of(batch: Sequence[Taken]) -> set[str]:
    intakes = [taken for _, taken in batch if isinstance(taken, Intake)]
    return {digest for taken in intakes for digest in (taken.sha256, taken.original_sha256)}


def _find_tombstone(taken: Intake, tombstones: Mapping[str, Tombstone]) -> Tombstone | None:
    return tombstones.get(taken.sha256) or tombstones.get(taken.original_sha256)


def _agree(found: FoundFile, image: ImageRecord) -> bool:
    return found.label in (None, image.label)
