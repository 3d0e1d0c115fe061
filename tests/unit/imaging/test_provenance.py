"""Provenance: what is read of metadata, what is not, and that no file can break the reading."""

from __future__ import annotations

import datetime
import io
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from imaging import provenance
from imaging.metadata import cut_metadata
from imaging.provenance import MOST_CHARACTERS, MOST_TAGS, read_provenance, read_tags
from tests.odd_files import encode, exif, insert_chunks, insert_segment, jpeg, picture, png_chunk

PARAMETERS = "a glass lighthouse\nNegative prompt: rain\nSteps: 20, Sampler: Euler a, Seed: 7"
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
XMP = (
    f'<rdf:Description xmp:CreatorTool="Maker 3" Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}"/>',
    f"<xmp:CreatorTool>Maker 3</xmp:CreatorTool><Iptc4xmpExt:DigitalSourceType>{SOURCE_TYPE}"
    "</Iptc4xmpExt:DigitalSourceType>",
    "<xmp:CreatorTool >\n Maker 3\n</xmp:CreatorTool>"
    f'<Iptc4xmpExt:DigitalSourceType rdf:resource="{SOURCE_TYPE}"/>',
)
PNG = encode(picture(1), "PNG")
JUMBF = b"JP\0\1\0\0\0\1" + b"\0\0\0\x1ejumb\0\0\0\x16jumdc2pa" + b"a claim of nobody"


def with_xmp(packet: str, kind: str) -> bytes:
    if kind == "JPEG":
        return insert_segment(jpeg(1), 0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet.encode())
    if kind == "WEBP":
        return encode(picture(1), "WEBP", xmp=packet.encode())
    notes = PngImagePlugin.PngInfo()
    notes.add_itxt("XML:com.adobe.xmp", packet)
    return encode(picture(1), "PNG", pnginfo=notes)


def camera_tags() -> Image.Exif:
    tags = Image.Exif()
    tags[0x010F], tags[0x0110], tags[0x0131] = "Obscura", "Obscura 9000", "Developer 2.1"
    tags[0x013B], tags[0x8298], tags[0x010E] = "J. Doe", "(c) J. Doe", "Doe's garden"
    tags.get_ifd(0x8825).update({1: "S", 2: (33.0, 51.0, 24.5), 3: "E", 4: (151.0, 12.0, 40.0)})
    tags.get_ifd(0x8769)[0xA431] = "serial 12345"
    return tags


@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt", "packed iTXt"])
def test_generation_parameters_are_read_from_any_text_chunk(kind: str) -> None:
    notes = PngImagePlugin.PngInfo()
    for key, value in (("parameters", PARAMETERS), ("workflow", '{"nodes": []}'), ("Title", "x")):
        if "iTXt" in kind:
            notes.add_itxt(key, value, zip="packed" in kind)
        else:
            notes.add_text(key, value, zip=kind == "zTXt")
    notes.add_text("Software", "Maker 3")
    notes.add_text("Author", "J. Doe")
    assert read_provenance(encode(picture(1), "PNG", pnginfo=notes), "PNG") == {
        "generator.parameters": PARAMETERS,
        "generator.workflow": '{"nodes": []}',
        "png.software": "Maker 3",
    }


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_of_exif_the_makers_are_read_and_no_person_or_place(kind: str) -> None:
    data = encode(picture(1), kind, exif=camera_tags().tobytes())
    assert read_provenance(data, kind) == {
        "exif.make": "Obscura",
        "exif.model": "Obscura 9000",
        "exif.software": "Developer 2.1",
    }


@pytest.mark.parametrize("coded", [b"UNICODE\0" + PARAMETERS.encode("utf-16-be"),
                                   b"ASCII\0\0\0" + PARAMETERS.encode()])  # fmt: skip
def test_parameters_are_read_from_a_comment_of_exif_and_other_comments_are_not(
    coded: bytes,
) -> None:
    for comment, expected in ((coded, PARAMETERS), (b"ASCII\0\0\0Dear J. Doe", None)):
        tags = camera_tags()
        tags.get_ifd(0x8769)[0x9286] = comment
        said = read_provenance(encode(picture(1), "WEBP", exif=tags.tobytes()), "WEBP")
        assert said.get(provenance.PARAMETERS) == expected


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("packet", XMP)
def test_the_source_type_is_read_from_xmp_however_it_is_written(packet: str, kind: str) -> None:
    assert read_provenance(with_xmp(packet, kind), kind) == {
        "xmp.creator_tool": "Maker 3",
        "xmp.digital_source_type": SOURCE_TYPE,
    }


def test_no_entity_of_xml_is_ever_expanded() -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>'
    packet = f"{bomb}<xmp:CreatorTool>&b;</xmp:CreatorTool>"
    assert read_provenance(with_xmp(packet, "JPEG"), "JPEG") == {"xmp.creator_tool": "&b;"}


def test_a_value_is_bounded_and_a_bomb_is_not_inflated() -> None:
    packed = b"prompt\0\0" + zlib.compress(b"a" * 50_000_000)
    said = read_provenance(insert_chunks(PNG, (b"zTXt", packed)), "PNG")
    assert said == {"generator.prompt": "a" * MOST_CHARACTERS}


def test_nothing_is_said_where_nothing_is_there() -> None:
    assert read_provenance(PNG, "PNG") == read_provenance(jpeg(1), "JPEG") == {}
    assert read_provenance(encode(picture(1), "GIF"), "GIF") == {}


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"II*\0", b"MM\0*"]))
def test_no_exif_block_breaks_the_reading(data: bytes, start: bytes) -> None:
    said = read_provenance(insert_segment(jpeg(1), 0xE1, b"Exif\0\0" + start + data), "JPEG")
    assert all(isinstance(value, str) for value in said.values())


def test_a_directory_that_announces_too_many_tags_is_read_so_far() -> None:
    entry = b"\x01\x0f\0\2\0\0\0\4AB\0\0"
    directory = b"MM\0*\0\0\0\x08\xff\xff" + entry * (MOST_TAGS + 10)
    assert read_tags(directory) == {0x010F: b"AB\0\0"}
    assert read_tags(directory[:30]) == {0x010F: b"AB\0\0"}


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from([b"tEXt", b"zTXt", b"iTXt"]),
    st.sampled_from([b"parameters", b"XML:com.adobe.xmp", b"Software"]),
    st.binary(max_size=100),
)
def test_no_text_chunk_breaks_the_reading(kind: bytes, key: bytes, data: bytes) -> None:
    said = read_provenance(insert_chunks(PNG, (kind, key + b"\0" + data)), "PNG")
    assert all(len(value) <= MOST_CHARACTERS for value in said.values())


def unsigned(kind: str) -> bytes:
    """A file with a C2PA box that holds no manifest."""
    if kind == "JPEG":
        return insert_segment(jpeg(1), 0xEB, JUMBF)
    if kind == "PNG":
        return insert_chunks(PNG, (b"caBX", JUMBF))
    data = encode(picture(1), "WEBP", exif=exif(orientation=1))
    body = data[8:] + b"C2PA" + len(JUMBF).to_bytes(4, "little") + JUMBF + b"\0" * (len(JUMBF) % 2)
    return b"RIFF" + len(body).to_bytes(4, "little") + body


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_without_the_optional_package_a_manifest_is_seen_and_not_read(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "find_spec", lambda name: None)
    assert read_provenance(unsigned(kind), kind) == {"c2pa": "present, not read"}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_manifest_that_is_none_is_not_readable(kind: str) -> None:
    pytest.importorskip("c2pa")
    assert read_provenance(unsigned(kind), kind) == {"c2pa": "present, not readable"}


def signed(kind: str) -> bytes:
    """A picture with a C2PA manifest, signed by a certificate made here."""
    c2pa = pytest.importorskip("c2pa")
    certificates, key = make_certificates()
    info = c2pa.C2paSignerInfo(alg=b"es256", sign_cert=certificates, private_key=key, ta_url=None)
    action = {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE}
    mime = f"image/{kind.lower()}"
    manifest = {
        "claim_generator_info": [{"name": "maker", "version": "3"}],
        "format": mime,
        "assertions": [{"label": "c2pa.actions", "data": {"actions": [action]}}],
    }
    made = io.BytesIO()
    with c2pa.Signer.from_info(info) as signer, c2pa.Builder(manifest) as builder:
        builder.sign(signer, mime, io.BytesIO(encode(picture(1), kind)), made)
    return made.getvalue()


def make_certificates() -> tuple[bytes, bytes]:
    """A certificate of ours and of the authority that signed it, and our private key, as PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def name(text: str) -> x509.Name:
        of = x509.oid.NameOID
        return x509.Name(
            [
                x509.NameAttribute(of.COMMON_NAME, text),
                x509.NameAttribute(of.ORGANIZATION_NAME, "x"),
            ]
        )

    now = datetime.datetime.now(datetime.UTC)
    authority, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    parts = []
    for subject, key, is_authority in (("own", own, False), ("authority", authority, True)):
        usage = {
            "digital_signature": not is_authority, "key_cert_sign": is_authority,
            "crl_sign": is_authority, "content_commitment": False, "key_encipherment": False,
            "data_encipherment": False, "key_agreement": False, "encipher_only": False,
            "decipher_only": False,
        }  # fmt: skip
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name("authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**usage), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()),
                critical=False,
            )
        )
        if not is_authority:
            purpose = x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.EMAIL_PROTECTION])
            builder = builder.add_extension(purpose, critical=False)
        certificate = builder.sign(authority, hashes.SHA256())
        parts.append(certificate.public_bytes(serialization.Encoding.PEM))
    ours = own.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return b"".join(parts), ours


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_signed_manifest_is_read_and_cut_out(kind: str) -> None:
    data = signed(kind)
    assert read_provenance(data, kind) == {
        "c2pa": "present",
        "c2pa.validation_state": "Valid",
        "c2pa.claim_generator": "maker 3",
        "c2pa.digital_source_type": SOURCE_TYPE,
    }
    cut = cut_metadata(data, kind)
    assert "C2PA" in cut.removed
    assert b"c2pa" not in cut.data
    assert read_provenance(cut.data, kind) == {}


def test_a_picture_that_was_changed_after_it_was_signed_is_not_valid() -> None:
    data = signed("PNG")
    start = data.index(b"IDAT") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4])
    other = encode(picture(2), "PNG")
    rows = other[other.index(b"IDAT") + 4 : other.index(b"IEND") - 8]
    said = read_provenance(data[:start] + png_chunk(b"IDAT", rows) + data[end:], "PNG")
    assert said["c2pa.validation_state"] == "Invalid"
