"""Odd and hostile files that an importer meets, drawn here, with what must become of each."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

SECRET_PROMPT = "a lighthouse made of glass, 35 mm"
SECRET_CAMERA = "Obscura 9000"
TAIL = b"PK\x03\x04" + b"a tail that nobody asked for " * 200


class Fate(StrEnum):
    """What becomes of a file."""

    ACCEPTED = "accepted"
    CHANGED = "changed"
    DUPLICATE = "duplicate"
    REFUSED = "refused"
    HIDDEN = "hidden"


@dataclass(frozen=True)
class OddFile:
    """A file, its fate, and a piece of the reason or note that goes with it."""

    name: str
    data: bytes
    fate: Fate = Fate.ACCEPTED
    reason: str = ""
    shown: str | None = None
    """how the name is written in rows and reports, where that differs"""


def picture(seed: int, width: int = 96, height: int = 72, *, grain: float = 6) -> Image.Image:
    """A soft coloured scene with grain; no two seeds look alike."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    soft = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    noisy = np.asarray(soft) + rng.normal(0, grain, (height, width, 1))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    """The image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def jpeg(seed: int, **options: Any) -> bytes:
    """A picture as JPEG."""
    return encode(picture(seed), "JPEG", **{"quality": 92, **options})


def png_chunk(name: bytes, payload: bytes) -> bytes:
    """A PNG chunk with a right checksum."""
    body = name + payload
    return struct.pack(">I", len(payload)) + body + struct.pack(">I", zlib.crc32(body))


def png_of(*, width: int, height: int, bits: int, colour: int, rows: bytes) -> bytes:
    """A PNG from its header fields and its compressed rows."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def insert_chunks(png: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """The PNG with further chunks behind its header."""
    return png[:33] + b"".join(png_chunk(*chunk) for chunk in chunks) + png[33:]


def insert_segment(data: bytes, marker: int, payload: bytes) -> bytes:
    """The JPEG with a further segment behind its start marker."""
    segment = struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload
    return data[:2] + segment + data[2:]


def exif(*, orientation: int | None = None, gps: bool = False, text: str = "") -> bytes:
    """An EXIF block as Pillow writes it."""
    tags = Image.Exif()
    if orientation is not None:
        tags[0x0112] = orientation
    if gps:
        tags.get_ifd(0x8825).update({1: "S", 2: (33.0, 51.0, 24.5), 3: "E", 4: (151.0, 12.0, 40.0)})
    if text:
        tags[0x010F] = SECRET_CAMERA
        tags[0x010E] = text
    return tags.tobytes()


def broken_content() -> Iterator[OddFile]:
    """Files that are cut short, damaged, or something else than their name says."""
    photo = jpeg(1)
    png = encode(picture(2), "PNG")
    damaged = bytearray(png)
    damaged[png.index(b"IDAT") + 100] ^= 0x55
    heic = struct.pack(">I4s4sI", 24, b"ftyp", b"heic", 0) + b"mif1heic" + bytes(3000)
    svg = b"<?xml version='1.0'?><!-- drawn --><svg xmlns='http://www.w3.org/2000/svg'><script/></svg>"
    yield OddFile("cut_short.jpg", photo[: len(photo) // 2], Fate.REFUSED, "cut short")
    yield OddFile("cut_short.png", png[: len(png) // 2], Fate.REFUSED, "cut short")
    yield OddFile("cut_in_header.jpg", photo[:30], Fate.REFUSED, "cut short")
    yield OddFile("without_end.jpg", photo[:-200], Fate.REFUSED, "cut short")
    webp = encode(picture(3), "WEBP")
    yield OddFile("cut_short.webp", webp[: len(webp) // 2], Fate.REFUSED, "cut short")
    yield OddFile("empty.jpg", b"", Fate.REFUSED, "empty file")
    diary = "Dear diary, häh?\n".encode() * 9
    yield OddFile("diary.jpg", diary, Fate.REFUSED, "text, not an image")
    yield OddFile("page.jpg", b" <!DOCTYPE HTML><script>1</script>", Fate.REFUSED, "HTML")
    yield OddFile("drawing.png", svg, Fate.REFUSED, "SVG")
    yield OddFile("phone.jpg", heic, Fate.REFUSED, "HEIC, not supported or broken")
    yield OddFile("new.avif", heic.replace(b"ftypheic", b"ftypavif"), Fate.REFUSED, "AVIF")
    yield OddFile("clip.jpg", heic.replace(b"ftypheic", b"ftypisom"), Fate.REFUSED, "video")
    yield OddFile("new.jxl", b"\xff\x0a" + bytes(99), Fate.REFUSED, "JPEG XL")
    yield OddFile("scan.jpg", b"%PDF-1.7\n%\xe2\xe3", Fate.REFUSED, "PDF")
    yield OddFile("noise.jpg", bytes(range(1, 255)), Fate.REFUSED, "no image format")
    yield OddFile("bad_checksum.png", bytes(damaged), Fate.REFUSED, "checksum")
    yield OddFile("jpeg_inside.png", jpeg(4), Fate.ACCEPTED, "named .png, is JPEG")
    bad_exif = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\0\x03\x7f\xff\xff\xff\0\x06\0\0" * 3
    nonsense = insert_segment(jpeg(5), 0xE1, bad_exif)
    yield OddFile("bad_exif.jpg", nonsense, Fate.ACCEPTED, "EXIF unreadable")
    yield OddFile(
        "bad_profile.jpg", jpeg(6, icc_profile=b"no profile " * 40), reason="ICC profile unreadable"
    )
    bad_icc = (b"iCCP", b"x\0\0" + zlib.compress(b"no profile " * 40))
    yield OddFile(
        "bad_profile.png",
        insert_chunks(encode(picture(7), "PNG"), bad_icc),
        reason="ICC profile unreadable",
    )
    yield OddFile("tail.jpg", jpeg(8) + TAIL, reason=f"{len(TAIL)} bytes after the image")
    yield OddFile(
        "tail.png", encode(picture(9), "PNG") + TAIL, reason=f"{len(TAIL)} bytes after the image"
    )
    yield OddFile("two_in_one.jpg", jpeg(10) + jpeg(11), reason="bytes after the image")


def size_attacks() -> Iterator[OddFile]:
    """Files that are far larger than they seem, or too small to be pictures."""
    side = 20_000
    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(bytes(1 + side // 8)) for _ in range(side)) + packer.flush()
    bomb = png_of(width=side, height=side, bits=1, colour=0, rows=rows)
    liar = png_of(width=2**31 - 1, height=2**31 - 1, bits=8, colour=2, rows=zlib.compress(b"\0"))
    text = b"Comment\0\0" + zlib.compress(b"B" * (16 << 20), 9)
    small = encode(picture(20), "PNG")
    over = zlib.compress(bytes(72 * (96 * 3 + 1)) + bytes(32 << 20))
    last_scan = jpeg(21, progressive=True)
    scan = last_scan[last_scan.rindex(b"\xff\xda") : -2]
    yield OddFile("bomb.png", bomb, Fate.REFUSED, "too large: 20000 x 20000")
    yield OddFile("bomb_in_header.png", liar, Fate.REFUSED, "too large: 2147483647 x")
    yield OddFile("bomb_in_text.png", insert_chunks(small, (b"zTXt", text)), reason="cut out: text")
    yield OddFile("bomb_in_pixels.png", png_of(width=96, height=72, bits=8, colour=2, rows=over))
    webp = bytearray(encode(picture(22).convert("RGBA"), "WEBP", exif=exif(text="x")))
    webp[24:30] = b"\xff\xff\xff" * 2
    yield OddFile("bomb.webp", bytes(webp), Fate.REFUSED, "too large: 16777216 x 16777216")
    gif = bytearray(encode(picture(23), "GIF"))
    gif[6:10] = b"\xff\xff\xff\xff"
    yield OddFile("bomb.gif", bytes(gif), Fate.REFUSED, "too large: 65535 x 65535")
    yield OddFile(
        "many_scans.jpg", last_scan[:-2] + scan * 80 + b"\xff\xd9", Fate.REFUSED, "JPEG scans"
    )
    yield OddFile("wide.png", encode(picture(24, 9000, 4), "PNG"), Fate.REFUSED, "too small")
    yield OddFile("tall.png", encode(picture(25, 4, 9000), "PNG"), Fate.REFUSED, "too small")
    yield OddFile("ribbon.png", encode(picture(26, 1400, 40), "PNG"), Fate.REFUSED, "too narrow")
    dot = encode(Image.new("RGB", (1, 1), "teal"), "PNG")
    yield OddFile("dot.png", dot, Fate.REFUSED, "too small: 1 x 1")
    yield OddFile("flat.png", encode(Image.new("RGB", (64, 64), "teal"), "PNG"))


def unusual_content() -> Iterator[OddFile]:
    """Valid files that few importers expect."""
    deep = np.arange(96 * 72, dtype=np.uint16).reshape(72, 96) * 9
    rng = np.random.default_rng(30)
    triples = rng.integers(0, 65536, (72, 96, 3)).astype(">u2")
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in triples))
    scaled = "16-bit scaled to 8"
    yield OddFile("grey16.png", encode(Image.fromarray(deep), "PNG"), Fate.CHANGED, scaled)
    rgb16 = png_of(width=96, height=72, bits=16, colour=2, rows=rows)
    yield OddFile("rgb16.png", rgb16, Fate.CHANGED, scaled)
    grey16 = encode(Image.fromarray(65535 - deep[:, ::-1]), "TIFF")
    yield OddFile("grey16.tif", grey16, Fate.CHANGED, scaled)
    floats = Image.fromarray(rng.random((72, 96), dtype=np.float32))
    yield OddFile("floats.tif", encode(floats, "TIFF"), Fate.REFUSED, "32-bit samples")
    cmyk = encode(picture(31).convert("CMYK"), "JPEG")
    yield OddFile("cmyk.jpg", cmyk, Fate.CHANGED, "CMYK converted to RGB")
    yield OddFile("grey.jpg", encode(picture(32).convert("L"), "JPEG"))
    yield OddFile("progressive.jpg", jpeg(33, progressive=True))
    yield OddFile("picture.gif", encode(picture(34), "GIF"), Fate.CHANGED, "GIF redrawn as PNG")
    yield OddFile("picture.bmp", encode(picture(35), "BMP"), Fate.CHANGED, "BMP redrawn as PNG")
    yield OddFile("picture.tif", encode(picture(36), "TIFF"), Fate.CHANGED, "TIFF redrawn as PNG")
    for suffix, fate in (("gif", Fate.CHANGED), ("webp", Fate.CHANGED), ("png", Fate.ACCEPTED)):
        first, *others = (picture(seed) for seed in range(hash_of(suffix), hash_of(suffix) + 6))
        moving = encode(first, suffix.upper(), save_all=True, append_images=others, duration=90)
        yield OddFile(f"moving.{suffix}", moving, fate, "first of 6 frames")
    hole = picture(37).convert("RGBA")
    mask = np.full((72, 96), 255, np.uint8)
    mask[20:50, 30:70] = 0
    hole.putalpha(Image.fromarray(mask))
    yield OddFile("hole.png", encode(hole, "PNG"), Fate.CHANGED, "alpha over white")
    yield OddFile("opaque.png", encode(picture(38).convert("RGBA"), "PNG"))
    pale = picture(39).quantize(32)
    yield OddFile("palette.png", encode(picture(40).quantize(16), "PNG"))
    yield OddFile(
        "palette_hole.png", encode(pale, "PNG", transparency=5), Fate.CHANGED, "alpha over white"
    )
    for orientation in range(2, 9):
        turned = jpeg(40 + orientation, exif=exif(orientation=orientation, text=SECRET_PROMPT))
        yield OddFile(f"turned{orientation}.jpg", turned, reason="turned upright")
    turned_png = encode(picture(49), "PNG", exif=exif(orientation=6))
    yield OddFile("turned.png", turned_png, Fate.CHANGED, "turned upright")


def metadata_content() -> Iterator[OddFile]:
    """Files that say more than their pixels: where, with what, from which prompt."""
    tags = exif(gps=True, text=SECRET_PROMPT)
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>" + SECRET_PROMPT.encode() + b"</x:xmpmeta>"
    yield OddFile("where.jpg", jpeg(50, exif=tags), reason="GPS position")
    yield OddFile("where.webp", encode(picture(51), "WEBP", exif=tags, xmp=xmp), reason="XMP")
    talkative = insert_segment(jpeg(52, comment=SECRET_PROMPT), 0xE1, xmp)
    talkative = insert_segment(talkative, 0xEB, b"JP\0\0jumbc2pa" + SECRET_PROMPT.encode())
    talkative = insert_segment(talkative, 0xED, b"Photoshop 3.0\0" + SECRET_PROMPT.encode())
    yield OddFile("talkative.jpg", talkative, reason="IPTC, C2PA, XMP, comment")
    thumbnail = b"JFXX\0\x10" + encode(picture(53, 32, 32), "JPEG")
    yield OddFile("thumbnail.jpg", insert_segment(jpeg(53), 0xE0, thumbnail), reason="APP0")
    notes = PngImagePlugin.PngInfo()
    notes.add_text("parameters", SECRET_PROMPT, zip=True)
    notes.add_itxt("prompt", SECRET_PROMPT)
    notes.add_text("Title", "<script>alert(1)</script>")
    diffusion = encode(picture(54), "PNG", pnginfo=notes, exif=tags, dpi=(300, 300))
    diffusion = insert_chunks(diffusion, (b"caBX", b"jumbc2pa" + SECRET_PROMPT.encode()))
    yield OddFile("diffusion.png", diffusion, reason="generator parameters")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for seed, suffix, kind in ((55, "jpg", "JPEG"), (56, "png", "PNG"), (57, "webp", "WEBP")):
        data = encode(picture(seed), kind, icc_profile=profile)
        yield OddFile(f"profile.{suffix}", data)


NAMES = (
    "two  spaces.jpg", "комната_部屋.jpg", "smile_😀📷.jpg", "-rf.jpg", "it's \"so\" `odd`.jpg",
    "a;b&c|d$(id).jpg", "..%2f..%2fpasswd.jpg", "=2+3.jpg", "<img src=x onerror=alert(1)>.jpg",
    "CASE.JPG", "case.jpg", "e\u0301.jpg", "\u00e9.jpg", 'one,"two",three.jpg', "%s %d {0}.jpg",
    "y" * 250 + ".jpg",
)  # fmt: skip


def odd_names() -> Iterator[OddFile]:
    """Valid pictures under names that break careless programs."""
    for seed, name in enumerate(NAMES, 100):
        yield OddFile(name, jpeg(seed))
    yield OddFile("line\nbreak.jpg", jpeg(130), shown="line\\u000abreak.jpg")
    yield OddFile("back\\slash.jpg", jpeg(131), shown="back\\\\slash.jpg")
    yield OddFile("not_utf8_\udcff\udcfe.jpg", jpeg(132), shown="not_utf8_\\xff\\xfe.jpg")
    yield OddFile("no_suffix", jpeg(133), reason="no file name suffix, is JPEG")
    yield OddFile("holiday.jpg.exe", jpeg(134), reason="named .exe, is JPEG")
    yield OddFile(".hidden.jpg", jpeg(135), Fate.HIDDEN)
    yield OddFile("folder.png/inside.jpg", jpeg(136))


def twins() -> Iterator[OddFile]:
    """The same picture again: the same bytes, other metadata, other encodings."""
    scene = picture(203, 640, 480, grain=2)
    photo = encode(scene, "JPEG", quality=93)
    yield OddFile("twin_a.jpg", photo)
    yield OddFile("twin_b.jpg", photo, Fate.DUPLICATE, "the same image as")
    tagged = encode(scene, "JPEG", quality=93, exif=exif(text=SECRET_PROMPT))
    yield OddFile("twin_tagged.jpg", tagged, Fate.DUPLICATE, "the same image as")
    yield OddFile("twin_small.jpg", encode(scene.resize((320, 240)), "JPEG", quality=60))
    yield OddFile("twin_trimmed.png", encode(scene.crop((6, 5, 634, 475)), "PNG"))


NEAR_TWINS = ("twin_a.jpg", "twin_small.jpg", "twin_trimmed.png")


def hash_of(text: str) -> int:
    """A number for a seed."""
    return 300 + zlib.crc32(text.encode()) % 10_000


@dataclass(frozen=True)
class FileSystemOddity:
    """Something in a folder that is no plain file."""

    name: str
    make: Callable[[Path], object]
    reason: str
    fate: Fate = field(default=Fate.REFUSED)


OUT = "leads out of the folder"
FILE_SYSTEM = (
    FileSystemOddity("link_out.jpg", lambda p: p.symlink_to("/etc/hostname"), OUT),
    FileSystemOddity("link_up.jpg", lambda p: p.symlink_to("../" * 20 + "etc/passwd"), OUT),
    FileSystemOddity("link_loop.jpg", lambda p: p.symlink_to("link_loop.jpg"), "in circles"),
    FileSystemOddity("link_broken.jpg", lambda p: p.symlink_to("nowhere.jpg"), "missing file"),
    FileSystemOddity("link_folder", lambda p: p.symlink_to("folder.png"), "a folder, not a"),
    FileSystemOddity("pipe.jpg", os.mkfifo, "a named pipe"),
    FileSystemOddity(
        "zz_link_inside.jpg",
        lambda p: p.symlink_to("twin_a.jpg"),
        "the same image as",
        Fate.DUPLICATE,
    ),
)


def odd_files() -> list[OddFile]:
    """All odd files that have content."""
    parts = (
        broken_content, size_attacks, unusual_content, metadata_content, odd_names, twins,
    )  # fmt: skip
    return [file for part in parts for file in part()]


def draw_odd_files(folder: Path) -> dict[str, tuple[Fate, str]]:
    """Put everything into `folder`; fate and reason by the name that a report shows."""
    fates: dict[str, tuple[Fate, str]] = {}
    for file in odd_files():
        path = folder / file.name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(file.data)
        fates[file.shown or file.name] = (file.fate, file.reason)
    for oddity in FILE_SYSTEM:
        oddity.make(folder / oddity.name)
        fates[oddity.name] = (oddity.fate, oddity.reason)
    return fates
