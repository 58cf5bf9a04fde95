"""Atomic writing and JSON documents."""

import json
from pathlib import Path

import pytest

from unmask.errors import ContractError, InputError
from unmask.schemas import Estimate, Preprocessing, new_directory, sha256_file, sha256_json, write_atomically


def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    with write_atomically(path) as temporary:
        temporary.write_text("old")

    def fail() -> None:
        with write_atomically(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def fill(text: str, *, fail: bool) -> None:
        with new_directory(out) as temporary:
            (temporary / "a.txt").write_text(text)
            if fail:
                raise RuntimeError

    with pytest.raises(RuntimeError):
        fill("half", fail=True)
    assert list(tmp_path.iterdir()) == []
    fill("one", fail=False)
    fill("two", fail=False)
    assert (out / "a.txt").read_text() == "two"
    with pytest.raises(RuntimeError):
        fill("three", fail=True)
    assert (out / "a.txt").read_text() == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_folder_of_the_user_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="was not written by unmask"), new_directory(tmp_path / "mine"):
        pass
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"), new_directory(tmp_path / "file"):
        pass
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_documents_name_file_and_field(tmp_path: Path) -> None:
    path = tmp_path / "doc.json"
    good = Preprocessing(size_px=256, mean=(0, 0, 0), std=(1, 1, 1))
    good.save(path)
    assert Preprocessing.load(path) == good
    path.write_text(json.dumps({"size_px": 4, "mean": [0, 0, 0], "std": [1, 1, 1]}))
    with pytest.raises(ContractError, match=r"doc\.json: size_px: .*greater than or equal to 16"):
        Preprocessing.load(path)
    path.write_text(json.dumps({"size_px": 64, "mean": [0, 0, 0], "std": [1, 1, 1], "zoom": 3}))
    with pytest.raises(ContractError, match="zoom: Extra inputs are not permitted"):
        Preprocessing.load(path)
    path.write_text("{")
    with pytest.raises(ContractError, match="line 1: is not JSON"):
        Preprocessing.load(path)
    with pytest.raises(ContractError, match="does not exist"):
        Preprocessing.load(tmp_path / "absent.json")


def test_an_estimate_reads_like_a_sentence() -> None:
    assert str(Estimate(value=0.91234, low=0.8, high=1, n=40)) == "0.912 [0.800, 1.000] (n = 40)"
    assert str(Estimate(value=None, n=3)) == "undefined (n = 3)"


def test_hashes(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    # The digest of "abc" is the first example of FIPS 180-2.
    assert sha256_file(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_json({"a": 1, "b": [2]}) == sha256_json({"b": [2], "a": 1})
    assert sha256_json({"a": 1}) != sha256_json({"a": 2})
