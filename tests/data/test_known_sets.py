from __future__ import annotations

from click.testing import CliRunner

from unmask.cli import cli
from unmask.data.addresses import FolderAddress, parse_source
from unmask.data.known_sets import KNOWN_SETS


def test_every_source_that_is_offered_can_be_written_so():
    offered = [known for known in KNOWN_SETS if known.source]
    assert offered
    for known in offered:
        assert not isinstance(parse_source(known.source), FolderAddress)
        assert known.signed, "what a program can fetch here needs an agreement first"


def test_sets_with_terms_to_sign_say_where():
    for known in KNOWN_SETS:
        assert known.page.startswith("https://")
        assert not known.signed or "page" in known.steps or "As for" in known.steps


def test_the_command_lists_them():
    result = CliRunner().invoke(cli, ["sources"])
    assert result.exit_code == 0
    for known in KNOWN_SETS:
        assert known.name in result.output
        assert known.page in result.output
