"""Data sets and competitions of Kaggle, through its official client.

The client (`kagglesdk`, which Kaggle's own command is built on) signs in and says where the archive lies; the archive
is then fetched like any other, because ours is the download that checks, resumes and unpacks without trust.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
from kagglesdk.competitions.types.competition_api_service import ApiDownloadDataFilesRequest
from kagglesdk.datasets.types.dataset_api_service import ApiDownloadDatasetRequest
from kagglesdk.kaggle_client import KaggleClient

from unmask.adapters import download
from unmask.adapters.download import PASSING_STATUS, Remote
from unmask.config import DownloadConfig
from unmask.data.addresses import KaggleAddress
from unmask.errors import StorageError

TOKEN_VARIABLE = "KAGGLE_API_TOKEN"
USER_VARIABLE, KEY_VARIABLE = "KAGGLE_USERNAME", "KAGGLE_KEY"


def kaggle_name(address: KaggleAddress) -> str:
    """Name an archive of Kaggle; its address is another one each time."""
    version = f"@{address.version}" if address.version else ""
    return f"kaggle {address.kind} {address.slug}{version}"


def kaggle_archive(address: KaggleAddress, path: Path, config: DownloadConfig) -> Remote:
    """Ask Kaggle where the archive lies that holds a data set or the data of a competition.

    Kaggle states no hash; the length and the checksums inside the zip are what is checked.

    Args:
        address: What is wanted.
        path: Where it goes.
        config: Patience.

    Raises:
        StorageError: No credentials are in the environment, Kaggle refuses, or does not answer.
    """
    for attempt in range(1, config.attempts + 1):
        try:
            with KaggleClient(**_credentials()) as client:
                link = _link(client, address)
            break
        except requests.RequestException as error:
            status = None if error.response is None else error.response.status_code
            if status is not None and status not in PASSING_STATUS:
                raise StorageError(f"Kaggle answers with status {status}.", _advice(address, status)) from error
            if attempt == config.attempts:
                # What follows a question mark may be the signature of a link.
                reason = f"status {status}" if status else re.sub(r"\?\S+", "?…", str(error))
                raise StorageError(
                    f"Kaggle does not answer after {attempt} tries ({reason}).", "Check the network and run again."
                ) from error
            time.sleep(min(download.LONGEST_WAIT_S, 2.0 ** (attempt - 1)) * random.uniform(1.0, 1.25))
    return Remote(link, path, name=kaggle_name(address))


def _link(client: Any, address: KaggleAddress) -> str:
    call: Callable[[Any], requests.Response]
    if address.kind == "dataset":
        call, request = client.datasets.dataset_api_client.download_dataset, ApiDownloadDatasetRequest()
        request.owner_slug, request.dataset_slug = address.slug.split("/")
        if address.version:
            request.dataset_version_number = address.version
    else:
        call = client.competitions.competition_api_client.download_data_files
        request = ApiDownloadDataFilesRequest()
        request.competition_name = address.slug
    with call(request) as response:  # it was led to the archive; nothing of that is read here
        if not response.history:
            raise StorageError("Kaggle does not say where the archive lies.", "Update kagglesdk.")
        return str(response.url)


def _advice(address: KaggleAddress, status: int) -> str:
    dataset = address.kind == "dataset"
    page = f"https://www.kaggle.com/{'datasets' if dataset else 'c'}/{address.slug}"
    if status == 401:
        return (
            f"Make a new token on your Kaggle settings page and set {TOKEN_VARIABLE}, or {USER_VARIABLE} and "
            f"{KEY_VARIABLE}."
        )
    if status == 403:
        if dataset:
            return f"Check that {page} can be opened with your account."
        return f"Accept the rules with your account at {page}/rules."
    return f"Check the name; is {page} there, and may your account see it?"


def _credentials() -> dict[str, str]:
    token = os.environ.get(TOKEN_VARIABLE, "")
    if token:
        return {"api_token": token}
    user, key = os.environ.get(USER_VARIABLE, ""), os.environ.get(KEY_VARIABLE, "")
    if user and key:
        return {"username": user, "password": key}
    raise StorageError(
        f"No credentials for Kaggle: neither {TOKEN_VARIABLE} nor {USER_VARIABLE} and {KEY_VARIABLE} are set.",
        "Make a token on your Kaggle settings page and set it in the environment; on a cluster, as a secret.",
    )
