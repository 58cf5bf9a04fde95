"""From what ``--source`` says to sources that can be listed: folders and buckets as they are, the rest fetched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unmask.adapters.object_store import open_store
from unmask.config import UnmaskConfig
from unmask.data.addresses import Address, BucketAddress, FetchedAddress, FolderAddress
from unmask.data.sources import Source
from unmask.errors import MissingExtraError
from unmask.objects import FolderStore


def open_sources(addresses: Sequence[Address], downloads: Path, config: UnmaskConfig) -> list[Source]:
    """Make sources ready: open buckets, fetch and unpack what lies elsewhere.

    Args:
        addresses: As `unmask.data.addresses.parse_source` read them.
        downloads: Folder below which fetched sources are kept, each in a folder of its own.
        config: Of object stores and downloads.

    Returns:
        One source an address, in the same order.

    Raises:
        InputError: An archive is damaged, or holds what is refused.
        MissingExtraError: What fetching needs is not installed.
        StorageError: A bucket cannot be opened, or a file does not come whole.
    """
    return [_open(address, downloads, config) for address in addresses]


def _open(address: Address, downloads: Path, config: UnmaskConfig) -> Source:
    if isinstance(address, FolderAddress):
        return Source(address.name, FolderStore(address.path))
    if isinstance(address, BucketAddress):
        return Source(address.name, open_store(address.uri, config.storage))
    return Source(address.name, FolderStore(_fetched(address, downloads, config)))


def _fetched(address: FetchedAddress, downloads: Path, config: UnmaskConfig) -> Path:
    try:
        from unmask.adapters.acquire import fetch_source
    except ImportError as error:
        raise MissingExtraError(f"Source {address.name}", "storage") from error
    return fetch_source(address, downloads, config.download)
