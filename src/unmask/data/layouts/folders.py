"""``real/`` and ``fake/``, possibly below ``train/``, ``val/`` and ``test/``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from unmask.data.layouts.contents import Contents
from unmask.data.sources import SPLIT_OF_NAME, SourceFile, is_storage
from unmask.objects import StoredObject

LABELS = {"real": 0, "fake": 1}


class Folders:
    """A folder with ``real/`` and ``fake/`` somewhere below it; the names are understood in any case.

    The first folder below ``fake/`` names the manipulation, unless it is a mere layer of storage (``c23``, ``videos``)
    or also occurs below ``real/`` (then it names a person, a speaker or a channel).
    """

    name = "folders"

    def recognises(self, contents: Contents) -> bool:
        """There is a folder ``real`` or ``fake``."""
        return bool({folder.lower() for folder in contents.folders} & set(LABELS))

    def files(self, contents: Contents) -> Iterable[SourceFile]:
        """Describe what lies below ``real/`` and ``fake/``."""
        return named_manipulations([file for stored in contents.media if (file := in_folder(contents, stored))])


def in_folder(contents: Contents, stored: StoredObject) -> SourceFile | None:
    """Describe a file by its folders; None if none of them is ``real`` or ``fake``."""
    folders = stored.key.split("/")[:-1]
    place = next((i for i, part in enumerate(folders) if part.lower() in LABELS), None)
    if place is None:
        return None
    split = next((SPLIT_OF_NAME[part.lower()] for part in folders if part.lower() in SPLIT_OF_NAME), None)
    below = tuple(folders[place + 1 :])
    return contents.file(stored, LABELS[folders[place].lower()], folders=below, official_split=split)


def named_manipulations(files: Sequence[SourceFile]) -> list[SourceFile]:
    """Name the manipulation of fakes by the first folder that means one."""
    of_reals = {part for file in files if file.label == 0 for part in file.folders}
    named = []
    for file in files:
        meant = [part for part in file.folders if not is_storage(part) and part not in of_reals]
        known = file.label == 0 or file.manipulation is not None or not meant
        named.append(file if known else replace(file, manipulation=meant[0]))
    return named
