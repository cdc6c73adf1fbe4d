"""What the app adds to Django's set-up: time, memory, modules.

Set-up reads modules and computes: the CPU time of the process is what it takes on an idle machine.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

_SCRIPT = """
import json, os, sys, time
before = time.process_time()
import django
django.setup()
took = time.process_time() - before
pages = int(open("/proc/self/statm").read().split()[1])
sdks = [name for name in ("boto3", "botocore", "google.cloud", "grpc") if name in sys.modules]
print(json.dumps([took, pages * os.sysconf("SC_PAGE_SIZE"), sdks]))
"""


def run() -> dict[str, Any]:
    """Set Django up in fresh processes, with the app and without it, in turns."""
    samples: dict[str, list[tuple[float, float]]] = {"with": [], "without": []}
    loaded: set[str] = set()
    # An installed package is compiled: the first turns, which do not count, see to that here.
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    for turn in range(22):
        for kind, taken in samples.items():
            settings = "benchmarks.project" if kind == "with" else "benchmarks.bare"
            done = subprocess.run(  # noqa: S603
                [sys.executable, "-c", _SCRIPT],
                env={**environ, "DJANGO_SETTINGS_MODULE": settings},
                cwd=Path(__file__).parent.parent,
                capture_output=True,
                check=True,
                text=True,
            )
            took, memory, sdks = json.loads(done.stdout)
            loaded.update(sdks)
            if turn > 1:
                taken.append((took, memory))
    (time_with, mem_with), (time_without, mem_without) = (
        [statistics.median(column) for column in zip(*samples[kind], strict=True)]
        for kind in ("with", "without")
    )
    return {
        "Django alone ms": time_without * 1e3,
        "added ms": (time_with - time_without) * 1e3,
        "added MB": (mem_with - mem_without) / 1e6,
        "SDKs imported": sorted(loaded),
    }
