"""A zoo of archives: what is whole comes out as it went in, everything else is refused with its reason."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import time
import zipfile

import pyarrow as pa
import pytest

from unmask.config import DownloadConfig
from unmask.data.archives import unpack
from unmask.errors import InputError

LIMITS = DownloadConfig()
FILES = {"set/real/ä b.png": os.urandom(700), "set/fake/Swap/x.png": os.urandom(70_000), "set/fake/empty.png": b""}


def tar_bytes(members, entry_format=tarfile.PAX_FORMAT):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=entry_format) as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def tar_file(name, content=b"x", **attributes):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in attributes.items():
        setattr(member, key, value)
    return member, content


def tar_of(files):
    return tar_bytes([tar_file(name, content) for name, content in files.items()])


def zip_bytes(files, compression=zipfile.ZIP_DEFLATED):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return packed.getvalue()


def written(tmp_path, content, name="archive"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


def refused(tmp_path, content, match, limits=LIMITS):
    archive = written(tmp_path, content)
    with pytest.raises(InputError, match=match) as caught:
        unpack(archive, tmp_path / "out", limits, "set.zip")
    assert caught.value.fix
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["archive"], "nothing half-done stays"
    return str(caught.value)


@pytest.mark.parametrize(
    "pack",
    [
        lambda: zip_bytes(FILES.items()),
        lambda: zip_bytes(FILES.items(), zipfile.ZIP_STORED),
        lambda: tar_of(FILES),
        lambda: gzip.compress(tar_of(FILES)),
        lambda: lzma.compress(tar_of(FILES)),
        lambda: bz2.compress(tar_of(FILES)),
        lambda: pa.compress(tar_of(FILES), "zstd", asbytes=True),
    ],
    ids=["zip", "stored zip", "tar", "tar.gz", "tar.xz", "tar.bz2", "tar.zst"],
)
def test_what_went_in_comes_out(tmp_path, pack):
    found = unpack(written(tmp_path, pack()), tmp_path / "out", LIMITS)
    out = {p.relative_to(tmp_path / "out").as_posix(): p.read_bytes() for p in (tmp_path / "out").rglob("*.png")}
    assert out == FILES
    assert (found.files, found.size_bytes, found.nested) == (3, 70_700, 0)


@pytest.mark.parametrize(
    "name", ["../evil.png", "real/../../evil.png", "..\\evil.png", "a/..", "/etc/evil", "C:\\evil"]
)
@pytest.mark.parametrize("pack", [lambda name: zip_bytes([(name, b"x")]), lambda name: tar_of({name: b"x"})])
def test_names_cannot_lead_out_of_the_folder(tmp_path, name, pack):
    message = refused(tmp_path, pack(name), "leads out of the folder|absolute path")
    assert "evil" in message or "a/.." in message
    assert not (tmp_path.parent / "evil.png").exists()


@pytest.mark.parametrize(
    ("attributes", "match"),
    [
        ({"type": tarfile.SYMTYPE, "linkname": "/etc"}, "is a link to '/etc'"),
        ({"type": tarfile.LNKTYPE, "linkname": "other"}, "is a link to 'other'"),
        ({"type": tarfile.CHRTYPE}, "device"),
        ({"type": tarfile.FIFOTYPE}, "pipe"),
    ],
)
def test_links_and_devices_are_refused(tmp_path, attributes, match):
    refused(tmp_path, tar_bytes([tar_file("real/a.png"), tar_file("real/link", b"", **attributes)]), match)


def test_links_in_a_zip_are_refused(tmp_path):
    link = zipfile.ZipInfo("real/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    refused(tmp_path, zip_bytes([(link, b"/etc")]), "'real/link' is a link")


def test_a_link_cannot_lead_later_entries_out(tmp_path):
    entries = [tar_file("out", b"", type=tarfile.SYMTYPE, linkname=".."), tar_file("out/evil")]
    refused(tmp_path, tar_bytes(entries), "is a link")
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("pack", [lambda c: zip_bytes([("real/a.png", c)]), lambda c: gzip.compress(tar_of({"a": c}))])
def test_bombs_are_refused_before_they_fill_the_disk(tmp_path, pack):
    bomb = pack(bytes(100 * 2**20))
    assert len(bomb) < 2**18
    refused(tmp_path, bomb, "refused: it unpacks to .* MiB or more, the limit is 64 MiB")


def test_a_zip_that_hides_its_size_is_refused(tmp_path):
    """The stated size is 10 bytes; what comes out is not believed to be more."""
    honest = zip_bytes([("a.png", bytes(2**20))])
    lying = honest.replace(struct.pack("<L", 2**20), struct.pack("<L", 10))
    refused(tmp_path, lying, "damaged or cut off")


def test_limits_of_bytes_and_files_can_be_set(tmp_path):
    content = zip_bytes([(f"{n}.png", os.urandom(2000)) for n in range(20)])
    refused(tmp_path, content, "more than 19 files", LIMITS.model_copy(update={"max_unpacked_files": 19}))
    refused(tmp_path, content, "the limit is 0 MiB", LIMITS.model_copy(update={"max_unpacked_gib": 1e-5}))


def test_a_tar_with_endless_headers_is_refused(tmp_path):
    header = tarfile.TarInfo("././@LongLink")
    header.type = tarfile.GNUTYPE_LONGNAME
    header.size = 40 * 2**20
    content = header.tobuf(tarfile.GNU_FORMAT) + b"a" * header.size
    refused(tmp_path, gzip.compress(content), "headers of more than")


def test_entries_with_one_name_are_refused_and_case_is_kept_apart(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = zip_bytes([("real/a.png", b"1"), ("real/a.png", b"2")])
    refused(tmp_path, twice, "'real/a.png' has the name of another entry")
    refused(tmp_path, tar_bytes([tar_file("a"), tar_file("a/b")]), "'a/b' lies below another entry that is a file")
    (tmp_path / "archive").unlink()
    if not (tmp_path / "UPPER").exists():
        unpack(written(tmp_path, tar_of({"A.png": b"1", "a.png": b"22"})), tmp_path / "out", LIMITS)
        sizes = {path.name: path.stat().st_size for path in (tmp_path / "out").glob("*.png")}
        assert sizes == {"A.png": 1, "a.png": 2}


def test_encrypted_archives_are_refused(tmp_path):
    content = bytearray(zip_bytes([("a.png", b"x" * 100)]))
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(magic) + offset] |= 1
    refused(tmp_path, bytes(content), "'a.png' is encrypted")


def test_cut_off_archives_are_refused_wherever_they_are_cut(tmp_path):
    packed = {
        "zip": zip_bytes(FILES.items()),
        "tar": tar_of(FILES),
        "tar.gz": gzip.compress(tar_of(FILES)),
        "tar.xz": lzma.compress(tar_of(FILES)),
        "tar.zst": pa.compress(tar_of(FILES), "zstd", asbytes=True),
    }
    boundary = 1024 + tarfile.BLOCKSIZE  # of the tar: after the first file, where a header would follow
    for kind, content in packed.items():
        for length in (boundary, 3 * boundary, len(content) // 2, len(content) - 11_000, len(content) - 1):
            if kind == "tar" and length == len(content) - 1:
                continue  # one byte of the padding after the end is no loss
            refused(tmp_path, content[:length], "damaged or cut off")


def test_a_flipped_bit_is_found(tmp_path):
    for content in (
        zip_bytes(FILES.items(), zipfile.ZIP_STORED),
        gzip.compress(tar_of(FILES), compresslevel=0),
        lzma.compress(tar_of(FILES)),
    ):
        flipped = bytearray(content)
        flipped[30_000] ^= 4
        refused(tmp_path, bytes(flipped), "damaged or cut off")


def test_a_tar_with_garbage_in_the_middle_is_not_taken_for_a_short_one(tmp_path):
    content = bytearray(tar_of({f"{n}.png": bytes(512) for n in range(10)}))
    content[5 * 1024 : 5 * 1024 + 512] = os.urandom(512)
    refused(tmp_path, bytes(content), "no end of the archive where one must be")


@pytest.mark.parametrize("content", [b"", b"<html>Please log in</html>", os.urandom(5000)])
def test_what_is_no_archive_is_said_so(tmp_path, content):
    refused(tmp_path, content, "neither a zip nor a tar")


def test_archives_inside_stay_packed(tmp_path):
    inner = zip_bytes([("../evil.png", b"x")])
    found = unpack(written(tmp_path, zip_bytes([("inner.zip", inner), ("a.png", b"x")])), tmp_path / "out", LIMITS)
    assert found.nested == 1
    assert (tmp_path / "out" / "inner.zip").read_bytes() == inner


@pytest.mark.parametrize("pack", [lambda f: zip_bytes(f.items()), lambda f: gzip.compress(tar_of(f), 1)])
def test_ten_thousand_small_files_take_seconds(tmp_path, pack):
    files = {f"real/{n % 100}/{n}.png": b"%d" % n for n in range(10_000)}
    archive = written(tmp_path, pack(files))
    begun = time.process_time()
    assert unpack(archive, tmp_path / "out", LIMITS).files == 10_000
    assert time.process_time() - begun < 10
    assert (tmp_path / "out" / "real" / "99" / "9999.png").read_bytes() == b"9999"
