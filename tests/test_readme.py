"""The README keeps its promises."""

from __future__ import annotations

import re


def test_commands_are_the_ones_that_ci_runs(pytestconfig):
    """The README's test command stands in CI word for word, and its demo command with the tour."""
    readme = (pytestconfig.rootpath / "README.md").read_text()
    script = (pytestconfig.rootpath / ".ci" / "run").read_text()
    demo, tests = re.findall(r"^python3 -m venv .*$", readme, re.MULTILINE)
    assert f"{tests};" in script
    assert f"{demo.rpartition('&& ')[2]} -- --once" in script
