"""What files said of their origin, stored as data, on both databases."""

from __future__ import annotations

from core.records import Authenticity
from db.engine import Database
from db.provenance import (
    ProvenanceCount,
    commonest_values,
    count_provenance,
    provenance_of,
    save_provenance,
)
from tests.campaigns import store_images

MARKUP = "<script>1</script>\n'; DROP TABLE images; --\0"


def counted(name: str, value: str | None = None, **images: int) -> ProvenanceCount:
    numbers = {"real": 0, "fake": 0, "unlabelled": 0, **images}
    return ProvenanceCount(name=name, value=value, **numbers)


def test_what_was_said_is_read_back_as_it_was(database: Database) -> None:
    first, second = store_images(database, 2)
    with database.write() as session:
        save_provenance(session, {first.image_id: {"exif.make": MARKUP, "c2pa": "present"}})
        save_provenance(session, {first.image_id: {"exif.make": "another"}})
        save_provenance(session, {})
    with database.read() as session:
        assert provenance_of(session, first.image_id) == {
            "c2pa": "present",
            "exif.make": MARKUP.replace("\0", "\\u0000"),
        }
        assert provenance_of(session, second.image_id) == {}


def test_images_are_counted_by_label_and_values_by_how_many_have_them(database: Database) -> None:
    fakes = store_images(database, 4, label=Authenticity.FAKE)
    (photo,) = store_images(database, 1, source="own", label=Authenticity.REAL)
    (unknown,) = store_images(database, 1, source="third", label=None)
    with database.write() as session:
        save_provenance(session, {image.image_id: {"make": "b"} for image in fakes[:2]})
        save_provenance(session, {fakes[2].image_id: {"make": "a", "tool": "x"}})
        save_provenance(session, {photo.image_id: {"make": "c"}, unknown.image_id: {"make": "c"}})
    with database.read() as session:
        assert count_provenance(session) == [
            counted("make", fake=3, real=1, unlabelled=1),
            counted("tool", fake=1),
        ]
        assert commonest_values(session, "make", most=2) == [
            counted("make", "b", fake=2),
            counted("make", "c", real=1, unlabelled=1),
        ]
        assert commonest_values(session, "none", most=2) == []
