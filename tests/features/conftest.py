"""Lets these tests draw the same faces as those of the room media."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "media"))
