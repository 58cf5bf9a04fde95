"""What a user must know about a data set before trusting a figure on it, in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from unmask.data.conventions import identity_keys
from unmask.data.groups import largest_group
from unmask.data.likeness import Likeness
from unmask.data.listing import OUTSIDE
from unmask.data.sources import Listing
from unmask.data.splits import SplitResult

DOMINANT_GROUP_SHARE = 0.5
SHOWN = 3  # examples in a sentence


def in_words(counts: Mapping[str, int]) -> str:
    """Write counts as ``name count, name count``, the largest first."""
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def warnings_about(
    usable: pd.DataFrame, listing: Listing, result: SplitResult, official: str, likeness: Likeness
) -> list[str]:
    """Look for what spoils or narrows later figures.

    Args:
        usable: Usable rows of the samples table.
        listing: What lay in the sources.
        result: Of splitting.
        official: What to do with divisions that sources came with: ignore or honour.
        likeness: Files that are alike.

    Returns:
        Sentences; empty when there is nothing to say.
    """
    return [
        *listing.remarks,
        *_duplicates(usable),
        *_near_duplicates(likeness, listing),
        *_dominant_group(usable),
        *_one_sided(usable),
        *_several_modalities(usable),
        *_left_out(listing),
        *_official(listing, result, official),
        *_moved(result.moved),
    ]


def _duplicates(usable: pd.DataFrame) -> list[str]:
    copies = usable[usable.duplicated("sha256", keep=False)]
    if copies.empty:
        return []
    by_content = copies.groupby("sha256", sort=True)
    across = by_content.filter(lambda same: same["label"].nunique() > 1)
    found = [f"{len(copies)} files are only {by_content.ngroups} different ones; copies share a group, and so a split."]
    if len(across):
        examples = "; ".join(
            " = ".join(Path(uri).name for uri in same["uri"])
            for _, same in list(across.groupby("sha256", sort=True))[:SHOWN]
        )
        found.append(
            f"{len(across)} files are byte for byte the same and yet labelled both real and fake ({examples}): "
            f"one label of each is wrong; remove it."
        )
    return found


def _dominant_group(usable: pd.DataFrame) -> list[str]:
    name, count, share = largest_group(usable["group_id"])
    if share <= DOMINANT_GROUP_SHARE:
        return []
    return [f"One group ({name}) holds {count} of {len(usable)} files, so the splits cannot have the sizes asked for."]


def _one_sided(usable: pd.DataFrame) -> list[str]:
    """Warn where the name of the source tells the class; only if there are several sources."""
    classes = usable.groupby("source", sort=True)["label"].nunique()
    if len(classes) < 2 or not (classes == 1).any():
        return []
    alone = ", ".join(classes.index[classes == 1])
    return [
        f"Of these sources only one class is there: {alone}. A detector may learn to tell the sources apart; add the "
        f"other class from the same source."
    ]


def _several_modalities(usable: pd.DataFrame) -> list[str]:
    counts = Counter(usable["modality"])
    if len(counts) < 2:
        return []
    return [f"Several kinds of media are mixed ({in_words(counts)}); detectors of faces leave audio files unscored."]


def _left_out(listing: Listing) -> list[str]:
    found = []
    outside = listing.ignored.get(OUTSIDE, 0)
    if outside:
        found.append(f"{outside} media files have no label and were left out.")
    return found


def _official(listing: Listing, result: SplitResult, official: str) -> list[str]:
    if not listing.official_splits:
        return []
    names = ", ".join(sorted(listing.official_splits))
    if official == "ignore":
        return [
            f"{names} comes divided into train, val or test; that division is not used, all files are split anew by "
            f"group. Set ingest.official_splits to honour to keep it."
        ]
    if result.against_official:
        return [
            f"{result.against_official} files are not where the division of {names} puts them, because it divides what "
            f"shares a person, a source video or its content: such groups went to the first of train, val, calib, test "
            f"that held a part of them. Figures are not comparable with published ones on that division."
        ]
    return []


def _near_duplicates(likeness: Likeness, listing: Listing) -> list[str]:
    """Report pairs with two labels that the names do not relate; forgeries of a named video are no news."""
    files = listing.files
    across = [pair for pair in likeness.pairs if files[pair.first].label != files[pair.second].label]
    if across:
        keys = identity_keys(files)
        across = [p for p in across if not keys[files[p.first].sample_id] & keys[files[p.second].sample_id]]
    found = []
    if across:
        examples = "; ".join(
            f"{files[pair.first].relative} ~ {files[pair.second].relative}"
            for pair in sorted(across, key=lambda pair: -pair.likeness)[:SHOWN]
        )
        found.append(
            f"{len(across)} pairs of a real and a fake file show or say nearly the same although their names do not "
            f"relate them ({examples}); each pair shares a group, and so a split."
        )
    chained = len(likeness.pairs) - len(likeness.joined)
    if chained:
        found.append(
            f"{chained} of {len(likeness.pairs)} near-duplicate pairs were not joined, because they would have chained "
            f"files together that are not alike; they may lie in different splits."
        )
    return found


def _moved(count: int) -> list[str]:
    if not count:
        return []
    return [
        f"{count} files left their earlier split, because new files show that they share a source with files of an "
        f"earlier split in the order train, val, calib, test. Figures on the old test split are not comparable."
    ]
