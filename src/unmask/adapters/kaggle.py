"""Data sets and competitions of Kaggle, through its documented HTTP API."""

from __future__ import annotations

import base64
import os
from pathlib import Path

from unmask.adapters.download import Remote
from unmask.data.addresses import KaggleAddress
from unmask.errors import StorageError

API = "https://www.kaggle.com/api/v1"
TOKEN_VARIABLE = "KAGGLE_API_TOKEN"
USER_VARIABLE, KEY_VARIABLE = "KAGGLE_USERNAME", "KAGGLE_KEY"


def kaggle_archive(address: KaggleAddress, path: Path, api: str = API) -> Remote:
    """Describe the archive that holds a data set or the data of a competition.

    Kaggle states no hash; the length and the checksums inside the zip are what is checked.

    Args:
        address: What is wanted.
        path: Where it goes.
        api: Address of the API.

    Raises:
        StorageError: No credentials are in the environment.
    """
    if address.kind == "dataset":
        version = f"?datasetVersionNumber={address.version}" if address.version else ""
        url, page = (
            f"{api}/datasets/download/{address.slug}{version}",
            f"https://www.kaggle.com/datasets/{address.slug}",
        )
        terms = f"Check that {page} can be opened with your account."
    else:
        url, page = f"{api}/competitions/data/download-all/{address.slug}", f"https://www.kaggle.com/c/{address.slug}"
        terms = f"Accept the rules with your account at {page}/rules."
    advice = {
        401: f"Make a new token on your Kaggle settings page and set {TOKEN_VARIABLE}, or {USER_VARIABLE} and "
        f"{KEY_VARIABLE}.",
        403: terms,
        404: f"Check the name; is {page} there, and may your account see it?",
    }
    return Remote(url, path, headers={"Authorization": _authorization()}, advice=advice)


def _authorization() -> str:
    token = os.environ.get(TOKEN_VARIABLE, "")
    if token:
        return f"Bearer {token}"
    user, key = os.environ.get(USER_VARIABLE, ""), os.environ.get(KEY_VARIABLE, "")
    if user and key:
        return "Basic " + base64.b64encode(f"{user}:{key}".encode()).decode()
    raise StorageError(
        f"No credentials for Kaggle: neither {TOKEN_VARIABLE} nor {USER_VARIABLE} and {KEY_VARIABLE} are set.",
        "Make a token on your Kaggle settings page and set it in the environment; on a cluster, as a secret.",
    )
