"""Native layouts of data sets of forged speech."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from unmask.data.layouts.contents import Contents, keys, label_of
from unmask.data.sources import SourceFile
from unmask.errors import InputError
from unmask.media.probe import expected_modality

ASVSPOOF_SPACE = "ASVspoof"
# Recordings of public corpora from which many sets are made: their names mean the same everywhere.
CORPORA = {"LJSpeech": r"LJ\d{3}-\d{4}", "JSUT": r"(?:BASIC5000|TRAVEL1000|VOICEACTRESS100|ONOMATOPEE300)_\d{3,4}"}


def corpus_keys(name: str) -> frozenset[str]:
    """Name the recordings of public corpora that a file name mentions."""
    return frozenset().union(*(keys(corpus, re.findall(pattern, name)) for corpus, pattern in CORPORA.items()))


class WaveFake:
    """WaveFake (Frank and Schönherr, NeurIPS 2021) beside the corpora that it was made from.

    ``generated_audio/ljspeech_melgan/LJ001-0001_gen.wav``; reals in ``LJSpeech-1.1/wavs/`` and ``jsut_ver1.1/``.
    """

    name = "wavefake"
    forged = re.compile(r"(ljspeech|jsut)_(?!ver)(\w+)|(common_voices_prompts\w*)", re.IGNORECASE)
    real = re.compile(r"ljspeech-\d.*|jsut_ver.*", re.IGNORECASE)

    def recognises(self, contents: Contents) -> bool:
        """There is a folder of a vocoder of WaveFake with audio below it."""
        sounds = any(expected_modality(stored.key) == "audio" for stored in contents.media[:1000])
        return sounds and any(self.forged.fullmatch(folder) for folder in contents.folders)

    def files(self, contents: Contents) -> Iterator[SourceFile]:
        """Describe the recordings below the folders of vocoders and corpora."""
        for stored in contents.media:
            *folders, name = stored.key.split("/")
            match = next((m for folder in folders if (m := self.forged.fullmatch(folder))), None)
            if match is None and not any(self.real.fullmatch(folder) for folder in folders):
                continue
            manipulation = (match.group(2) or match.group(3)) if match else None
            related = corpus_keys(name) or keys(contents.source.name, [stored.key])
            yield contents.file(stored, int(match is not None), keys=related, manipulation=manipulation)


class AsvSpoof:
    """ASVspoof 2019 (LA, PA) and 2021 (LA, DF), read by their protocol files.

    A line is ``speaker file … attack bonafide|spoof …``; splits follow from the name of the protocol (2019) or are
    all test (2021, ``trial_metadata.txt``).
    """

    name = "asvspoof"
    protocol = re.compile(r"ASVspoof2019\.(?:LA|PA)\.cm\.(train|dev|eval)\.\w+\.txt|(trial_metadata)\.txt")

    def recognises(self, contents: Contents) -> bool:
        """There is a protocol file."""
        return bool(contents.sides(self.protocol.fullmatch))

    def files(self, contents: Contents) -> Iterator[SourceFile]:
        """Describe the recordings that a protocol lists."""
        stored_of = {PurePosixPath(name).stem: found[0] for name, found in contents.by_name.items()}
        missing = 0
        for key in contents.sides(self.protocol.fullmatch):
            match = self.protocol.fullmatch(key.rpartition("/")[2])
            split = {"train": "train", "dev": "val"}.get(match.group(1) if match else "", "test")
            for number, line in enumerate(contents.text(key).splitlines(), 1):
                words = line.split()
                if not words:
                    continue
                place = next((i for i, word in enumerate(words) if word in ("bonafide", "spoof")), None)
                if place is None or place < 3:
                    raise InputError(
                        f"{contents.place(key)}: line {number} is no line of an ASVspoof protocol: {line[:80]!r}.",
                        "Take the protocol of the data set.",
                    )
                stored = stored_of.get(words[1])
                if stored is None:
                    missing += 1
                    continue
                attack = words[place - 1]
                codec = words[2] if place >= 5 else ""
                yield contents.file(
                    stored,
                    label_of(words[place], key),
                    keys=keys(ASVSPOOF_SPACE, words[:1]),
                    manipulation=attack if attack != "-" and words[place] == "spoof" else None,
                    compression=codec if codec not in ("", "-", "none", "nocodec") else None,
                    official_split=split,
                )
        if missing:
            contents.remarks.append(
                f"{missing} recordings of the protocols of {contents.source.name} are not there, as when only one part "
                f"of the set was fetched."
            )
