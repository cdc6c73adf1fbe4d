"""How the admin's pages show a state, a moment and a span of time.

A state is a word with a mark and a colour; a moment is relative to now, with the exact time in a
tooltip, and goes on while the page is open (``admin.js``).
"""

from __future__ import annotations

from datetime import UTC, datetime

from django.utils import dateformat
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timezone import localtime
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext_lazy, pgettext_lazy

#: What a state is called. In a context of its own: the app is listed first, and its word would win
#: over that of an address.
STATE = pgettext_lazy("of what is cached", "state")

#: What stands where there is nothing to show.
NOTHING = "-"

#: Longer texts are cut in a list; the ids of versions at AWS have 36 characters.
_WHOLE, _HEAD = 12, 8

#: Of each state: its tone (a class of the style sheet), its mark, its word.
STATES = {
    "fresh": ("good", "●", _("fresh")),
    "due": ("busy", "◐", _("due")),
    "loading": ("busy", "◌", _("loading")),
    "stale": ("warning", "▲", _("stale")),
    "expired": ("bad", "✕", _("expired")),
    "refused": ("warning", "∅", _("refused")),
    "absent": ("quiet", "○", _("absent")),
    "built": ("good", "●", _("built")),
    "failed": ("bad", "✕", _("failed")),
    "live": ("good", "●", _("live")),
    "blind": ("warning", "▲", _("blind")),
    "unbuilt": ("quiet", "○", _("not built")),
}

#: Why the last attempt brought nothing.
STATUSES = {
    "not_found": _("not found"),
    "denied": _("denied"),
    "unavailable": _("unavailable"),
    "error": _("error"),
}

# English as browsers write it, so that the script changes no word of it.
_RELATIVE = (
    (86400, ngettext_lazy("in %d day", "in %d days"), ngettext_lazy("%d day ago", "%d days ago")),
    (
        3600,
        ngettext_lazy("in %d hour", "in %d hours"),
        ngettext_lazy("%d hour ago", "%d hours ago"),
    ),
    (
        60,
        ngettext_lazy("in %d minute", "in %d minutes"),
        ngettext_lazy("%d minute ago", "%d minutes ago"),
    ),
    (
        1,
        ngettext_lazy("in %d second", "in %d seconds"),
        ngettext_lazy("%d second ago", "%d seconds ago"),
    ),
)


def state(word: str, detail: str = "", *, failing: bool = False) -> SafeString:
    """Return the badge of a state; ``failing``: a reader gets an error, whatever the word."""
    tone, mark, label = STATES[word]
    if failing:
        tone, mark = "bad", "✕"
    badge = format_html(
        '<span class="secret-registry-badge secret-registry-{}">'
        '<span aria-hidden="true">{}</span> {}</span>',
        tone,
        mark,
        label,
    )
    if not detail:
        return badge
    return format_html('{}<br><span class="secret-registry-detail">{}</span>', badge, detail)


def shortened(text: str) -> str:
    """Return ``text`` for a column of a list: a long one is cut, and stands whole in a tooltip."""
    if len(text) <= _WHOLE:
        return text
    return format_html('<span title="{}">{}…</span>', text, text[:_HEAD])


def moment(at: float | None, now: float, *, past: object = "") -> SafeString | None:
    """Return the time ``at`` (POSIX seconds) relative to ``now``, or ``past`` when it is over."""
    if at is None:
        return None
    when = datetime.fromtimestamp(at, UTC)
    relative = _relative(at - now)
    return format_html(
        '<time datetime="{}" title="{}"{}>{}</time>',
        when.isoformat(timespec="milliseconds"),
        exact(at),
        format_html(' data-past="{}"', past) if past else "",
        past if past and at <= now else relative,
    )


def exact(at: float) -> str:
    """Return the time ``at`` (POSIX seconds) to the second, in the current time zone."""
    return dateformat.format(localtime(datetime.fromtimestamp(at, UTC)), "Y-m-d H:i:s T")


def full_moment(at: float | None, now: float, *, past: object = "") -> str:
    """Return the relative and the exact time side by side, for a page that has room for both."""
    if at is None:
        return NOTHING
    return format_html("{} ({})", moment(at, now, past=past), exact(at))


def _relative(seconds: float) -> str:
    fits = (unit for unit in _RELATIVE if abs(seconds) >= unit[0])
    size, ahead, ago = next(fits, _RELATIVE[-1])
    return str((ahead if seconds > 0 else ago) % int(abs(seconds) / size))


def span(seconds: float | None, *, units: int = 2) -> str:
    """Return a duration in its so many largest units."""
    if seconds is None:
        return NOTHING
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = (
        (days, _("%d d")),
        (hours, _("%d h")),
        (minutes, _("%d min")),
        (rest, _("%d s")),
    )
    shown = [str(text % count) for count, text in parts if count]
    return " ".join(shown[:units]) or str(_("%d s") % 0)
