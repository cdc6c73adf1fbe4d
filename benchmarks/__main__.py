"""``python -m benchmarks [FILE.json]``: the package and its peers, side by side in one process."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from .upstream import upstream

#: What the design sets as bars: section, figure, and the most it may be.
BARS = {
    ("hits", "get over by hand"): 1.3,
    ("hits", "live setting over plain"): 1.6,
    ("hits", "tag over variable"): 1.0,
    ("warm-up", "warm over by hand"): 1.3,
    ("start-up", "added ms"): 15.0,
    ("start-up", "added MB"): 3.0,
}


def main() -> None:
    """Run everything, print a table, and write the figures as JSON if a file is named."""
    with upstream() as server:
        os.environ["BENCH_UPSTREAM"] = server.url
        os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.project"
        import django

        django.setup()
        from . import fetches, hits, redaction, startup

        results: dict[str, dict[str, Any]] = {"hits": hits.run(server)}
        results["cold"] = fetches.cold(server)
        results["warm-up"] = fetches.warm_up(server)
        results["event loop"] = fetches.event_loop(server)
        results["redaction"] = redaction.run()
        results["start-up"] = startup.run()
    print(f"CPython {platform.python_version()}, Django {django.get_version()}")
    for section, figures in results.items():
        print(f"\n{section}")
        for name, figure in figures.items():
            if isinstance(figure, dict):
                for inner, value in figure.items():
                    print(f"  {inner:42} {value:12.1f} {name}")
                continue
            text = f"{figure:12.2f}" if isinstance(figure, float) else f"{figure!s:>12}"
            bar = BARS.get((section, name))
            verdict = (
                "" if bar is None else f"  bar {bar:g}: {'held' if figure <= bar else 'MISSED'}"
            )
            print(f"  {name:42} {text}{verdict}")
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(results, indent=2) + "\n")


main()
