"""Reading a configuration from YAML and from `--set section.name=value`, all errors at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from unmask.config.models import UnmaskConfig
from unmask.errors import ConfigError


def load_config(path: Path | None = None, overrides: Sequence[str] = (), inline: str = "") -> UnmaskConfig:
    """Read the configuration: defaults, then the file, then inline YAML, then single overrides.

    Args:
        path: YAML file, or None.
        overrides: ``section.name=value``, the value in YAML.
        inline: YAML text, as a pipeline parameter carries it.

    Returns:
        The resolved configuration.

    Raises:
        ConfigError: Lists everything that is wrong, each with its place and the values that are right.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            _merge(values, _parse(path.read_text(encoding="utf-8"), str(path)))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read ({error}).", "Give --config the path of a YAML file.") from error
    _merge(values, _parse(inline, "the inline configuration"))
    for override in overrides:
        _merge(values, _parse_override(override))
    try:
        return UnmaskConfig.model_validate(values)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or 'configuration'}: {_explain(e)}" for e in error.errors()]
        raise ConfigError(
            "The configuration has errors:\n" + "\n".join(lines) + "\n",
            "`unmask config init` writes every setting with its default and meaning.",
        ) from error


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not YAML: {error}.", "Mend the line that is named.") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{where} holds a {type(value).__name__}, not settings.", "Write `name: value` lines.")
    return value


def _parse_override(text: str) -> dict[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"--set {text!r} has no '='.", "Write --set section.name=value, e.g. --set train.epochs=3.")
    try:
        parsed: Any = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {text!r}: the value is not YAML.", "Quote it.") from error
    for part in reversed(name.strip().split(".")):
        parsed = {part: parsed}
    return dict(parsed)


def _merge(into: dict[str, Any], new: dict[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _explain(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown setting; remove it or mend the spelling"
    return f"{error['msg']} (got {error['input']!r})"


def commented_defaults() -> str:
    """Write every setting with its default and its meaning as YAML.

    Returns:
        YAML text that loads to the default configuration.
    """
    lines = ["# unmask configuration: every setting with its default. Keep only what you change."]
    _comment(UnmaskConfig(), lines, 0)
    return "\n".join(lines) + "\n"


def _comment(section: BaseModel, lines: list[str], depth: int) -> None:
    indent = "  " * depth
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            title = (type(value).__doc__ or "").splitlines()[0]
            lines.append(f"{indent}{name}:  # {title}")
            _comment(value, lines, depth + 1)
        else:
            plain = section.model_dump(mode="json")[name]
            text = yaml.safe_dump(plain, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
            lines.append(f"{indent}{name}: {text}" + (f"  # {field.description}" if field.description else ""))
