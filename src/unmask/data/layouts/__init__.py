"""Layouts: how data sets arrange their files, and what folders, names and lists beside the media say.

Every layout is recognised by its folders or files; a source may also name its layout in ``ingest.layouts``.
"""

from __future__ import annotations

from unmask.data.layouts.contents import Contents, Layout
from unmask.data.layouts.faces import CelebDF, DeeperForensics, DeepFakeDetection, FaceForensics
from unmask.data.layouts.folders import Folders
from unmask.data.layouts.speech import AsvSpoof, WaveFake
from unmask.data.layouts.tables import Metadata, Table
from unmask.errors import ConfigError

# The most particular first; the first that recognises a source reads it.
LAYOUTS: tuple[Layout, ...] = (
    FaceForensics(),
    CelebDF(),
    DeepFakeDetection(),
    DeeperForensics(),
    AsvSpoof(),
    WaveFake(),
    Metadata(),
    Table(),
    Folders(),
)

__all__ = ["LAYOUTS", "Contents", "Layout", "layout_of"]


def layout_of(contents: Contents, name: str) -> Layout:
    """Choose the layout of a source.

    Args:
        contents: Of the source.
        name: Of the layout, or ``auto``.

    Raises:
        ConfigError: There is no such layout.
    """
    if name == "auto":
        return next((layout for layout in LAYOUTS if layout.recognises(contents)), LAYOUTS[-1])
    for layout in LAYOUTS:
        if layout.name == name:
            return layout
    raise ConfigError(
        f"ingest.layouts.{contents.source.name}: there is no layout {name!r}.",
        f"Use auto, {', '.join(layout.name for layout in LAYOUTS)}.",
    )
