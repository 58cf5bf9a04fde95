from __future__ import annotations

from pathlib import Path

import pytest

from unmask.data.addresses import (
    ArchiveAddress,
    BucketAddress,
    FaceForensicsAddress,
    FolderAddress,
    KaggleAddress,
    Part,
    parse_source,
)
from unmask.errors import InputError

HASHES = ["a" * 64, "b" * 64, "c" * 64]


def test_folders_are_taken_first_whatever_their_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("clips", "a=b"):
        Path(name).mkdir()
    assert parse_source("clips") == FolderAddress("clips", Path("clips"))
    assert parse_source("mine=clips") == FolderAddress("mine", Path("clips"))
    assert parse_source("a=b") == FolderAddress("a=b", Path("a=b"))
    with pytest.raises(InputError, match="there is no folder nowhere"):
        parse_source("mine=nowhere")


def test_buckets():
    assert parse_source("mine=s3://bucket/a/b/") == BucketAddress("mine", "s3://bucket/a/b")
    assert parse_source("s3://bucket/a/b") == BucketAddress("b", "s3://bucket/a/b")
    assert parse_source("s3://bucket") == BucketAddress("bucket", "s3://bucket")


def test_archives_in_one_and_several_parts():
    one = parse_source(f"mine=https://host/x/set.zip?token=1#sha256={HASHES[0].upper()}")
    assert one == ArchiveAddress("mine", (Part("https://host/x/set.zip?token=1", HASHES[0]),), False)
    assert one.parts[0].file_name == "set.zip"
    listed = parse_source(f"s=https://h/a.zip#sha256={HASHES[0]},https://h/b.tar.gz")
    assert [(p.url, p.sha256) for p in listed.parts] == [("https://h/a.zip", HASHES[0]), ("https://h/b.tar.gz", None)]
    ranged = parse_source(f"https://h/part{{08..10}}.zip#sha256={','.join(HASHES)}")
    assert ranged.name == "part08"
    assert [p.url[10:] for p in ranged.parts] == ["part08.zip", "part09.zip", "part10.zip"]
    assert [p.sha256 for p in ranged.parts] == HASHES
    assert not ranged.joined
    pieces = parse_source("s=https://h/set.tar.gz.{001..007}")
    assert pieces.joined
    assert len(pieces.parts) == 7


def test_kaggle():
    assert parse_source("k=kaggle:someone/set-1") == KaggleAddress("k", "dataset", "someone/set-1")
    assert parse_source("kaggle:someone/set@12") == KaggleAddress("set", "dataset", "someone/set", 12)
    assert parse_source("kaggle-competition:some-name") == KaggleAddress("some-name", "competition", "some-name")


def test_faceforensics():
    usual = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures")
    assert parse_source("faceforensics:c40") == FaceForensicsAddress("faceforensics", "c40", usual, None)
    found = parse_source("ff=faceforensics:raw?manipulations=FaceSwap+FaceShifter&videos=20")
    assert found == FaceForensicsAddress("ff", "raw", ("FaceSwap", "FaceShifter"), 20)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("x=ftp://host/set.zip", "ftp:// is not known"),
        ("x=s3://", "names no bucket"),
        ("x y=s3://bucket", "'x y' is not a name"),
        ("..=s3://bucket", "is not a name"),
        ("x=https:///set.zip", "names no host"),
        ("x=https://h/set.zip#sha256=12", "not a hash"),
        (f"x=https://h/set.zip#md5={HASHES[0]}", "not a hash"),
        (f"x=https://h/{{1..3}}.zip#sha256={HASHES[0]}", "1 hashes for 3 parts"),
        ("x=https://h/{7..1}.zip", "runs backwards"),
        ("x=https://h/{1..9999}.zip", "more than 1000 parts"),
        ("x=https://h/a.zip,https://h/a.zip", "a part twice"),
        ("x=https://h/a.zip,https://h/b.zip.001", "mixes whole archives and pieces"),
        ("x=https://h/a.z{01..07},https://h/a.zip", "spanned parts"),
        ("x=kaggle:nobody", "not an address on Kaggle"),
        ("x=kaggle:a/b/../c", "not an address on Kaggle"),
        ("x=kaggle:a/b@new", "'new' is no version"),
        ("x=kaggle-competition:a/b", "kaggle-competition:name"),
        ("x=faceforensics:c99", "not a part of FaceForensics"),
        ("x=faceforensics:c23?quality=1", "quality"),
        ("x=faceforensics:c23?manipulations=Swap", "no manipulation Swap"),
        ("x=faceforensics:c23?videos=many", "videos=many is not a number"),
    ],
)
def test_what_cannot_be_understood_is_said_with_the_right_form(text, match):
    with pytest.raises(InputError) as caught:
        parse_source(text)
    assert match in str(caught.value)
    assert caught.value.fix
