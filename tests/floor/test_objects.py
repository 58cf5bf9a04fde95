from __future__ import annotations

import pytest

from unmask.errors import InputError, StorageError
from unmask.objects import FolderStore, LocalMedia


def test_what_was_written_is_read_listed_copied_and_removed(tmp_path):
    store = FolderStore(tmp_path / "store")
    assert list(store.objects()) == []
    assert store.stat("a/b.bin") is None
    store.write("a/b.bin", b"one")
    store.write("a/c.bin", b"three")
    (tmp_path / "file").write_bytes(b"four!")
    store.upload(tmp_path / "file", "d")
    assert store.read("a/b.bin") == b"one"
    assert [(o.key, o.size_bytes) for o in store.objects()] == [("a/b.bin", 3), ("a/c.bin", 5), ("d", 5)]
    assert [o.key for o in store.objects("a/c")] == ["a/c.bin"]
    store.download("d", tmp_path / "copy" / "d")
    assert (tmp_path / "copy" / "d").read_bytes() == b"four!"
    before = store.stat("a/b.bin")
    store.write("a/b.bin", b"other")
    assert store.stat("a/b.bin") != before
    store.delete("a/b.bin")
    store.delete("a/b.bin")
    assert store.stat("a/b.bin") is None


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../out", "a/../../out"])
def test_keys_cannot_leave_the_store(tmp_path, key):
    with pytest.raises(InputError, match="not a key"):
        FolderStore(tmp_path).write(key, b"")


def test_a_missing_object_is_an_error_with_its_address(tmp_path):
    store = FolderStore(tmp_path)
    with pytest.raises(StorageError, match="nothing-here"):
        store.read("nothing-here")
    with pytest.raises(StorageError, match="nothing-here"):
        store.download("nothing-here", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_local_media_are_given_as_they_are(tmp_path):
    with LocalMedia().local(str(tmp_path / "clip.mp4")) as path:
        assert path == tmp_path / "clip.mp4"
    with pytest.raises(InputError, match="s3://"):
        LocalMedia().local("s3://bucket/clip.mp4")


def test_listing_follows_links_ends_circles_and_names_links_to_nowhere(tmp_path):
    (tmp_path / "s/sub").mkdir(parents=True)
    (tmp_path / "s/sub/a.bin").write_bytes(b"one")
    (tmp_path / "s/sub/.half.tmp").write_bytes(b"unfinished")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/b.bin").write_bytes(b"four")
    (tmp_path / "s/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/round").symlink_to(tmp_path / "s")
    (tmp_path / "s/gone.bin").symlink_to(tmp_path / "nowhere")
    found = {stored.key: stored.size_bytes for stored in FolderStore(tmp_path / "s").objects()}
    assert found == {"gone.bin": 0, "link/b.bin": 4, "sub/a.bin": 3}
