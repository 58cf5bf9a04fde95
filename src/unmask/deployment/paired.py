"""What a decision about two versions rests on: the test samples that both scored, told by their bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from unmask.errors import ContractError
from unmask.schemas import SAMPLES, VIDEO_SCORES, read_table

ABOUT = ["sample_id", "sha256", "source", "manipulation", "compression"]


def read_samples(dataset: Path) -> pd.DataFrame:
    """Read the usable samples of a data set.

    Args:
        dataset: Folder of `unmask ingest`.

    Returns:
        Rows of SAMPLES that have a split and a hash.

    Raises:
        ContractError: The table is missing or broken.
    """
    frame: pd.DataFrame = read_table(dataset / "samples.parquet", SAMPLES).to_pandas()
    return frame.loc[(frame["status"] == "ok") & frame["split"].notna() & frame["sha256"].notna()]


def own_scores(samples: pd.DataFrame, fusion: Path) -> pd.DataFrame:
    """Put the test scores of a run together with what the samples are.

    Args:
        samples: From `read_samples`.
        fusion: Folder of `unmask fuse`.

    Returns:
        Rows of TEST_SCORES: labelled test samples with a score.

    Raises:
        ContractError: A table is missing or broken, or the scores are of another data set.
    """
    rows: pd.DataFrame = read_table(fusion / "scores.parquet", VIDEO_SCORES).to_pandas()
    rows = rows.loc[rows["split"] == "test"].dropna(subset=["label", "probability"])
    test = samples.loc[samples["split"] == "test", ABOUT]
    joined = rows[["sample_id", "label", "group_id", "probability"]].merge(test, on="sample_id", how="inner")
    if len(joined) != len(rows):
        raise ContractError(
            fusion / "scores.parquet",
            "sample_id",
            f"{len(rows) - len(joined)} test samples are not in the data set",
            "Give the folders of one run.",
        )
    return joined.sort_values("sample_id", ignore_index=True).astype({"label": "int8"})


def seen_samples(samples: pd.DataFrame) -> pd.DataFrame:
    """List what a bundle has seen, so that a later version is never compared on its training samples.

    Args:
        samples: From `read_samples`.

    Returns:
        Rows of SEEN_SAMPLES.
    """
    return samples[["sha256", "split"]].drop_duplicates().sort_values(["sha256", "split"], ignore_index=True)


def leaks(samples: pd.DataFrame) -> list[str]:
    """Look for the same bytes, or members of one group, in two splits.

    Args:
        samples: From `read_samples`.

    Returns:
        A sentence for each kind of leak; empty when there is none.
    """
    found = []
    for column, what in (("sha256", "files with the same bytes"), ("group_id", "groups")):
        splits = samples.dropna(subset=[column]).groupby(column)["split"].nunique()
        if n := int((splits > 1).sum()):
            found.append(f"{n} {what} lie in more than one split")
    return found


def pair(
    challenger: pd.DataFrame, champion: Mapping[str, float], labels: Mapping[str, int] | None = None
) -> pd.DataFrame:
    """Match the scores of two versions by the bytes of the samples.

    Args:
        challenger: Rows of TEST_SCORES.
        champion: SHA-256 to the probability that the champion gives.
        labels: SHA-256 to the label that the champion's data set gave; samples with another label are left out.

    Returns:
        Rows of TEST_SCORES with a further column ``champion``; every file once.
    """
    rows = challenger.drop_duplicates("sha256")
    rows = rows.assign(champion=rows["sha256"].map(champion)).dropna(subset=["champion"])
    if labels is not None:
        stated = rows["sha256"].map(labels)
        rows = rows.loc[stated.isna() | (rows["label"] == stated)]
    return rows.sort_values("sample_id", ignore_index=True)


def unseen(challenger: pd.DataFrame, seen: pd.DataFrame) -> pd.DataFrame:
    """Keep the samples that a champion was not fitted on.

    Args:
        challenger: Rows of TEST_SCORES.
        seen: Rows of SEEN_SAMPLES of the champion.

    Returns:
        Rows whose bytes the champion saw in test only, or not at all.
    """
    fitted_on = seen.loc[seen["split"] != "test", "sha256"]
    return challenger.loc[~challenger["sha256"].isin(set(fitted_on))]


def parts(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Cut test rows into the slices that must not collapse.

    Args:
        rows: Rows of TEST_SCORES, with further columns.

    Returns:
        ``source=…`` to its rows, ``manipulation=…`` to its fakes with all reals, ``compression=…`` to its rows.
        With one value only, a source or compression is everything and is left out.
    """
    found: dict[str, pd.DataFrame] = {}
    reals = rows["label"] == 0
    for column in ("source", "compression"):
        values: Sequence[str] = sorted(rows[column].dropna().unique())
        if len(values) > 1:
            found |= {f"{column}={value}": rows.loc[rows[column] == value] for value in values}
    for value in sorted(rows.loc[~reals, "manipulation"].dropna().unique()):
        found[f"manipulation={value}"] = rows.loc[reals | (rows["manipulation"] == value)]
    return found
