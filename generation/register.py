"""The database side of an import: what is known, what is new, and one whole batch at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from core.ids import image_id_of
from core.records import ImageRecord
from db.engine import Database
from db.images import (
    ImportedFile,
    ImportOutcome,
    count_images,
    images_by_id,
    imported_files,
    label_images,
    phashes,
    save_images,
    save_imported_files,
    set_clusters,
)
from generation.admission import Admission, admit
from imaging.intake import Intake, Refusal
from imaging.layouts import FoundFile
from imaging.neighbours import Clusters
from imaging.store import ImageStore

Taken = tuple[FoundFile, Intake | Refusal]


@dataclass(slots=True)
class Tally:
    """What became of the files so far."""

    outcomes: Counter[ImportOutcome] = field(default_factory=Counter)
    known: int = 0
    known_refused: int = 0
    hidden: int = 0
    unlabelled: int = 0
    refusals: list[tuple[str, str]] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.outcomes.total() + self.known + self.hidden


class Register:
    """Images and imported files of one source. Whatever is committed is whole: its clusters too."""

    def __init__(self, database: Database, store: ImageStore, source: str) -> None:
        self.tally = Tally()
        self._database = database
        self.store = store
        self.source = source
        self._rows: list[ImportedFile] = []
        self._clusters = Clusters()
        self._has_company = False
        with database.read() as session:
            self._before = imported_files(session, source)
        self._names = {source: _names_by_image(self._before)}

    def known_among(self, files: Sequence[FoundFile]) -> set[str]:
        """Names of files that were seen before and would end as they did then."""
        before = [(found, self._before.get(found.name)) for found in files]
        ids = [file.image_id for _, file in before if file and file.image_id]
        with self._database.read() as session:
            images = images_by_id(session, ids)
        return {found.name for found, file in before if file and self._stands(found, file, images)}

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

    def count_known(self, name: str) -> None:
        """Count a file that `known_among` named."""
        self.tally.known += 1
        self.tally.known_refused += self._before[name].outcome is ImportOutcome.REFUSED

    def refuse(self, found: FoundFile, refusal: Refusal) -> None:
        """Note a refused file; one whose reason may pass is tried again by the next import."""
        self.tally.outcomes[ImportOutcome.REFUSED] += 1
        self.tally.refusals.append((found.name, refusal.reason))
        row = self._row(found, ImportOutcome.REFUSED, refusal.reason, None)
        self._rows.append(row if refusal.is_lasting else replace(row, size=0, mtime_ns=0))

    def commit(self, batch: Sequence[Taken]) -> None:
        """Store what became of a batch and of the files noted since the last one."""
        ids = [image_id_of(taken.sha256) for _, taken in batch if isinstance(taken, Intake)]
        with self._database.write() as session:
            stored = images_by_id(session, ids)
            for other in {image.source for image in stored.values()} - set(self._names):
                self._names[other] = _names_by_image(imported_files(session, other))
            records = self._decide(batch, stored)
            new = [record for record in records.values() if record.image_id not in stored]
            if new and count_images(session).total != len(self._clusters):
                self._meet_company(Clusters(phashes(session)))
            names = self._clusters.add({record.image_id: record.phash for record in new})
            save_images(session, [replace(r, cluster=names.pop(r.image_id)) for r in new])
            set_clusters(session, names)
            label_images(session, [record for i, record in records.items() if i in stored])
            save_imported_files(session, self._rows)
        self._rows.clear()

    def _decide(
        self, batch: Sequence[Taken], stored: Mapping[str, ImageRecord]
    ) -> dict[str, ImageRecord]:
        """Settle each file of a batch; returns the records to be stored."""
        records: dict[str, ImageRecord] = {}
        for found, taken in batch:
            if isinstance(taken, Refusal):
                self.refuse(found, taken)
                continue
            image_id = image_id_of(taken.sha256)
            twin = records.get(image_id) or stored.get(image_id)
            name = self._names[twin.source].get(image_id, image_id) if twin else ""
            if twin and twin.source == self.source and name == found.name and _agree(found, twin):
                self._renew(found)
                continue
            admission = admit(found, taken, twin, twin_name=name, source=self.source)
            self._settle(found, admission)
            if admission.record is not None:
                records[image_id] = admission.record
        return records

    def _settle(self, found: FoundFile, admission: Admission) -> None:
        outcome, reason = admission.outcome, admission.reason
        self.tally.outcomes[outcome] += 1
        if outcome is ImportOutcome.REFUSED:
            self.tally.refusals.append((found.name, reason or ""))
        elif admission.record is not None:
            self.tally.unlabelled += admission.record.label is None
            self._names[self.source][admission.image_id] = found.name
        self._rows.append(self._row(found, outcome, reason, admission.image_id))

    def _renew(self, found: FoundFile) -> None:
        """The same file with another time, or lost from the store meanwhile: known all the same."""
        before = self._before[found.name]
        self._rows.append(replace(before, size=found.size, mtime_ns=found.mtime_ns))
        self.tally.known += 1

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
            if not self._has_company and count_images(session).total == len(self._clusters):
                return
            before = {image_id: (phash, cluster) for image_id, phash, cluster in phashes(session)}
            names = Clusters().add({i: phash for i, (phash, _) in before.items()})
            set_clusters(session, {i: name for i, name in names.items() if name != before[i][1]})


def _names_by_image(files: Mapping[str, ImportedFile]) -> dict[str, str]:
    """The name of the file that each image was taken from."""
    made = (ImportOutcome.ACCEPTED, ImportOutcome.CHANGED)
    return {
        file.image_id: file.name
        for file in files.values()
        if file.image_id and file.outcome in made
    }


def _agree(found: FoundFile, image: ImageRecord) -> bool:
    return found.label in (None, image.label)
