"""FaceForensics++ from its own server, for those who signed its terms.

Who signs the terms gets a download script by mail; the server's address in it is the licence link. It is taken from
the environment and never written anywhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from unmask.adapters.download import Downloader, Remote
from unmask.data.addresses import FaceForensicsAddress
from unmask.errors import StorageError

LINK_VARIABLE = "UNMASK_FACEFORENSICS_URL"
PAGE = "https://github.com/ondyari/FaceForensics"
PAIRS = "misc/filelist.json"
ACTORS = "misc/deepfake_detection_filenames.json"
ACTOR_KEYS = {"original_sequences/actors": "actors", "manipulated_sequences/DeepFakeDetection": "DeepFakesDetection"}
MAX_LIST_BYTES = 2**24
ADVICE = {
    403: f"Your link may have expired; the terms and the form for a new one are at {PAGE}.",
    404: f"Check {LINK_VARIABLE}: it ends where folders like original_sequences begin.",
}


def faceforensics_files(address: FaceForensicsAddress, folder: Path, downloader: Downloader) -> list[Remote]:
    """List the files of a part of FaceForensics++, in the layout of its own download script.

    Args:
        address: Which part.
        folder: Where they go.
        downloader: To fetch the official lists with.

    Returns:
        Originals first, then the forgeries; with a limit, the forgeries are those made from these originals.

    Raises:
        StorageError: The licence link is missing, or the server does not answer as it should.
    """
    base = os.environ.get(LINK_VARIABLE, "").rstrip("/")
    if not base:
        raise StorageError(
            f"FaceForensics++ is given to those who sign its terms; {LINK_VARIABLE} is not set.",
            f"Ask for access with the form at {PAGE}, then set {LINK_VARIABLE} to the server address (up to v3) in the "
            "script that you get.",
        )
    paired = [name for name in address.manipulations if name != "DeepFakeDetection"]
    names: dict[str, list[str]] = {}
    if paired:
        pairs = _pairs(_read(base, PAIRS, folder, downloader))
        # A pair gives two originals and two forgeries; whole pairs keep every forgery beside its originals.
        pairs = pairs if address.videos is None else pairs[: max(1, address.videos // 2)]
        names["original_sequences/youtube"] = [name for pair in pairs for name in pair]
        for manipulation in paired:
            both = [f"{a}_{b}" for first, second in pairs for a, b in ((first, second), (second, first))]
            names[f"manipulated_sequences/{manipulation}"] = both
    if "DeepFakeDetection" in address.manipulations:
        lists = _read(base, ACTORS, folder, downloader)
        for place, key in ACTOR_KEYS.items():
            listed = lists.get(key) if isinstance(lists, dict) else None
            names[place] = _names(listed)[: address.videos]
    return [
        Remote(f"{base}/{path}", folder / path, advice=ADVICE)
        for place, listed in names.items()
        for path in (f"{place}/{address.compression}/videos/{name}.mp4" for name in listed)
    ]


def _read(base: str, path: str, folder: Path, downloader: Downloader) -> object:
    remote = Remote(f"{base}/{path}", folder / Path(path).name, advice=ADVICE)
    try:
        value: object = json.loads(downloader.read(remote, MAX_LIST_BYTES))
    except ValueError as error:
        raise StorageError(f"{remote.shown} is not the list of files ({error}).", ADVICE[404]) from error
    return value


def _pairs(value: object) -> list[tuple[str, str]]:
    pairs = [_names(pair) for pair in value] if isinstance(value, list) else []
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise StorageError("The server's list of pairs has another form than FaceForensics++ has.", ADVICE[404])
    return [(first, second) for first, second in pairs]


def _names(value: object) -> list[str]:
    """Check names that become paths; they hold letters, digits and underscores only."""
    listed: Sequence[object] = value if isinstance(value, list) else []
    names = [name for name in listed if isinstance(name, str) and name.replace("_", "").isalnum() and name.isascii()]
    if not names or len(names) < len(listed):
        raise StorageError("The server's list of files has another form than FaceForensics++ has.", ADVICE[404])
    return names
