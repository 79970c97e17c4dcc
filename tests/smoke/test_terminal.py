"""What is printed for people names files, runs and targets, whatever these look like."""

import pytest

from rl_interp.app import cli
from rl_interp.app.progress import progress_bar, warn

HOSTILE = "a[/b][red]\x1b]0;title\x07\udcff"
LITERAL = r"a[/b][red]\x1b]0;title\x07\udcff"


@pytest.fixture(autouse=True)
def _at_home():
    """These need no run."""


def test_an_error_and_a_warning_show_names_as_they_are_and_no_control_characters(capsys):
    assert cli.main(["evaluate", f"missing-{HOSTILE}"]) == 1
    warn(HOSTILE)
    shown = capsys.readouterr().err.replace("\n", "")
    assert f"missing-{LITERAL}" in shown
    assert f"warning: {LITERAL}" in shown
    assert "\x1b]" not in shown


def test_a_progress_bar_shows_its_title_as_it_is(capsys):
    with progress_bar(f"Mapping {HOSTILE}", 2, "frames") as update:
        update(1, "note [/x]")
    assert f"Mapping {LITERAL}: 1/2 frames  note [/x]" in capsys.readouterr().err


def test_results_show_names_as_they_are(capsys):
    cli._show({HOSTILE: HOSTILE, "list": [{HOSTILE: HOSTILE}], "by": {7: None}})
    out = capsys.readouterr().out
    assert f"{LITERAL}: {LITERAL}" in out
    assert f"  {LITERAL} {LITERAL}" in out
    assert "  7: none" in out
