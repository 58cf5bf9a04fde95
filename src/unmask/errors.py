"""Every error that unmask raises on purpose: what is wrong, and what to do about it."""

from __future__ import annotations

from pathlib import Path


class UnmaskError(Exception):
    """An error that a user can act on; the CLI prints it without a traceback.

    Args:
        problem: What is wrong, in one sentence, with the numbers or names that show it.
        fix: What to do about it, in one sentence.
    """

    def __init__(self, problem: str, fix: str = "") -> None:
        super().__init__(problem, fix)
        self.problem = problem
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.problem} {self.fix}".strip()


class ConfigError(UnmaskError):
    """A configuration value is missing, unknown or out of range."""


class InputError(UnmaskError):
    """What the user handed in (a folder, a file, an option) cannot be used."""


class ContractError(UnmaskError):
    """A table or document does not keep its schema.

    Args:
        path: The file.
        where: The column and row, or the JSON field.
        problem: What is wrong there.
        fix: What to do about it.
    """

    def __init__(self, path: Path | str, where: str, problem: str, fix: str = "") -> None:
        super().__init__(f"{path}: {where}: {problem}", fix)
        self.path = str(path)
        self.where = where


class LeakError(UnmaskError):
    """Rows of a split reached a function that must not see them."""


class StorageError(UnmaskError):
    """A store cannot be reached, refuses the credentials, or gives other bytes than those that were asked for."""


class MediaError(UnmaskError):
    """A media file cannot be decoded or measured; becomes a row with a reason, never a crash.

    Args:
        code: Short machine-readable reason, for example ``truncated``.
        detail: What was seen, with numbers.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class MissingExtraError(UnmaskError):
    """An optional dependency is not installed.

    Args:
        what: What needs it.
        extra: The name of the extra in pyproject.toml.
    """

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs packages that are not installed.", f"Run: pip install 'unmask[{extra}]'")
