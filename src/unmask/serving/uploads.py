"""Reading uploads: from the body to a private file that is deleted, and the descriptions of it for OpenAPI."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from unmask.serving.problems import RefusedError

LONGEST_NAME = 120
LONGEST_CLIENT = 200
MAX_FIELDS = 20
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\u202a-\u202e\u2066-\u2069]")


class Scratch:
    """A private folder for uploads while they are worked on.

    Args:
        root: Where it is made; leftovers of servers that were killed are removed there.
    """

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for old in root.glob("*-*"):
            pid = old.name.partition("-")[0]
            if pid.isdigit() and not _alive(int(pid)):
                shutil.rmtree(old, ignore_errors=True)
        self.folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=root))

    def new(self) -> Path:
        """Name a file that does not exist; its name tells nothing."""
        return self.folder / secrets.token_hex(12)

    def remove(self) -> None:
        """Remove the folder and all that lies in it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    async def save(self, part: UploadFile) -> Path:
        """Write one uploaded file.

        Raises:
            RefusedError: 422, it is empty.
        """
        path = self.new()
        try:
            await asyncio.to_thread(_copy, part, path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        if path.stat().st_size == 0:
            path.unlink(missing_ok=True)
            raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, "empty_file", "The file has 0 bytes.", "Send another.")
        return path


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _copy(part: UploadFile, path: Path) -> None:
    with path.open("xb") as stream:
        part.file.seek(0)
        shutil.copyfileobj(part.file, stream, 1 << 20)


@contextmanager
def deleted_after(paths: Sequence[Path]) -> Iterator[None]:
    """Delete files at the end of a block, whatever happens in it."""
    try:
        yield
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


async def read_form(request: Request, max_files: int, timeout_s: float) -> FormData:
    """Read a multipart body.

    Args:
        request: The request.
        max_files: Files that it may hold.
        timeout_s: Longest time that it may take to arrive.

    Returns:
        The form; close it.

    Raises:
        RefusedError: 400 it is no multipart form, 408 it is too slow.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise RefusedError(
            HTTPStatus.BAD_REQUEST, "no_form", "The body is no multipart form.", "Send the file as multipart/form-data."
        )
    try:
        async with asyncio.timeout(timeout_s):
            return await request.form(max_files=max_files, max_fields=MAX_FIELDS, max_part_size=1 << 16)
    except TimeoutError as error:
        raise RefusedError(
            HTTPStatus.REQUEST_TIMEOUT, "slow_upload", f"The body did not arrive within {timeout_s:g} s."
        ) from error
    except HTTPException as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "bad_form", str(error.detail)) from error
    except (KeyError, UnicodeDecodeError, AssertionError, ValueError) as error:
        # What the parser stumbles over: no boundary, names in an impossible encoding.
        raise RefusedError(HTTPStatus.BAD_REQUEST, "bad_form", "The multipart body cannot be read.") from error


def files_of(form: FormData, names: Sequence[str]) -> list[UploadFile]:
    """Find the uploaded files under any of some field names.

    Raises:
        RefusedError: 422, there is none.
    """
    found = [part for name in names for part in form.getlist(name) if isinstance(part, UploadFile)]
    if not found:
        raise RefusedError(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "no_file",
            f"The form has no file in the field {' or '.join(names)}.",
            "Send one.",
        )
    return found


def shown_name(part: UploadFile) -> str:
    """Clean the name that a client gives its file: it goes back in the answer, and nowhere else."""
    name = (part.filename or "").replace("\\", "/").rpartition("/")[2]
    return _UNPRINTABLE.sub("", name).encode("utf-8", "replace").decode()[:LONGEST_NAME] or "upload"


def client_of(form: FormData) -> str:
    """Read who asks; empty if the form does not say.

    Raises:
        RefusedError: 422, it is no text, too long, or there twice.
    """
    client = _form_text(form, "client")
    if len(client) > LONGEST_CLIENT:
        raise _bad_field("client", f"has {len(client)} characters; the limit is {LONGEST_CLIENT}")
    return client


def may_keep(form: FormData) -> bool:
    """Read whether the sender agrees that the file is kept.

    Raises:
        RefusedError: 422, it is neither true nor false, or there twice.
    """
    said = _form_text(form, "keep")
    if said not in ("", "true", "false"):
        raise _bad_field("keep", "must be true or false")
    return said == "true"


def _form_text(form: FormData, name: str) -> str:
    values = form.getlist(name)
    if len(values) > 1:
        raise _bad_field(name, "is there more than once")
    value = values[0] if values else ""
    if not isinstance(value, str):
        raise _bad_field(name, "must be text, not a file")
    return value


def _bad_field(name: str, problem: str) -> RefusedError:
    return RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, "bad_field", f"The field {name} {problem}.")


def form_body(field: str, *, many: bool = False) -> dict[str, Any]:
    """Describe an upload for OpenAPI.

    Args:
        field: Name of the field with the file.
        many: Whether it holds several files.

    Returns:
        ``openapi_extra`` of a route.
    """
    file: dict[str, Any] = {"type": "string", "format": "binary", "description": "Image, video or sound."}
    properties = {
        field: {"type": "array", "items": file, "minItems": 1} if many else file,
        "client": {
            # No type: a form holds text only, so that null, true and 7 arrive as words that are as good as any.
            "maxLength": LONGEST_CLIENT,
            "description": "Stays the same for a person: routes A/B tests.",
        },
        "keep": {
            "type": "string",
            "enum": ["", "true", "false"],
            "description": "Agree that the file is kept to learn from.",
        },
    }
    schema = {"type": "object", "required": [field], "properties": properties}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}
