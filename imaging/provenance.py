"""What the metadata of a file says of where the picture comes from: untrusted text, as data.

Read from the user's own bytes before metadata is cut out (imaging.metadata), and bounded: a few
named fields, each of at most `MOST_CHARACTERS`. Positions, names of people, serial numbers and
descriptions are not read. What is said here proves nothing, and neither teacher nor expert nor
model sees it.
"""

from __future__ import annotations

import io
import json
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from types import MappingProxyType
from typing import Final

from imaging import jpeg
from imaging.chunks import read_png_chunks, read_webp_chunks
from imaging.metadata import APP1, EXIF_SIGNATURE, GENERATOR_KEYS, PNG_TEXT

Said = tuple[str, str]
"""a name below and what the file says under it"""

MOST_CHARACTERS: Final = 2000
MOST_BYTES: Final = 2**16
"""of one block of text that is looked at"""

PARAMETERS: Final = "generator.parameters"
"""as AUTOMATIC1111's web UI writes them: prompt, steps, sampler, seed, model"""
PNG_SOFTWARE: Final = "png.software"
SOURCE_TYPE: Final = "xmp.digital_source_type"
CREATOR_TOOL: Final = "xmp.creator_tool"
C2PA: Final = "c2pa"
C2PA_GENERATOR: Final = "c2pa.claim_generator"
C2PA_SOURCE_TYPE: Final = "c2pa.digital_source_type"
C2PA_STATE: Final = "c2pa.validation_state"
UNREAD: Final = "present, not read"
"""the value of `C2PA` where the optional package is not installed"""
UNREADABLE: Final = "present, not readable"
READ: Final = "present"
C2PA_ADVICE: Final = "to read what they claim: make setup EXTRAS=c2pa"

XMP_SIGNATURE: Final = b"http://ns.adobe.com/xap/1.0/\0"
XMP_KEY: Final = b"XML:com.adobe.xmp"
XMP_VALUE: Final = (
    r"""[:<]{0}(?:\s*=\s*["']([^"'<>]{{1,300}})|\s+rdf:resource\s*=\s*["']([^"'<>]{{1,300}})"""
    r"""|\s*>\s*([^<>]{{1,300}}))"""
)
"""a property of an XMP packet: an attribute, a reference or text; no XML parser is let near it"""
XMP_FIELDS: Final = tuple(
    (name, re.compile(XMP_VALUE.format(field)))
    for name, field in ((SOURCE_TYPE, "DigitalSourceType"), (CREATOR_TOOL, "CreatorTool"))
)

EXIF_IFD: Final = 0x8769
USER_COMMENT: Final = 0x9286
EXIF_NAMES: Final[Mapping[int, str]] = MappingProxyType(
    {0x010F: "exif.make", 0x0110: "exif.model", 0x0131: "exif.software"}
)
BYTE, ASCII, LONG, UNDEFINED = 1, 2, 4, 7
"""types of TIFF fields"""
MOST_TAGS: Final = 500
COMMENT_CODES: Final[Mapping[bytes, str]] = MappingProxyType(
    {b"UNICODE\0": "utf-16-be", b"ASCII\0\0\0": "utf-8"}
)
IS_PARAMETERS: Final = re.compile(r"\bSteps: \d+,.*\b(?:Sampler|Seed): ", re.DOTALL)
"""what tells generation parameters from any other comment, which is not read"""

JUMBF_MARKER: Final = 0xEB
OFFLINE: Final[Mapping[str, bool]] = MappingProxyType(
    {"remote_manifest_fetch": False, "ocsp_fetch": False}
)
MIME_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
)


def is_free_text(name: str) -> bool:
    """Whether the values under a name are as different as the pictures."""
    return name.startswith("generator.")


def read_provenance(data: bytes, kind: str) -> dict[str, str]:
    """What a whole JPEG, PNG or WebP says of its origin, by name; nothing for other formats."""
    said: dict[str, str] = {}
    for name, text in READERS[kind](data) if kind in READERS else ():
        value = text.replace("\0", "").strip()[:MOST_CHARACTERS]
        if value:
            said.setdefault(name, value)
    return said


def _read_jpeg(data: bytes) -> Iterator[Said]:
    has_c2pa = False
    for segment in jpeg.read_segments(data):
        payload = data[segment.payload : min(segment.end, segment.payload + MOST_BYTES)]
        if segment.marker == APP1 and payload.startswith(EXIF_SIGNATURE):
            yield from _read_exif(payload.removeprefix(EXIF_SIGNATURE))
        elif segment.marker == APP1 and payload.startswith(XMP_SIGNATURE):
            yield from _read_xmp(payload)
        elif segment.marker == JUMBF_MARKER:
            has_c2pa |= payload.startswith(b"JP") and b"c2pa" in payload[:128]
        elif segment.marker == jpeg.SOS:
            break
    if has_c2pa:
        yield from _read_c2pa(data, "JPEG")


def _read_png(data: bytes) -> Iterator[Said]:
    for chunk in read_png_chunks(data):
        payload = data[chunk.payload : min(chunk.payload_end, chunk.payload + MOST_BYTES)]
        if chunk.name in PNG_TEXT:
            yield from _read_png_text(chunk.name, payload)
        elif chunk.name == b"eXIf":
            yield from _read_exif(payload.removeprefix(EXIF_SIGNATURE))
        elif chunk.name == b"caBX":
            yield from _read_c2pa(data, "PNG")


def _read_png_text(kind: bytes, payload: bytes) -> Iterator[Said]:
    key, _, rest = payload.partition(b"\0")
    if key not in GENERATOR_KEYS and key not in (b"Software", XMP_KEY):
        return
    text = _png_text(kind, rest)
    if key == XMP_KEY:
        yield from _read_xmp(text)
    else:
        name = PNG_SOFTWARE if key == b"Software" else f"generator.{key.decode().lower()}"
        yield name, text.decode("latin-1" if kind == b"tEXt" else "utf-8", "replace")


def _png_text(kind: bytes, rest: bytes) -> bytes:
    """The text of a chunk after its key (PNG, 11.3.3): as it is, or inflated within bounds."""
    if kind == b"tEXt":
        return rest
    if kind == b"zTXt":
        return _inflate(rest[1:])
    is_packed = rest[:1] == b"\1"
    text = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    return _inflate(text) if is_packed else text


def _inflate(packed: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, MOST_BYTES)
    except zlib.error:
        return b""


def _read_webp(data: bytes) -> Iterator[Said]:
    for chunk in read_webp_chunks(data):
        payload = data[chunk.payload : min(chunk.payload_end, chunk.payload + MOST_BYTES)]
        if chunk.name == b"EXIF":
            yield from _read_exif(payload.removeprefix(EXIF_SIGNATURE))
        elif chunk.name == b"XMP ":
            yield from _read_xmp(payload)
        elif chunk.name == b"C2PA":
            yield from _read_c2pa(data, "WEBP")


READERS: Final[Mapping[str, Callable[[bytes], Iterator[Said]]]] = MappingProxyType(
    {"JPEG": _read_jpeg, "PNG": _read_png, "WEBP": _read_webp}
)


def _read_xmp(packet: bytes) -> Iterator[Said]:
    text = packet.decode("utf-8", "replace")
    for name, pattern in XMP_FIELDS:
        if found := pattern.search(text):
            yield name, next(filter(None, found.groups()))


def _read_exif(tiff: bytes) -> Iterator[Said]:
    tags = read_tags(tiff)
    for tag, name in EXIF_NAMES.items():
        if tag in tags:
            yield name, tags[tag].decode("utf-8", "replace")
    comment = tags.get(USER_COMMENT, b"")
    code = COMMENT_CODES.get(comment[:8])
    if code is not None:
        text = comment[8:].decode(code, "replace")
        if IS_PARAMETERS.search(text):
            yield PARAMETERS, text


def read_tags(tiff: bytes) -> dict[int, bytes]:
    """The bytes of the tags above, of the first directory and of the EXIF directory behind it."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return {}
    found: dict[int, bytes] = {}
    waiting = [struct.unpack_from(f"{order}I", tiff.ljust(8, b"\0"), 4)[0]]
    for _ in range(2):
        if not waiting:
            break
        for tag, value in _read_directory(tiff, order, waiting.pop()):
            if tag == EXIF_IFD and len(value) == 4:
                waiting.append(struct.unpack(f"{order}I", value)[0])
            else:
                found.setdefault(tag, value)
    return found


def _read_directory(tiff: bytes, order: str, start: int) -> Iterator[tuple[int, bytes]]:
    (count,) = struct.unpack_from(f"{order}H", tiff[start : start + 2].ljust(2, b"\0"))
    for number in range(min(count, MOST_TAGS)):
        place = start + 2 + 12 * number
        if place + 12 > len(tiff):
            return
        tag, kind, length = struct.unpack_from(f"{order}HHI", tiff, place)
        if tag == EXIF_IFD and kind == LONG:
            yield tag, tiff[place + 8 : place + 12]
        elif (tag in EXIF_NAMES and kind == ASCII) or (
            tag == USER_COMMENT and kind in (BYTE, UNDEFINED)
        ):
            at = place + 8 if length <= 4 else struct.unpack_from(f"{order}I", tiff, place + 8)[0]
            yield tag, tiff[at : at + length]


def _read_c2pa(data: bytes, kind: str) -> Iterator[Said]:
    """Who made the claim, the source type and whether the signature holds; nothing is fetched."""
    if find_spec("c2pa") is None:
        yield C2PA, UNREAD
        return
    import c2pa

    try:
        context = c2pa.Context.from_dict({"verify": dict(OFFLINE)})
        with c2pa.Reader(MIME_TYPES[kind], io.BytesIO(data), context=context) as reader:
            manifests, state = json.loads(reader.json()), reader.get_validation_state()
    except (c2pa.C2paError, ValueError, RecursionError):
        yield C2PA, UNREADABLE
        return
    yield C2PA, READ
    yield C2PA_STATE, str(state)
    manifest = _get(_get(manifests, "manifests"), str(_get(manifests, "active_manifest")))
    yield C2PA_GENERATOR, _claim_generator(manifest)
    yield C2PA_SOURCE_TYPE, ", ".join(dict.fromkeys(_source_types(manifest)))


def _claim_generator(manifest: object) -> str:
    makers = _get(manifest, "claim_generator_info")
    names = [
        " ".join(str(_get(maker, field) or "") for field in ("name", "version")).strip()
        for maker in (makers if isinstance(makers, list) else [])
    ]
    return ", ".join(names) or str(_get(manifest, "claim_generator") or "")


def _source_types(manifest: object) -> Iterator[str]:
    assertions = _get(manifest, "assertions")
    for assertion in assertions if isinstance(assertions, list) else []:
        actions = _get(_get(assertion, "data"), "actions")
        for action in actions if isinstance(actions, list) else []:
            if kind := _get(action, "digitalSourceType"):
                yield str(kind)


def _get(record: object, name: str) -> object:
    return record.get(name) if isinstance(record, dict) else None
