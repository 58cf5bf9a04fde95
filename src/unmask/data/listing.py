"""Listing sources: every media file with what its layout says about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from unmask.data.layouts import Contents, layout_of
from unmask.data.sources import Listing, Source
from unmask.errors import InputError

OUTSIDE = "media without a label"


def list_sources(sources: Sequence[Source], layouts: Mapping[str, str] | None = None) -> Listing:
    """List the media files of several sources.

    Args:
        sources: At least one.
        layouts: Source name to layout; the others are recognised.

    Returns:
        Files, and what was passed over.

    Raises:
        InputError: A name is given twice, or no labelled media lie in a source.
        ConfigError: A layout is named that does not exist.
        StorageError: A source cannot be listed.
    """
    if not sources:
        raise InputError("No source was given.", "Name at least one folder with real/ and fake/ below it.")
    names = Counter(source.name for source in sources)
    twice = sorted(name for name, count in names.items() if count > 1)
    if twice:
        raise InputError(f"Sources share a name: {', '.join(twice)}.", "Give each its own: --source NAME=FOLDER.")
    unknown = sorted(set(layouts or {}) - set(names))
    if unknown:
        raise InputError(f"ingest.layouts names sources that are not given: {', '.join(unknown)}.", "Mend the name.")
    listing = Listing()
    for source in sources:
        _list_source(source, (layouts or {}).get(source.name, "auto"), listing)
    return listing


def _list_source(source: Source, name: str, listing: Listing) -> None:
    contents = Contents.of(source)
    layout = layout_of(contents, name)
    files = sorted(layout.files(contents), key=lambda file: file.relative)
    unlabelled = len(contents.media) - len(files)
    if not files:
        raise InputError(
            f"Source {source.name}: no labelled media below {source.files.uri} ({unlabelled} media files without a "
            f"label; read as layout {layout.name}).",
            "Put real media into real/ and forged media into fake/ below the folder (a folder below fake/ may name the "
            "manipulation), or add a metadata.json or a CSV with columns path and label.",
        )
    listing.files += files
    listing.ignored += contents.ignored
    listing.ignored += Counter(_no_media_reason(key) for key in contents.side)
    if unlabelled:
        listing.ignored[OUTSIDE] += unlabelled
    if any(file.official_split for file in files):
        listing.official_splits.add(source.name)
    listing.layouts[source.name] = layout.name
    listing.remarks += contents.remarks


def _no_media_reason(key: str) -> str:
    suffix = PurePosixPath(key.rpartition("/")[2]).suffix.lower()
    return f"no media suffix ({suffix or 'none'})"
