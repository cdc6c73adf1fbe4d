"""The admin pages where there is a fleet: what all workers hold, and one click for all of them."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry

from django_secret_registry import registry as public
from django_secret_registry.events import FleetAcknowledged
from tests.admin_support import PROVIDERS, SECRETS, selection, url, user
from tests.canary import CANARY
from tests.scripted import until
from tests.servers import redis as redis_server
from tests.servers.process import free_port
from tests.test_fleet_commands import BUS, held, project, store, workers

redis_session, redis = redis_server.redis_session, redis_server.redis
__all__ = ["project", "store", "workers"]

pytestmark = [pytest.mark.django_db, pytest.mark.full]

WORKERS = "worker"
DB = "file://db"
ALL = (
    *("view_cachedsecret", "refresh_cachedsecret", "evict_cachedsecret"),
    *("view_cachedprovider", "refresh_cachedprovider", "evict_cachedprovider"),
    *("view_worker", "refresh_worker", "evict_worker"),
)


@pytest.fixture
def operator(client: Any, project: Any) -> Any:
    public.start()  # as its first request does; it is a worker of four
    until(lambda: public.fleet.joined)
    until(lambda: public.fleet.name in [one.name for one in public.fleet.workers()])
    client.force_login(user("operator", *ALL))
    return client


def text(response: Any) -> str:
    assert response.status_code == 200
    content = response.content.decode()
    assert CANARY not in content
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", content)).split())


def applied(operator: Any, response: Any, *, by: str = "4 of 4 applied.") -> None:
    """Wait until the page that an action leads to says how many have applied it."""
    assert "How far the fleet has come" in text(response)
    page = response.request["PATH_INFO"] + "?" + response.request["QUERY_STRING"]
    until(lambda: by in text(operator.get(page)))


def reported(*names: str) -> None:
    """Wait until three workers have told that it holds these."""

    def told() -> bool:
        public.fleet.send("evict", [("file", "", "", f"nothing-{len(names)}")])
        holding = [one for one in public.fleet.workers() if set(names) <= set(one.secrets)]
        return len(holding) >= 3

    until(told)


def test_the_list_of_secrets_shows_who_holds_which_version(operator, workers):
    """Per secret: how many workers hold it, and in which versions."""
    for registry in workers:
        registry.get("db")
    reported(DB)
    shown = text(operator.get(url(SECRETS)))
    assert "The fleet has 4 workers, 0 blind" in shown
    assert "3 / 4" in shown
    page = text(operator.get(url(SECRETS, "change/", DB)))
    assert "3 / 4" in page
    assert "3 ×" in page
    assert "they differ" not in page


def test_different_versions_of_a_secret_are_shown_as_such(operator, workers, store):
    """Two workers that disagree are what an operator has to see."""
    workers[0].get("db")
    workers[1].get("db")
    (store / "db").unlink()
    (store / "db").write_text(f"{CANARY}-other")
    workers[2].get("db")
    reported(DB)
    assert "they differ" in text(operator.get(url(SECRETS)))
    assert "they differ" in text(operator.get(url(SECRETS, "change/", DB)))


def test_a_click_evicts_in_every_worker_and_says_so(operator, workers):
    """The message counts the workers that have applied it; the audit log names the secret."""
    for registry in workers:
        registry.get("db")
    told: list[Any] = []
    untold = public.events.subscribe(
        lambda event: told.append(event) if isinstance(event, FleetAcknowledged) else None
    )
    question = text(operator.get(url(SECRETS, "evict/", DB)))
    assert "Every worker forgets each at once" in question
    answer = operator.post(url(SECRETS, "evict/", DB), {"confirmed": "yes"}, follow=True)
    assert "Evicted 1 cached secret." in text(answer)
    applied(operator, answer)
    until(lambda: len(told) == 1)  # for the metrics, though nobody waited in the request
    untold()
    assert [held(registry) for registry in workers] == [set()] * 3
    assert LogEntry.objects.get().object_repr == DB


def test_a_refresh_reaches_every_worker(operator, workers, store):
    """This process fetches first; the others follow within a second."""
    for registry in workers:
        registry.get("db")
    (store / "db").write_text(f"{CANARY}-new")
    form = selection("refresh", [DB], confirmed="yes")
    applied(operator, operator.post(url(SECRETS), form, follow=True))
    until(lambda: {registry.get("db") for registry in workers} == {f"{CANARY}-new"})


def test_the_list_of_providers_shows_who_holds_their_secrets(operator, workers):
    """An eviction there empties every worker of what the provider fetched."""
    for registry in workers[:2]:
        registry.get("db")
    public.fleet.send("evict", [("file", "", "", "nothing")])
    until(lambda: sum(DB in one.secrets for one in public.fleet.workers()) == 2)
    assert "2 / 4" in text(operator.get(url(PROVIDERS)))
    operator.post(url(PROVIDERS, "evict/", "file@-"), {"confirmed": "yes"})
    until(lambda: [held(registry) for registry in workers] == [set()] * 3)


def test_the_list_of_workers_shows_every_process(operator, workers):
    """Name, state, lag and what it holds; a page for each."""
    workers[0].get("db")
    public.fleet.send("evict", [("file", "", "", "nothing")])
    until(lambda: any(one.secrets for one in public.fleet.workers()))
    shown = text(operator.get(url(WORKERS)))
    for registry in workers:
        assert registry.fleet.name in shown
    assert shown.count("live") >= 3
    page = text(operator.get(url(WORKERS, "change/", workers[0].fleet.name)))
    assert DB in page
    assert operator.get(url(WORKERS, "change/", "nobody")).status_code == 404


def test_one_click_empties_all_workers(operator, workers):
    """Everything everywhere, once it is confirmed."""
    for registry in workers:
        registry.get("db")
        registry.get("key")
    question = text(operator.get(url(WORKERS, "evict-all/")))
    assert "Evict every secret and every client of every worker?" in question
    applied(operator, operator.post(url(WORKERS, "evict-all/"), {"confirmed": "yes"}, follow=True))
    assert [held(registry) for registry in workers] == [set()] * 3


def test_what_only_another_worker_holds_is_listed_and_fetched_by_nobody_else(
    operator, workers, store
):
    """It can be evicted and refreshed there; a report cannot have this process fetch a name."""
    extra = "file://extra"
    (store / "extra").write_text(CANARY)
    workers[0].get(extra)
    with public.fleet._link.shared() as bus:
        fields = dict(next(iter(bus.workers())).fields)
        facts = json.dumps(["v1", 1, 2, 3, 0, ""])
        fields |= dict.fromkeys(("file://forged", "nowhere://x", "no reference at all"), facts)
        bus.heartbeat("forger:1:x", fields, lifetime=60, anew=True)
    public.fleet.send("evict", [("file", "", "", "nothing")])
    until(lambda: extra in text(operator.get(url(SECRETS))))
    shown = text(operator.get(url(SECRETS)))
    assert "file://forged" in shown
    assert "nowhere://x" not in shown
    assert "no reference" not in shown
    assert "absent" in text(operator.get(url(SECRETS, "change/", extra)))
    for name in (extra, "file://forged"):
        operator.post(url(SECRETS, "refresh/", name), {"confirmed": "yes"})
    assert held(public) == set()
    applied(
        operator,
        operator.post(url(SECRETS, "evict/", extra), {"confirmed": "yes"}, follow=True),
        by="4 of ",
    )
    until(lambda: held(workers[0]) == set())


def test_one_click_warms_all_workers(operator, workers):
    """Each fetches what its settings name and it does not hold; so does the one that is asked."""
    workers[0].get("db")
    question = text(operator.get(url(WORKERS, "refresh-all/")))
    assert "Refresh what settings name in every worker?" in question
    answer = operator.post(url(WORKERS, "refresh-all/"), {"confirmed": "yes"}, follow=True)
    applied(operator, answer)
    until(lambda: [held(registry) for registry in (*workers, public)] == [{"db", "key"}] * 4)
    assert LogEntry.objects.get().object_repr == "what settings name in every worker"


# -- how far an action has come ------------------------------------------------------------------


def test_the_page_of_an_action_follows_those_that_are_late_and_tells_who_is_blind(
    operator, workers
):
    """A worker that hangs is waited for, and one that is blind is not."""
    with public.fleet._link.shared() as bus:
        head = json.loads(next(iter(bus.workers())).fields[""])
        late, blind = {**head, "cursor": None}, {**head, "cursor": None, "blind": True}
        bus.heartbeat("late:1:x", {"": json.dumps(late)}, lifetime=60, anew=True)
        bus.heartbeat("blind:1:x", {"": json.dumps(blind)}, lifetime=60, anew=True)
    sent = public.fleet.tell("evict", DB)
    page = url(SECRETS, "applied/", log=sent.last.log, number=str(sent.last.number))

    def said() -> dict[str, Any]:
        found: dict[str, Any] = operator.get(f"{page}&format=json").json()
        return found

    until(lambda: said()["applied"] == 4)
    assert said() == {
        "text": "4 of 6 applied, 1 blind, 1 to come.",
        "over": False, "total": 6, "applied": 4, "blind": 1,
    }  # fmt: skip
    shown = operator.get(page)
    assert "4 of 6 applied, 1 blind, 1 to come." in text(shown)
    assert "Look again" in text(shown)
    with public.fleet._link.shared() as bus:
        bus.heartbeat(
            "late:1:x",
            {"": json.dumps({**head, "blind": True, "cursor": None})},
            lifetime=60,
            anew=True,
        )
    assert said()["over"]
    shown = operator.get(page)
    assert "Look again" not in text(shown)
    assert "data-poll" not in shown.content.decode()


@pytest.mark.parametrize(
    "query",
    [{}, {"log": "x"}, {"log": "x", "number": "-1"}, {"log": "x", "number": "9" * 30},
     {"log": "x", "number": "<script>"}],
)  # fmt: skip
def test_a_place_that_no_log_has_is_not_found(operator, query):
    """Nothing is looked up for it."""
    assert operator.get(url(SECRETS, "applied/", **query)).status_code == 404


@pytest.mark.parametrize(
    ("back", "leads"),
    [
        (url(SECRETS, state="fresh"), url(SECRETS, state="fresh")),
        ("https://evil.example/", url(SECRETS)),
        ("//evil.example/", url(SECRETS)),
        ("javascript:alert(1)", url(SECRETS)),
        ("\\evil.example", url(SECRETS)),
        ("", url(SECRETS)),
    ],
)
def test_the_page_of_an_action_leads_to_our_own_pages_only(operator, back, leads):
    """A link that somebody sends leads an operator nowhere else."""
    page = url(SECRETS, "applied/", log="x", number="1", back=back)
    assert (
        f'<a href="{html.escape(leads)}" class="button secret-registry-no">'
        in operator.get(page).content.decode()
    )


def test_the_page_of_an_action_is_shown_to_who_may_view(client, workers):
    """Numbers of the fleet are for those who see the list."""
    page = url(SECRETS, "applied/", log="x", number="1")
    client.force_login(user("other", "view_worker"))
    assert client.get(page).status_code == 403
    assert client.get(f"{page}&format=json").status_code == 403
    client.force_login(user("viewer", "view_cachedsecret"))
    assert client.get(page).status_code == 200
    client.logout()
    assert client.get(f"{page}&format=json").status_code == 302


@pytest.mark.parametrize("permission", ["view_cachedsecret", "evict_cachedsecret", "evict_worker"])
def test_each_permission_is_asked_for(client, workers, permission):
    """Who may not see workers sees none; who may only see them evicts nothing."""
    client.force_login(user("other", permission))
    assert client.get(url(WORKERS)).status_code == 403
    assert client.post(url(WORKERS, "evict-all/"), {"confirmed": "yes"}).status_code == 403
    client.force_login(user("viewer", "view_worker"))
    assert "all/" not in client.get(url(WORKERS)).content.decode()
    for page in ("evict-all/", "refresh-all/"):
        assert client.post(url(WORKERS, page), {"confirmed": "yes"}).status_code == 403
    client.force_login(user("refresher", "view_worker", "refresh_worker"))
    assert client.get(url(WORKERS, "refresh-all/")).status_code == 200
    assert client.post(url(WORKERS, "evict-all/"), {"confirmed": "yes"}).status_code == 403


def test_a_bus_that_is_down_is_said_on_every_page(client, project):
    """The pages work, show this process, and say that the others cannot be told."""
    project.SECRET_REGISTRY = {
        **project.SECRET_REGISTRY,
        "FLEET": {"BACKEND": BUS, "OPTIONS": {"url": f"redis://127.0.0.1:{free_port()}"}},
    }
    client.force_login(user("operator", *ALL))
    public.get("db")
    for model in (SECRETS, PROVIDERS, WORKERS):
        assert "the others cannot be told" in text(client.get(url(model)))
    progress = client.get(url(SECRETS, "applied/", log="x", number="1"))
    assert "The bus does not answer" in text(progress)
    assert "data-poll" in progress.content.decode()  # it may be back before an operator is
    answer = text(client.post(url(SECRETS, "evict/", DB), {"confirmed": "yes"}, follow=True))
    assert "the bus does not answer" in answer
    assert held(public) == set()


def test_without_a_fleet_there_are_no_workers(client, settings):
    """The page is there and empty; nothing can be done on it."""
    settings.SECRET_REGISTRY = {"PROVIDERS": {}}
    client.force_login(user("operator", *ALL))
    assert client.get(url(WORKERS)).status_code == 200
    assert client.post(url(WORKERS, "evict-all/"), {"confirmed": "yes"}).status_code == 403
    assert client.get(url(SECRETS, "applied/", log="x", number="1")).status_code == 404
