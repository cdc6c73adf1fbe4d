from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from . import admin
from .fleet import FleetTour
from .site import PROJECT, Site, free_port, log_file
from .steps import DemoError, done, title
from .stores import STORES, Store, seeds
from .tour import Tour

TTL = 2.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo", description="Run the example shop.")
    parser.add_argument(
        "--once", action="store_true", help="take a tour through the shop, and end with 0 or 1"
    )
    parser.add_argument(
        "--with", dest="store", choices=STORES, default="aws", help="where the secrets live"
    )
    parser.add_argument(
        "--pictures",
        type=Path,
        default=PROJECT / "pictures",
        metavar="FOLDER",
        help="where the tour leaves pictures of the admin (default: %(default)s)",
    )
    parser.add_argument(
        "--no-pictures",
        dest="pictures",
        action="store_const",
        const=None,
        help="leave the admin, and its pictures, out of the tour",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="serve by N processes that are joined by a bus, each on a port of its own",
    )
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    arguments = parser.parse_args()
    store = STORES[arguments.store]
    if lacking := store.missing():
        print(f"{store.label} {lacking}", file=sys.stderr)
        return 2
    # Ended from outside, the demo still stops the server that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        run(
            store(),
            once=arguments.once,
            pictures=arguments.pictures and arguments.pictures.resolve(),
            port=arguments.port or free_port(),
            workers=arguments.workers,
        )
    except DemoError as error:
        print(f"   failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print()
    return 0


def run(store: Store, *, once: bool, pictures: Path | None, port: int, workers: int = 1) -> None:
    """Serve the shop; or take the tour, ``once``, and leave ``pictures`` in that folder."""
    with contextlib.ExitStack() as stack:
        title(f"Start {store.label} and seed it")
        stack.enter_context(store)
        done(", ".join(seeds()))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        environment = {
            **store.environment,
            **admin.ENVIRONMENT,
            "SHOP_DATABASE": str(Path(folder) / "db.sqlite3"),
            "SHOP_SECRET_TTL": str(TTL),
            "SHOP_FLEET": str(workers > 1),
        }
        log = stack.enter_context(log_file()) if once else None
        site = Site(environment, port=port, log=log)
        title("manage.py migrate")
        site.manage("migrate", "--verbosity", "0")
        admin.create(site)
        done("the database is ready")
        title("manage.py warm_secrets")
        site.manage("warm_secrets")
        title(f"Serve on {site.url}")
        others = [Site(environment, port=free_port(), log=log) for _ in range(workers - 1)]
        with shown_on_failure(log), contextlib.ExitStack() as serving:
            for one in (site, *others):
                serving.enter_context(one)
            if others:
                done("further workers serve on " + ", ".join(one.url for one in others))
            if once:
                Tour(site.url, store, ttl=TTL).walk()
                if pictures:
                    admin.Operator(site.url, store, pictures).walk()
                if others:
                    FleetTour([one.url for one in (site, *others)]).walk()
                title("Done")
            else:
                serve(site, store)


def serve(site: Site, store: Store) -> None:
    """Serve until Ctrl-C; on a terminal, each Enter rotates the payment provider's key."""
    print(f"\n   {site.url}/checkout/ shows a signature; Ctrl-C ends the demo.")
    print(f"   {site.url}{admin.ADMIN} shows what is held: {admin.USERNAME}, {admin.PASSWORD}.")
    if sys.stdin.isatty():
        print("   Press Enter to rotate the key, and reload the page.\n", flush=True)
        for _ in sys.stdin:
            store.rotate("shop-stripe", "api_key")
            done(f"rotated; the page follows within {TTL:g} s")
    site.wait()


@contextlib.contextmanager
def shown_on_failure(log: IO[bytes] | None) -> Iterator[None]:
    try:
        yield
    except BaseException:
        if log is not None:
            log.seek(0)
            sys.stderr.write(log.read().decode(errors="replace"))
        raise


if __name__ == "__main__":
    sys.exit(main())
