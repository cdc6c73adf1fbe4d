"""Metrics of several processes, through django-prometheus' endpoint and gunicorn."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

from django_secret_registry.metrics import INTERVAL

from .canary import canary

prometheus_client = pytest.importorskip("prometheus_client")
pytest.importorskip("django_prometheus", reason="needs Django < 6.1: django-prometheus")
pytest.importorskip("gunicorn")
from prometheus_client.multiprocess import MultiProcessCollector  # noqa: E402
from prometheus_client.parser import text_string_to_metric_families  # noqa: E402

pytestmark = pytest.mark.full

READS = "shop_secret_registry_resolve_total"


@pytest.fixture
def site(tmp_path):
    """Yield a function that starts gunicorn, and the folder of the metrics of its workers."""
    folder = tmp_path / "metrics"
    folder.mkdir()
    started = []

    def start(*, multiprocess: bool) -> tuple[subprocess.Popen[str], str]:
        environ = {**os.environ, "METRICS_SECRET": canary("metrics")}
        environ.pop("DJANGO_SETTINGS_MODULE", None)
        if multiprocess:
            environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
        log = tmp_path / "gunicorn.log"
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:0"),
                *("--workers", "2" if multiprocess else "1", "--threads", "2"),
                *("--log-file", str(log), "--graceful-timeout", "10"),
                "tests.projects.metrics_site:application",
            ],
            cwd=Path(__file__).parent.parent,
            env=environ,
        )
        started.append(process)
        deadline = time.monotonic() + 30
        while "Listening at: " not in (text := log.read_text() if log.exists() else ""):
            assert process.poll() is None, text
            assert time.monotonic() < deadline, text
            time.sleep(0.05)
        return process, text.partition("Listening at: ")[2].split()[0]

    start.folder = folder
    yield start
    for process in started:
        process.kill()
        process.wait()


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=20) as answer:
        text = answer.read().decode()
    assert canary("metrics") not in text
    return text


def _samples(text: str) -> dict[tuple[str, str], float]:
    """Return the reads by provider and status."""
    return {
        (sample.labels["provider"], sample.labels["status"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == READS
    }


def test_one_process_is_up_to_date_at_each_scrape(site):
    """Without multiprocess mode a scrape shows every read, and series at 0 for unused providers."""
    _, url = site(multiprocess=False)
    for _ in range(3):
        _get(f"{url}/read")
    reads = _samples(_get(f"{url}/metrics"))
    assert reads["env", "ok"] + reads["env", "hit"] == 30
    assert reads["unused", "unavailable"] == 0


def test_two_workers_lose_nothing_when_they_end_in_order(site):
    """After SIGTERM the files of both workers add up to every read that was made."""
    process, url = site(multiprocess=True)
    pids: Counter[str] = Counter()
    for _ in range(200):
        pids[_get(f"{url}/read")] += 1
        if len(pids) == 2 and sum(pids.values()) >= 40:
            break
    text = _get(f"{url}/metrics")
    assert "shop_secret_registry_provider_build_total" in text
    assert _samples(text)["unused", "unavailable"] == 0, "a series that nothing has happened to"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    registry = prometheus_client.CollectorRegistry()
    MultiProcessCollector(registry, path=str(site.folder))
    reads = _samples(prometheus_client.generate_latest(registry).decode())
    assert reads["env", "ok"] + reads["env", "hit"] == 10 * sum(pids.values())
    assert reads["env", "ok"] == len(pids)


def test_a_killed_worker_loses_five_seconds_at_most(site):
    """Hits are carried over in the background, so that SIGKILL takes only the newest ones along."""
    _, url = site(multiprocess=True)
    worker = int(_get(f"{url}/read"))
    deadline = time.monotonic() + INTERVAL + 10

    def carried() -> float:
        registry = prometheus_client.CollectorRegistry()
        MultiProcessCollector(registry, path=str(site.folder))
        reads = _samples(prometheus_client.generate_latest(registry).decode())
        return reads.get(("env", "ok"), 0) + reads.get(("env", "hit"), 0)

    while carried() < 10 and time.monotonic() < deadline:
        time.sleep(0.2)
    os.kill(worker, signal.SIGKILL)
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert carried() == 10
