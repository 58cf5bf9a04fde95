"""The container images of the steps, by role; `images.json` beside this file is the one place that names them.

The tag is the version of the package, and a pushed image gets its digest: Kubeflow caches by the text of the image
reference, so that a tag that is used again for other code would bring back old results.

`python -m components.images --registry R --tag T --digest ROLE=sha256:…` writes the file; `make compile` then puts
the references into the pipelines.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = Path(__file__).with_name("images.json")
ROLES = ("pipeline", "serving", "training")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True)
class Images:
    """Where the images of all roles lie.

    Attributes:
        registry: Prefix of the references, for example ``registry.example/team``.
        tag: Of all roles; never ``latest``, because it would name other code tomorrow.
        digests: Role to ``sha256:…``; empty for an image that was not pushed yet.
    """

    registry: str
    tag: str
    digests: Mapping[str, str]

    def __post_init__(self) -> None:
        unknown = sorted(set(self.digests) - set(ROLES))
        if unknown:
            raise ValueError(f"unknown image roles: {', '.join(unknown)}; there are {', '.join(ROLES)}")
        if not self.registry.strip("/"):
            raise ValueError("the registry is empty")
        if self.tag == "latest" or not _TAG.fullmatch(self.tag):
            raise ValueError(f"{self.tag!r} is not a tag that names one image for good")
        for role, digest in self.digests.items():
            if digest and not _DIGEST.fullmatch(digest):
                raise ValueError(f"the digest of {role} is {digest!r}, not sha256: and 64 hexadecimal digits")

    def reference(self, role: str) -> str:
        """Name the image of a role.

        Args:
            role: One of `ROLES`.

        Returns:
            ``registry/role:tag``, with ``@digest`` where it is known.
        """
        digest = self.digests.get(role, "")
        return f"{self.registry.rstrip('/')}/{role}:{self.tag}" + (f"@{digest}" if digest else "")


def read(file: Path = FILE) -> Images:
    """Read the references.

    Args:
        file: JSON file.

    Returns:
        The images.

    Raises:
        ValueError: The file holds something else.
    """
    return Images(**json.loads(file.read_text(encoding="utf-8")))


def write(images: Images, file: Path = FILE) -> None:
    """Write the references.

    Args:
        images: What to write.
        file: JSON file.
    """
    file.write_text(json.dumps(asdict(images), indent=2, sort_keys=False) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Change the file from the command line; what is not given stays, except that another tag forgets the digests.

    Args:
        arguments: Of the command line.

    Returns:
        Exit status.
    """
    now = read()
    parser = argparse.ArgumentParser(prog="python -m components.images", description=__doc__)
    parser.add_argument("--registry", default=now.registry)
    parser.add_argument("--tag", default=now.tag)
    parser.add_argument("--digest", action="append", default=[], metavar="ROLE=sha256:…")
    options = parser.parse_args(arguments)
    same = (options.registry, options.tag) == (now.registry, now.tag)
    kept = dict(now.digests) if same else dict.fromkeys(ROLES, "")
    try:
        changed = Images(options.registry, options.tag, {**kept, **dict(d.split("=", 1) for d in options.digest)})
    except ValueError as error:
        parser.error(str(error))
    write(changed, FILE)
    sys.stdout.writelines(f"{changed.reference(role)}\n" for role in ROLES)
    return 0


IMAGES = read()
VERSION = IMAGES.tag
PIPELINE = IMAGES.reference("pipeline")
TRAINING = IMAGES.reference("training")
SERVING = IMAGES.reference("serving")

if __name__ == "__main__":
    sys.exit(main())
