"""Native layouts of data sets of forged faces."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath

from unmask.data.layouts.contents import Contents, keys
from unmask.data.sources import SPLIT_OF_NAME, SourceFile
from unmask.errors import InputError
from unmask.objects import StoredObject

FACEFORENSICS_SPACE = "FaceForensics++"
DFD_SPACE = "DeepFakeDetection"
CELEB_SPACE = "Celeb-DF"
DEEPER_SPACE = "DeeperForensics"


def below(stored: StoredObject, anchors: Iterable[str]) -> tuple[str, list[str]] | None:
    """Find one of some folders above a file: its name, and the parts of the path below it."""
    parts = stored.key.split("/")
    for place, part in enumerate(parts[:-1]):
        if part in anchors:
            return part, parts[place + 1 :]
    return None


class FaceForensics:
    """FaceForensics++ (Rössler et al., ICCV 2019), as its download script arranges it.

    ``original_sequences/<youtube|actors>/<compression>/videos/000.mp4`` and
    ``manipulated_sequences/<method>/<compression>/videos/000_003.mp4``; with ``images`` in place of ``videos``, frames
    in a folder a video. Pair lists lie in ``splits/train.json`` and so on.
    """

    name = "faceforensics"
    anchors = ("original_sequences", "manipulated_sequences")

    def recognises(self, contents: Contents) -> bool:
        """There is one of the two folders."""
        return bool(contents.folders & set(self.anchors))

    def files(self, contents: Contents) -> Iterator[SourceFile]:
        """Describe videos and frames; masks are passed over."""
        splits, partner = self._pairs(contents)
        for stored in contents.media:
            found = below(stored, self.anchors)
            if found is None or "masks" in found[1]:
                continue
            anchor, rest = found
            kind = rest[0] if len(rest) > 1 else ""
            video = rest[-2] if "images" in rest[:-2] else PurePosixPath(rest[-1]).stem
            label = self.anchors.index(anchor)
            if kind in ("actors", DFD_SPACE):
                file = dfd_file(contents, stored, label, video)
            else:
                numbers = re.findall(r"\d{3,}", video)
                related = [*numbers, *(partner[n] for n in numbers if n in partner)]
                target = [*numbers[:1], *(partner[n] for n in numbers[:1] if n in partner)]
                file = contents.file(
                    stored,
                    label,
                    keys=keys(FACEFORENSICS_SPACE, related),
                    target_keys=keys(FACEFORENSICS_SPACE, target),
                    manipulation=kind if label else None,
                    official_split=splits.get(numbers[0]) if numbers else None,
                )
            yield file

    @staticmethod
    def _pairs(contents: Contents) -> tuple[dict[str, str], dict[str, str]]:
        """Read the official pair lists: video to split, and video to partner."""
        splits: dict[str, str] = {}
        partner: dict[str, str] = {}
        for key in contents.sides(re.compile(r"(train|val|test)\.json").fullmatch):
            pairs = contents.json(key)
            if not isinstance(pairs, list) or not all(isinstance(p, list) and len(p) == 2 for p in pairs):
                raise InputError(
                    f"{contents.place(key)} is not a list of pairs of videos.", "Take the file of FaceForensics++."
                )
            for a, b in ((str(a), str(b)) for a, b in pairs):
                splits[a] = splits[b] = PurePosixPath(key).stem
                partner[a], partner[b] = b, a
        return splits, partner


def dfd_file(contents: Contents, stored: StoredObject, label: int, video: str) -> SourceFile:
    """Describe a video of the DeepFakeDetection set by its name: ``01__scene``, ``01_02__scene__ABCDEFGH``."""
    match = re.match(r"(\d{2})(?:_(\d{2}))?__", video)
    people = [person for person in match.groups() if person] if match else [video]
    return contents.file(
        stored,
        label,
        keys=keys(DFD_SPACE, people),
        target_keys=keys(DFD_SPACE, people[:1]),
        manipulation=DFD_SPACE if label else None,
    )


class DeepFakeDetection:
    """DeepFakeDetection (Google and Jigsaw, 2019) as a set of its own.

    ``DFD_original sequences/01__scene.mp4`` and ``DFD_manipulated_sequences/01_02__scene__ABCDEFGH.mp4``: actor 01
    with the face of actor 02.
    """

    name = "dfd"

    def recognises(self, contents: Contents) -> bool:
        """There is a folder whose name begins with DFD."""
        return any(self._label(folder) is not None for folder in contents.folders)

    @staticmethod
    def _label(folder: str) -> int | None:
        match = re.fullmatch(r"dfd[ _-](original|manipulated)[ _-]sequences", folder.lower())
        return None if match is None else int(match.group(1) == "manipulated")

    def files(self, contents: Contents) -> Iterator[SourceFile]:
        """Describe the videos below the two folders."""
        for stored in contents.media:
            *folders, name = stored.key.split("/")
            label = next((label for folder in folders if (label := self._label(folder)) is not None), None)
            if label is not None:
                yield dfd_file(contents, stored, label, PurePosixPath(name).stem)


class CelebDF:
    """Celeb-DF, versions 1 and 2 (Li et al., CVPR 2020).

    ``Celeb-real/id0_0000.mp4``, ``YouTube-real/00000.mp4``, ``Celeb-synthesis/id0_id1_0000.mp4``: celebrity id0 with
    the face of id1. ``List_of_testing_videos.txt`` names the test videos, with 1 for real.
    """

    name = "celeb_df"
    labels: Mapping[str, int] = {"Celeb-real": 0, "YouTube-real": 0, "Celeb-synthesis": 1}

    def recognises(self, contents: Contents) -> bool:
        """There is one of the three folders."""
        return bool(contents.folders & set(self.labels))

    def files(self, contents: Contents) -> Iterator[SourceFile]:
        """Describe the videos below the three folders."""
        lists = contents.sides("List_of_testing_videos.txt".__eq__)
        testing = {line.split()[-1] for key in lists for line in contents.text(key).splitlines() if line.split()}
        for stored in contents.media:
            found = below(stored, self.labels)
            if found is None:
                continue
            folder, rest = found
            stem = PurePosixPath(rest[-1]).stem
            people = re.findall(r"id\d+", stem)
            names = people or [f"{folder}/{stem}"]
            split = ("test" if f"{folder}/{rest[-1]}" in testing else "train") if testing else None
            yield contents.file(
                stored,
                self.labels[folder],
                keys=keys(CELEB_SPACE, names),
                target_keys=keys(CELEB_SPACE, names[:1]),
                manipulation="Celeb-synthesis" if self.labels[folder] else None,
                official_split=split,
            )


class DeeperForensics:
    """DeeperForensics-1.0 (Jiang et al., CVPR 2020).

    ``source_videos/M101/…`` are recordings of actors; ``manipulated_videos/end_to_end/000_M101.mp4`` shows video 000
    of FaceForensics++ with the face of actor M101. ``lists/splits/train.txt`` and so on divide the fakes.
    """

    name = "deeperforensics"
    anchors = ("source_videos", "manipulated_videos")

    def recognises(self, contents: Contents) -> bool:
        """There is one of the two folders, and an actor in a name."""
        below_anchors = (found for stored in contents.media if (found := below(stored, self.anchors)))
        return any(re.search(r"(^|_|/)[MW]\d{3}([._/]|$)", "/".join(rest)) for _, rest in below_anchors)

    def files(self, contents: Contents) -> Iterator[SourceFile]:
        """Describe recordings of actors and forged videos."""
        splits = {
            PurePosixPath(line.split()[0]).stem: SPLIT_OF_NAME[PurePosixPath(key).stem]
            for key in contents.sides(re.compile(r"(train|val|test)\.txt").fullmatch)
            for line in contents.text(key).splitlines()
            if line.split()
        }
        for stored in contents.media:
            found = below(stored, self.anchors)
            if found is None:
                continue
            anchor, rest = found
            stem = PurePosixPath(rest[-1]).stem
            label = self.anchors.index(anchor)
            actors = re.findall(r"[MW]\d{3}", "/".join(rest))[:1]
            shown = re.findall(r"^\d{3}", stem) if label else []
            related = keys(DEEPER_SPACE, actors or [stored.key]) | keys(FACEFORENSICS_SPACE, shown)
            yield contents.file(
                stored,
                label,
                keys=related,
                target_keys=keys(FACEFORENSICS_SPACE, shown) or related,
                manipulation=rest[0] if label else None,
                official_split=splits.get(stem) if label else None,
            )
