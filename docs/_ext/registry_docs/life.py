"""Draws the life of an entry, light and dark. The thresholds are those of the defaults.

``PYTHONPATH=docs/_ext python -m registry_docs.life`` writes both pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

from django_secret_registry.lifecycle import CachePolicy

PICTURES = Path(__file__).resolve().parents[2] / "pictures"
#: What is seen: nothing is drawn above ``ABOVE``.
WIDTH, HEIGHT, ABOVE = 880, 372, 35
#: The bar of the ages: where it lies, and how high it is.
TOP, THICK = 110, 46


class Palette(NamedTuple):
    """Colours; each has a contrast of 4.5 or more to the text on it."""

    text: str
    line: str
    box: str
    states: dict[str, str]


PALETTES = {
    "light": Palette(
        "#1f2328",
        "#57606a",
        "#f0f2f5",
        {"fresh": "#c9f2d3", "due": "#d3ebff", "stale": "#fff1b8", "expired": "#ffd9d6"},
    ),
    "dark": Palette(
        "#e6edf3",
        "#9aa4af",
        "#2b313a",
        {"fresh": "#17452a", "due": "#12395c", "stale": "#4d3c00", "expired": "#5c1d22"},
    ),
}
#: Each state of age: where it begins and ends, what readers get, and what happens meanwhile.
AGES = {
    "fresh": (300, 500, ("the value, at once",), ("nothing is fetched",)),
    "due": (500, 610, ("the value,", "at once"), ("one refresh", "in the", "background")),
    "stale": (
        610,
        770,
        ("the value; the first", "reader waits for", "SOFT_TIMEOUT at most"),
        ("refreshes, backing off", "while they fail"),
    ),
    "expired": (770, 865, ("an error", "that says", "why"), ("as if absent",)),
}


def picture(scheme: str) -> str:
    """Return the drawing in one of :data:`PALETTES`, as SVG."""
    palette = PALETTES[scheme]
    body = "\n".join(_parts(palette, CachePolicy()))
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 {ABOVE} {WIDTH} {HEIGHT}" \
width="{WIDTH}" height="{HEIGHT}" role="img" aria-labelledby="title" \
font-family="system-ui, sans-serif" font-size="13" fill="{palette.text}">
<title id="title">The life of an entry: {", ".join(("absent", "loading", *AGES, "refused"))}</title>
<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" \
orient="auto-start-reverse"><path d="M0 0 L10 5 L0 10 z" fill="{palette.line}"/></marker></defs>
{body}
</svg>
"""


def _parts(palette: Palette, policy: CachePolicy) -> Iterator[str]:
    middle = TOP + THICK // 2
    yield _box(palette, "absent", 15, TOP, 80)
    yield _box(palette, "loading", 165, TOP, 85)
    yield _box(palette, "refused", 165, 255, 85)
    yield _arrow(palette, f"M95 {middle} H163")
    yield _lines(129, TOP - 14, ("first", "read"), size=12)
    yield _arrow(palette, f"M250 {middle} H298")
    yield _lines(274, middle - 8, ("value",), size=12)
    yield _arrow(palette, f"M207 {TOP + THICK} V253")
    yield _lines(200, 190, ("confirmed", "“not found”"), size=12, anchor="end")
    yield _lines(207, 320, ("remembered for NEGATIVE_TTL,", "doubled up to TTL"), size=12)
    ends = {
        300: ("fetched", "0 s"),
        500: ("REFRESH_AHEAD × TTL", f"{policy.refresh_ahead * policy.ttl:,.0f} s"),
        610: ("TTL", f"{policy.ttl:,.0f} s"),
        770: ("TTL + MAX_STALE", f"{policy.ttl + policy.max_stale:,.0f} s"),
    }
    for x, (what, when) in ends.items():
        yield _arrow(palette, f"M{x} {TOP - 26} V{TOP - 2}", tip=False)
        yield _lines(x, TOP - 50, (what, when), size=12)
    for state, (start, end, readers, meanwhile) in AGES.items():
        centre = (start + end) / 2
        yield _box(palette, state, start, TOP, end - start)
        yield _lines(centre, 204, readers)
        yield _lines(centre, 274, meanwhile)
    yield _lines(292, 184, ("a reader gets",), size=11, anchor="start", weight="bold")
    yield _lines(292, 252, ("behind it",), size=11, anchor="start", weight="bold")
    yield _arrow(palette, "M690 312 V340 H400 V290")
    yield _arrow(palette, "M555 312 V340", tip=False)
    yield _lines(478, 333, ("a refresh brought a value",), size=12)
    yield _arrow(palette, f"M865 {middle} H872 V380 H55 V{TOP + THICK + 2}")
    yield _lines(460, 398, ("evict, from any state: forgotten at once",), size=12)


def _box(palette: Palette, name: str, x: float, y: float, width: float) -> str:
    text = _lines(x + width / 2, y + THICK / 2 + 5, (name,), weight="bold", size=14)
    fill = palette.states.get(name, palette.box)
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{THICK}" rx="5" fill="{fill}"'
        f' stroke="{palette.line}"/>{text}'
    )


def _lines(
    x: float,
    y: float,
    lines: tuple[str, ...],
    *,
    size: int = 12,
    anchor: str = "middle",
    weight: str = "normal",
) -> str:
    spans = "".join(
        f'<tspan x="{x:g}" y="{y + 16 * number:g}">{escape(line)}</tspan>'
        for number, line in enumerate(lines)
    )
    return f'<text text-anchor="{anchor}" font-size="{size}" font-weight="{weight}">{spans}</text>'


def _arrow(palette: Palette, path: str, *, tip: bool = True) -> str:
    end = ' marker-end="url(#tip)"' if tip else ""
    return f'<path d="{path}" fill="none" stroke="{palette.line}"{end}/>'


if __name__ == "__main__":
    for scheme in PALETTES:
        (PICTURES / f"life-{scheme}.svg").write_text(picture(scheme), encoding="utf-8")
