"""What file names say about who must share a split.

A convention looks at all files of one source and gives each file it understands the keys of the videos, people or
recordings that the file was made from. Files with a common key belong to one group. Naming too many files related
costs a little balance; naming too few leaks, so in doubt a convention relates.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

from unmask.data.layouts.faces import CELEB_SPACE, DEEPER_SPACE, DFD_SPACE, FACEFORENSICS_SPACE
from unmask.data.layouts.speech import corpus_keys
from unmask.data.sources import SPLIT_OF_NAME, SourceFile, is_storage
from unmask.media.probe import expected_modality

Keys = dict[str, frozenset[str]]
Tokens = tuple[str, ...]
Relate = Literal["all", "target"]

FACEFORENSICS_MANIPULATIONS = frozenset({"deepfakes", "face2face", "faceswap", "neuraltextures", "faceshifter"})
MIN_REALS_OF_TAG = 2
MAX_TAG_WORDS = 4


class Related(NamedTuple):
    """What a file was made from.

    Attributes:
        everything: All videos, recordings and people.
        target: Those that it shows apart from the face or voice that was put in.
    """

    everything: frozenset[str]
    target: frozenset[str]


Relations = dict[str, Related]


def identity_keys(files: Iterable[SourceFile], relate: Relate = "all") -> Keys:
    """Say what every file was made from: as its layout says, else by the first convention that understands its name.

    Args:
        files: Media files of any number of sources.
        relate: ``all``; or ``target``, which leaves out whose face was put in, for sets in which the swaps join
            everybody to one group. Such a division leaks identities, and `unmask audit` says so.

    Returns:
        Sample id to keys, at least one for each file.
    """
    by_source: dict[str, list[SourceFile]] = defaultdict(list)
    found: Relations = {}
    for file in files:
        if file.keys:
            found[file.sample_id] = Related(file.keys, file.target_keys or file.keys)
        else:
            by_source[file.source].append(file)
    for source_files in by_source.values():
        for convention in CONVENTIONS:
            for sample_id, related in convention(source_files).items():
                found.setdefault(sample_id, related)
    return {
        sample_id: related.target if relate == "target" else related.everything for sample_id, related in found.items()
    }


def target_source_pairs(files: Sequence[SourceFile]) -> Relations:
    """Understand FaceForensics++ names (Rössler et al., ICCV 2019): real ``A``, fake ``A_B``, in any manipulation.

    ``A_B`` shows target A with the face or the expression of source B, so A, B, A_B and B_A are one group, whatever
    the manipulation and the compression. Frames kept as pictures in a folder ``A_B`` count as that video.

    The names are believed only where they fit together: at least one fake names a real of the source, or a folder is
    named like a manipulation of FaceForensics++. In the latter case the numbers mean the same videos in every source,
    so that c23 and c40 of one video meet in one group.

    Args:
        files: Of one source.

    Returns:
        Sample id to what it was made from, for the files that fit.
    """
    numbers = {file.sample_id: found for file in files if (found := _pair_numbers(file))}
    reals = {n for file in files if file.label == 0 for n in numbers.get(file.sample_id, ())}
    fakes = {n for file in files if file.label == 1 for n in numbers.get(file.sample_id, ())}
    official = any((file.manipulation or "").lower() in FACEFORENSICS_MANIPULATIONS for file in files)
    if not fakes or not (official or reals & fakes):
        return {}
    space = FACEFORENSICS_SPACE if official else files[0].source
    return {sample_id: _related(space, found) for sample_id, found in numbers.items()}


def _related(space: str, names: Sequence[str]) -> Related:
    """Relate a file to people or videos of a data set, of which it shows the first."""
    everything = [f"{space}:{name}" for name in names]
    return Related(frozenset(everything), frozenset(everything[:1]))


def people_in_names(files: Sequence[SourceFile]) -> Relations:
    """Understand names that name people, as in Celeb-DF, DeepFakeDetection and DeeperForensics.

    ``id0_id1_0000`` and ``id0_0000``, ``01_02__scene__ABCDEFGH`` and ``01__scene``, ``000_M101``. They are believed
    only where fakes and reals share a person, or, for the last, everywhere, because nothing else is named so.

    Args:
        files: Of one source.

    Returns:
        Sample id to what it was made from, for the files that fit.
    """
    found: Relations = {}
    for space, fake, real in (
        (CELEB_SPACE, r"(id\d+)_(id\d+)_\d{4}", r"(id\d+)_\d{4}"),
        (DFD_SPACE, r"(\d{2})_(\d{2})__.+__[A-Z0-9]{8}", r"(\d{2})__.+"),
    ):
        matches = {f.sample_id: m.groups() for f in files if (m := re.fullmatch(fake if f.label else real, f.stem))}
        labels = {f.label for f in files if f.sample_id in matches}
        if labels == {0, 1}:
            found |= {sample_id: _related(space, people) for sample_id, people in matches.items()}
    for file in files:
        match = re.fullmatch(r"(\d{3})_([MW]\d{3})", file.stem) if file.label else None
        if match:
            target = frozenset({f"{FACEFORENSICS_SPACE}:{match.group(1)}"})
            found[file.sample_id] = Related(target | {f"{DEEPER_SPACE}:{match.group(2)}"}, target)
    return found


def recordings_of_corpora(files: Sequence[SourceFile]) -> Relations:
    """Understand names of recordings of LJ Speech and JSUT, which mean the same in every set made from these.

    Args:
        files: Of one source.

    Returns:
        Sample id to the recordings, for the files that name one.
    """
    found = {file.sample_id: corpus_keys(file.stem) for file in files}
    return {sample_id: Related(named, named) for sample_id, named in found.items() if named}


def _pair_numbers(file: SourceFile) -> Tokens:
    pattern = r"(\d{3,})_(\d{3,})" if file.label else r"(\d{3,})"
    frame_of_video = expected_modality(file.relative) == "image"
    for name in (*(reversed(file.folders) if frame_of_video else ()), file.stem):
        match = re.fullmatch(pattern, name)
        if match:
            return match.groups()
    return ()


def shared_names(files: Sequence[SourceFile]) -> Relations:
    """Relate a fake to the real whose name it carries: ``LJ040-0073_gen.wav`` to ``LJ040-0073.wav``.

    Names are compared as words, folders included, without the folders of storage and manipulation. A fake is related
    to a real if leaving out one run of its words gives the name of the real. That run must be a tag: it holds a
    letter, and it is found with at least two reals (``hgan v1`` in ``ms_hgan_v1_1``). The real may do without one of
    its words too, if other reals share that word and no two reals are left with one name (``gt`` in ``ms_gt_1``). The
    same tags are left out where the real itself is missing. Files of one name in several folders, real or fake, are
    related too.

    Folders train, val and test are kept apart: numbering mostly begins anew in each.

    Args:
        files: Of one source.

    Returns:
        Sample id to one key, for every file.
    """
    by_folder: dict[str, list[SourceFile]] = defaultdict(list)
    for file in files:
        folders = (part.lower() for part in file.relative.split("/")[:-1])
        by_folder[next((part for part in folders if part in SPLIT_OF_NAME), "")].append(file)
    found: Relations = {}
    for folder, some in by_folder.items():
        found |= _shared_names(some, f"{files[0].source}/{folder}" if folder else files[0].source)
    return found


def _shared_names(files: Sequence[SourceFile], space: str) -> Relations:
    names = {file.sample_id: _words(file) for file in files}
    reals = _names_of_reals({names[file.sample_id] for file in files if file.label == 0})
    fakes = [file.sample_id for file in files if file.label != 0]
    tags = _tags(reals, {names[sample_id] for sample_id in fakes})
    for sample_id in fakes:
        names[sample_id] = _without_tag(names[sample_id], tags, reals)
    return {sample_id: _related(space, [" ".join(words)]) for sample_id, words in names.items()}


def _words(file: SourceFile) -> Tokens:
    folders = [part for part in file.folders if not is_storage(part) and part != file.manipulation]
    words = re.split(r"[\W_]+", " ".join([*folders, file.stem]).lower())
    return tuple(word for word in words if word) or (file.relative,)


def _holds_letter(words: Iterable[str]) -> bool:
    return any(character.isalpha() for word in words for character in word)


def _names_of_reals(reals: set[Tokens]) -> dict[Tokens, Tokens]:
    """Give every name under which a real may be found in the name of a fake, with the real."""
    shared = Counter(word for words in reals for word in set(words))
    found: dict[Tokens, set[Tokens]] = defaultdict(set)
    for words in reals:
        for place, word in enumerate(words):
            if shared[word] > 1 and len(words) > 1 and _holds_letter([word]):
                found[words[:place] + words[place + 1 :]].add(words)
    unique = {short: next(iter(owners)) for short, owners in found.items() if len(owners) == 1}
    return unique | {words: words for words in reals}


def _cuts(words: Tokens) -> Iterable[tuple[Tokens, Tokens]]:
    """Give every way to cut one run out of the words: the run and what is left, the shortest runs first."""
    for length in range(1, min(len(words), MAX_TAG_WORDS + 1)):
        for start in range(len(words) - length + 1):
            yield words[start : start + length], words[:start] + words[start + length :]


def _tags(reals: dict[Tokens, Tokens], fakes: Iterable[Tokens]) -> set[Tokens]:
    with_reals: dict[Tokens, set[Tokens]] = defaultdict(set)
    for words in fakes:
        for run, rest in _cuts(words):
            if rest in reals and _holds_letter(run):
                with_reals[run].add(reals[rest])
    return {run for run, found in with_reals.items() if len(found) >= MIN_REALS_OF_TAG}


def _without_tag(words: Tokens, tags: set[Tokens], reals: dict[Tokens, Tokens]) -> Tokens:
    """Name the real that a fake was made from, or what the name of the fake would be without its tag."""
    if words in reals:
        return reals[words]
    rests = [rest for run, rest in _cuts(words) if run in tags]
    related = [reals[rest] for rest in rests if rest in reals]
    return (related or rests or [words])[0]


Convention = Callable[[Sequence[SourceFile]], Relations]
CONVENTIONS: tuple[Convention, ...] = (target_source_pairs, people_in_names, recordings_of_corpora, shared_names)
