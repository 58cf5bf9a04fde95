"""Leak detector: what do the splits of a table share that they must not?

It takes any table of samples, ours or foreign, and any folder that comes divided. What it looks at: groups that the
table names, people and source videos that file names tell of (FaceForensics++, Celeb-DF, …), identical files, and files
that show or say the same.
"""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from unmask.config import IngestConfig
from unmask.data.conventions import identity_keys
from unmask.data.inspection import FILES, FILES_FILE, NOTHING, SAMPLES_FILE, inspect_files, marks_of
from unmask.data.layouts import LAYOUTS, Contents
from unmask.data.layouts.contents import label_of
from unmask.data.layouts.folders import in_folder, named_manipulations
from unmask.data.layouts.tables import columns_of, read_rows
from unmask.data.listing import list_sources
from unmask.data.near_duplicates import Marks, near_duplicates
from unmask.data.sources import SPLIT_OF_NAME, Source, SourceFile
from unmask.errors import InputError
from unmask.objects import FolderStore, LocalMedia, StoredObject
from unmask.schemas import SAMPLES, Document, read_table

Kind = Literal["groups", "identities", "copies", "near_duplicates"]
TITLES: dict[Kind, str] = {
    "groups": "Groups of the table",
    "identities": "People, source videos and recordings, by name",
    "copies": "Identical files",
    "near_duplicates": "Files that show or say the same",
}
WORDS: dict[Kind, str] = {
    "groups": "groups",
    "identities": "people, source videos and recordings",
    "copies": "contents",
    "near_duplicates": "pairs",
}
EXAMPLES = 5
NAMED = 3  # files of an example
# Layouts that say by path alone what a file was made from.
BY_PATH = ("faceforensics", "celeb_df", "dfd", "deeperforensics", "wavefake")


class Leak(Document):
    """One kind of thing that splits share.

    Attributes:
        kind: groups (that the table names), identities (people and source videos, by name), copies (same bytes) or
            near_duplicates.
        checked: How many such things there are in all.
        shared: How many of them lie in more than one split.
        exposed: Split to the share of its files that share something of this kind with train.
        exposed_fakes: The same for fakes only.
        across_labels: Of near-duplicates and copies: how many join a real and a fake.
        examples: Some of what is shared, with file names and splits.
    """

    kind: Kind
    checked: int
    shared: int
    exposed: dict[str, float]
    exposed_fakes: dict[str, float]
    across_labels: int = 0
    examples: tuple[str, ...] = ()


class LeakReport(Document):
    """What `unmask audit` found.

    Attributes:
        place: The table or folder.
        counts: Split to number of files, as the table calls it.
        leaks: One of each kind that could be checked.
        unchecked: What could not be checked, and why.
    """

    place: str
    counts: dict[str, int]
    leaks: list[Leak]
    unchecked: tuple[str, ...] = ()

    @property
    def leaking(self) -> bool:
        """Whether anything is shared across splits."""
        return any(leak.shared for leak in self.leaks)


@dataclass(frozen=True)
class Audited:
    """Samples as the leak detector sees them, one entry a file in all lists.

    Attributes:
        place: The table or folder.
        files: What names and layouts say; ``official_split`` is the split of the table.
        groups: As the table names them; None where it does not.
        identities: Further people that the table names.
        digests: Hash of the bytes; None where unknown.
        marks: By what a file is known again.
        unchecked: What could not be checked, and why.
    """

    place: str
    files: list[SourceFile]
    groups: list[str | None]
    identities: list[frozenset[str]]
    digests: list[str | None]
    marks: list[Marks]
    unchecked: list[str]


def find_leaks(audited: Audited) -> LeakReport:
    """Look for what splits share.

    Args:
        audited: Samples with splits.
    """
    files = audited.files
    named = identity_keys(files)
    related = [named[f.sample_id] | more for f, more in zip(files, audited.identities, strict=True)]
    leaks = [_leak("identities", files, related)]
    if any(audited.groups):
        leaks.insert(0, _leak("groups", files, [frozenset({g}) if g else frozenset() for g in audited.groups]))
    if any(audited.digests):
        same = [frozenset({digest}) if digest else frozenset() for digest in audited.digests]
        leaks.append(_leak("copies", files, same))
    if any(of is not NOTHING for of in audited.marks):
        leaks.append(_alike(audited))
    splits = pd.Series([file.official_split for file in files]).value_counts()
    return LeakReport(
        place=audited.place,
        counts={str(split): int(count) for split, count in splits.sort_index().items()},
        leaks=leaks,
        unchecked=tuple(audited.unchecked),
    )


def _leak(kind: Kind, files: Sequence[SourceFile], keys: Sequence[Collection[str]]) -> Leak:
    members: dict[str, list[int]] = defaultdict(list)
    for i, names in enumerate(keys):
        for name in names:
            members[name].append(i)
    shared = {name: of for name, of in sorted(members.items()) if len({files[i].official_split for i in of}) > 1}
    in_train = {name for name, of in shared.items() if any(files[i].official_split == "train" for i in of)}
    touched = [bool(in_train & set(names)) for names in keys]
    across = sum(len({files[i].label for i in of}) > 1 for of in shared.values()) if kind == "copies" else 0
    worst = sorted(shared.items(), key=lambda item: (-len(item[1]), item[0]))[:EXAMPLES]
    return Leak(
        kind=kind,
        checked=len(members),
        shared=len(shared),
        exposed=_shares(files, touched, None),
        exposed_fakes=_shares(files, touched, 1),
        across_labels=across,
        examples=tuple(f"{name if kind != 'copies' else name[:12]}: {_shown(files, of)}" for name, of in worst),
    )


def _alike(audited: Audited) -> Leak:
    files = audited.files
    pairs = near_duplicates(audited.marks)
    shared = [p for p in pairs if files[p.first].official_split != files[p.second].official_split]
    touched = [False] * len(files)
    for pair in shared:
        for one, other in ((pair.first, pair.second), (pair.second, pair.first)):
            touched[one] |= files[other].official_split == "train"
    worst = sorted(shared, key=lambda pair: (-pair.likeness, pair))[:EXAMPLES]
    return Leak(
        kind="near_duplicates",
        checked=len(pairs),
        shared=len(shared),
        exposed=_shares(files, touched, None),
        exposed_fakes=_shares(files, touched, 1),
        across_labels=sum(files[p.first].label != files[p.second].label for p in shared),
        examples=tuple(_shown(files, [pair.first, pair.second]) for pair in worst),
    )


def _shares(files: Sequence[SourceFile], touched: Sequence[bool], label: int | None) -> dict[str, float]:
    shares = {}
    for split in sorted({str(file.official_split) for file in files} - {"train"}):
        here = [
            hit for f, hit in zip(files, touched, strict=True) if f.official_split == split and label in (None, f.label)
        ]
        if here:
            shares[split] = sum(here) / len(here)
    return shares


def _shown(files: Sequence[SourceFile], members: Sequence[int]) -> str:
    """Name a file of each split first."""
    by_split: dict[str | None, list[str]] = defaultdict(list)
    for i in members:
        by_split[files[i].official_split].append(files[i].relative)
    return "; ".join(
        f"{split} {', '.join(names[:NAMED])}" + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
        for split, names in sorted(by_split.items(), key=lambda item: str(item[0]))
    )


def read_audited(path: Path, columns: Mapping[str, str], media: Path | None = None) -> Audited:
    """Read what is to be audited.

    Args:
        path: A data set that `unmask ingest` wrote, a table (CSV, TSV, Parquet) with columns for path, label and
            split, or a folder of media that comes divided into train, val and test.
        columns: Meaning (path, label, split, group, identity, manipulation, source) to the name of a column, where it
            is called otherwise.
        media: Folder that the paths of a table begin at; the folder of the table when left out.

    Raises:
        InputError: It cannot be read, or has no splits.
    """
    if path.is_dir() and (path / SAMPLES_FILE).is_file():
        return _own(path)
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise InputError(f"There is neither a table nor a folder {path}.", "Check the path.")
    table = read_rows(path.read_bytes(), path.name, str(path))
    if {"sample_id", "uri", "split", "group_id", "status"} <= set(table.columns):
        return _own(path.parent, path)
    return _foreign(table, path, columns, media or path.parent)


def _own(folder: Path, table: Path | None = None) -> Audited:
    frame = read_table(table or folder / SAMPLES_FILE, SAMPLES).to_pandas()
    frame = frame[(frame["status"] == "ok") & frame["split"].notna() & frame["label"].notna()]
    prefix = _common_folder(frame["uri"])
    files = [
        _described(str(row["uri"]).removeprefix(prefix), str(row["uri"]), str(row["source"]), int(row["label"]), row)
        for row in frame.to_dict("records")
    ]
    unchecked = []
    known: dict[str, Marks] = {}
    if (folder / FILES_FILE).is_file():
        rows = read_table(folder / FILES_FILE, FILES).to_pylist()
        known = {row["sample_id"]: marks_of(row) for row in rows}
    else:
        unchecked.append(f"near-duplicates: {FILES_FILE} does not lie beside the table")
    return Audited(
        place=str(table or folder),
        files=files,
        groups=list(frame["group_id"]),
        identities=[frozenset()] * len(files),
        digests=list(frame["sha256"]),
        marks=[known.get(sample_id, NOTHING) for sample_id in frame["sample_id"]],
        unchecked=unchecked,
    )


def _common_folder(uris: Sequence[str]) -> str:
    folders = [str(uri).rpartition("/")[0].split("/") for uri in uris]
    common: list[str] = []
    for parts in zip(*folders, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return "/".join(common) + "/" if common else ""


def _described(relative: str, uri: str, source: str, label: int, row: Mapping[Any, Any]) -> SourceFile:
    manipulation = row.get("manipulation")
    return SourceFile(
        source=source,
        uri=uri,
        relative=relative,
        label=label,
        folders=tuple(relative.split("/")[:-1]),
        compression=None,
        manipulation=None if manipulation is None or pd.isna(manipulation) else str(manipulation),
        official_split=str(row["split"]),
    )


def _folder(path: Path) -> Audited:
    listing = list_sources([Source(path.resolve().name, FolderStore(path))])
    files = [file for file in listing.files if file.official_split]
    if len({file.official_split for file in files}) < 2:
        raise InputError(
            f"{path} does not come divided into train, val and test (read as layout {listing.layouts}).",
            "Audit the folder that `unmask ingest` wrote, or a table with a column split.",
        )
    return _looked_into(str(path), files, [None] * len(files), [frozenset()] * len(files), [])


def _foreign(table: pd.DataFrame, path: Path, columns: Mapping[str, str], media: Path) -> Audited:
    wrong = sorted(set(columns.values()) - set(table.columns))
    if wrong:
        raise InputError(f"{path} has no column {', '.join(wrong)}.", f"It has {', '.join(map(str, table.columns))}.")
    found = {**columns_of(table.columns), **columns}
    lacking = [meaning for meaning in ("path", "label", "split") if meaning not in found]
    if lacking:
        raise InputError(
            f"{path} has no column for {', '.join(lacking)}; it has {', '.join(map(str, table.columns))}.",
            f"Name it: --column {lacking[0]}=NAME.",
        )
    rows = table[list(found.values())].set_axis(list(found), axis=1)
    records = [{str(k): None if pd.isna(v) else v for k, v in row.items()} for row in rows.to_dict("records")]
    records = [row for row in records if row["path"] is not None and row["split"] is not None]
    paths = [str(row["path"]).replace("\\", "/").removeprefix("./") for row in records]
    by_path = _by_path(Source(path.stem, FolderStore(media)), paths)
    files, missing = [], 0
    for number, (row, relative) in enumerate(zip(records, paths, strict=True)):
        label = label_of(row["label"], f"{path}: row {number}")
        place = media / relative
        missing += not place.is_file()
        row["split"] = SPLIT_OF_NAME.get(str(row["split"]).strip().lower(), str(row["split"]))
        known = by_path.get(relative)
        row["manipulation"] = row.get("manipulation") or (known.manipulation if known and label else None)
        described = _described(relative, str(place), str(row.get("source") or path.stem), label, row)
        files.append(replace(described, keys=known.keys) if known else described)
    groups = [None if row.get("group") is None else str(row["group"]) for row in records]
    people = [
        frozenset() if row.get("identity") is None else frozenset({f"identity {row['identity']}"}) for row in records
    ]
    unchecked = []
    if missing:
        unchecked.append(f"copies and near-duplicates of {missing} files that do not lie below {media}")
    return _looked_into(str(path), files, groups, people, unchecked)


def _by_path(source: Source, paths: Sequence[str]) -> dict[str, SourceFile]:
    """Ask layouts what paths say; nothing needs to lie there."""
    contents = Contents(source, [StoredObject(path, 0, "") for path in dict.fromkeys(paths)], {})
    for layout in LAYOUTS:
        if layout.name in BY_PATH and layout.recognises(contents):
            return {file.relative: file for file in layout.files(contents)}
    files = [file for stored in contents.media if (file := in_folder(contents, stored))]
    return {file.relative: file for file in named_manipulations(files)}


def _looked_into(
    place: str,
    files: list[SourceFile],
    groups: list[str | None],
    identities: list[frozenset[str]],
    unchecked: list[str],
) -> Audited:
    """Hash files and make their marks, where they are there."""
    here = [i for i, file in enumerate(files) if Path(file.uri).is_file()]
    there = [files[i] for i in here]
    digests: list[str | None] = [None] * len(files)
    marks = [NOTHING] * len(files)
    inspections, _ = inspect_files(there, {}, IngestConfig(), LocalMedia(), None)
    for i, inspection in zip(here, inspections, strict=True):
        digests[i], marks[i] = inspection.sha256, inspection.marks
    return Audited(place, files, groups, identities, digests, marks, unchecked)


def as_text(report: LeakReport) -> str:
    """Write a report for the terminal and as Markdown.

    Args:
        report: Of `find_leaks`.
    """
    counts = ", ".join(f"{split} {count}" for split, count in report.counts.items())
    lines = [f"# Leaks in {report.place}", "", f"Files: {counts}.", ""]
    lines.append("**The splits share what they must not.**" if report.leaking else "No leak was found.")
    for leak in report.leaks:
        lines += ["", f"## {TITLES[leak.kind]}", "", _sentence(leak)]
        lines += [f"- {example}" for example in leak.examples]
    if report.unchecked:
        lines += ["", "## Not checked", "", *(f"- {text}" for text in report.unchecked)]
    return "\n".join(lines) + "\n"


def _sentence(leak: Leak) -> str:
    what = "pairs of alike files" if leak.kind == "near_duplicates" else f"different {WORDS[leak.kind]}"
    if not leak.shared:
        return f"None of {leak.checked} {what} lies in more than one split."
    shares = []
    for split, share in leak.exposed.items():
        of_fakes = f" ({leak.exposed_fakes[split]:.1%} of its fakes)" if split in leak.exposed_fakes else ""
        shares.append(f"{share:.1%} of {split}{of_fakes}")
    exposed = ", ".join(shares) or "nothing"
    text = f"{leak.shared} of {leak.checked} {what} lie in more than one split. Shares with train: {exposed}."
    return text + (f" {leak.across_labels} of them join a real and a fake." if leak.across_labels else "")


def as_html(report: LeakReport) -> str:
    """Write a report as a page that needs nothing else."""
    rows = []
    for line in filter(None, as_text(report).splitlines()):
        mark, _, rest = line.partition(" ")
        tag = {"#": "h1", "##": "h2", "-": "li"}.get(mark, "p")
        rows.append(f"<{tag}>{html.escape((line if tag == 'p' else rest).strip('*'))}</{tag}>")
    style = "body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}li{overflow-wrap:anywhere}"
    head = f"<meta charset='utf-8'><title>{html.escape(report.place)}</title><style>{style}</style>"
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{''.join(rows)}</body></html>\n"
