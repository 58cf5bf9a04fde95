"""Named sets of pipeline parameters, read from ``presets.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from unmask.config import load_config
from unmask.errors import InputError

FILE = Path(__file__).with_name("presets.yaml")
STANDARD: Mapping[str, Any] = MappingProxyType({})


def names() -> list[str]:
    """List the presets.

    Returns:
        Their names, in the order of the file.
    """
    return list(_all())


def preset(name: str) -> dict[str, Any]:
    """Read one preset.

    Args:
        name: Its name.

    Returns:
        Parameter to value; ``config`` is YAML in one line, as a field of a form holds it.

    Raises:
        InputError: There is no such preset.
        ConfigError: Its ``config`` has errors.
    """
    known = _all()
    if name not in known:
        raise InputError(f"There is no preset {name!r}.", f"There are: {', '.join(known)}.")
    values = dict(known[name])
    text = yaml.safe_dump(values.get("config", {}), default_flow_style=True, width=10_000, sort_keys=False).strip()
    load_config(inline=text)
    return {**values, "config": text}


def _all() -> dict[str, dict[str, Any]]:
    return dict(yaml.safe_load(FILE.read_text(encoding="utf-8")))
