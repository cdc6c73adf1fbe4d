"""The tables of the reference, made of the code itself: nothing here is written by hand.

What a row says comes from the code's own comments: those that begin with ``#:`` above a key, or
that stand behind a member. A key without one stops the build.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import pkgutil
import tokenize
from collections.abc import Callable, Iterable, Iterator, Mapping
from io import StringIO
from types import ModuleType
from typing import Any

from django.apps import apps as django_apps
from django.core.management import load_command_class
from django.core.management.base import BaseCommand

import django_secret_registry
from django_secret_registry import BaseProvider, conf, exceptions, fleet, metrics, providers, rules
from django_secret_registry import __main__ as program
from django_secret_registry.fleet.bus import Bus
from django_secret_registry.lifecycle import CachePolicy, status_of
from django_secret_registry.management import commands as command_modules
from django_secret_registry.provider_cache import ProviderSpec
from django_secret_registry.residency import Residency
from django_secret_registry.resolver import SecretRegistry
from django_secret_registry.specs import EntrySpec, FleetSpec, RegistryConfig

APP = "django_secret_registry"
LEVELS = {"E": "error", "W": "warning", "I": "info"}
#: The levels of the setting: in which table its keys stand, and where their defaults.
SETTINGS: Mapping[str, tuple[str, tuple[Any, ...]]] = {
    "SECRET_REGISTRY": ("REGISTRY", (RegistryConfig,)),
    "An alias in PROVIDERS": ("PROVIDER", (ProviderSpec, Residency)),
    "An entry in SECRETS": ("ENTRY", (EntrySpec, Residency)),
    "CACHE": ("CACHE", (CachePolicy,)),
    "FLEET": ("FLEET", (FleetSpec,)),
}
#: What Django gives to every command.
_OF_DJANGO = BaseCommand().create_parser("manage.py", "any")


def checks() -> str:
    """Return the table of the system checks."""
    meanings = comments(conf)
    rows = []
    for one in conf.Id:
        level = LEVELS[one.value.rpartition(".")[2][0]]
        rows.append((f"`{one.value}`", level, meanings["Id", one.name]))
    return _table(("id", "level", "what it finds"), rows)


def settings() -> str:
    """Return a table for each level of the setting."""
    meanings = comments(rules)
    parts = []
    for title, (table, defaults) in SETTINGS.items():
        rows = [
            (
                f"`{key}`",
                meanings[table, key],
                rule.expected,
                _default(key, defaults),
            )
            for key, rule in getattr(rules, table).items()
        ]
        heading = f"## {_code(title)}"
        parts.append(f"{heading}\n\n{_table(('key', 'what it is for', 'value', 'default'), rows)}")
    return "\n".join(parts)


def _code(title: str) -> str:
    return " ".join(f"`{word}`" if word.isupper() else word for word in title.split())


def _default(key: str, defaults: Iterable[Any]) -> str:
    name = "policy" if key == "RESIDENCY" else key.lower()
    for kind in defaults:
        value = kind._field_defaults.get(name)
        if isinstance(value, bool):
            return f"`{value}`"
        if isinstance(value, int | float):
            return f"`{value:g}`"
        if value and isinstance(value, str):
            return f'`"{value}"`'
    return "–"


def metrics_() -> str:
    """Return the table of the metrics, and one of the words that stand under their labels."""
    from prometheus_client import CollectorRegistry

    into, source = CollectorRegistry(), SecretRegistry()
    source.configure(RegistryConfig(providers={"any": ProviderSpec("any", f"{APP}.BaseProvider")}))
    made = metrics.Metrics(source, into)
    made.create()
    words: dict[tuple[str, str], list[str]] = {}
    for family in into.collect():
        for sample in family.samples:
            for label, word in sample.labels.items():
                if label not in ("provider", "region", "le"):
                    words.setdefault((family.name, label), []).append(word)
    rows = []
    for family, labels in _families(made):
        suffix = "_total" if family.type == "counter" else ""
        shown = []
        for label in labels:
            seen = dict.fromkeys(words.get((family.name, label), ()))
            shown.append(f"`{label}`" + (f": {', '.join(map(_word, seen))}" if seen else ""))
        name = f"`{family.name}{suffix}`"
        rows.append((name, family.type, "; ".join(shown) or "–", family.documentation))
    return _table(("metric", "type", "labels", "what it says"), rows)


def _families(made: metrics.Metrics) -> Iterator[tuple[Any, tuple[str, ...]]]:
    for collector in vars(made).values():
        if hasattr(collector, "_labelnames"):  # the client has no public name for them
            for family in collector.describe():
                yield family, collector._labelnames


def commands() -> str:
    """Return for each command what it does, and its arguments."""
    parts = []
    for _, name, _ in sorted(pkgutil.iter_modules(command_modules.__path__)):
        parser = load_command_class(APP, name).create_parser("manage.py", name)
        parts.append(f"## `manage.py {name}`\n\n{_plain(parser.description)}\n")
        parts += _arguments(parser, f"manage.py {name}")
    parts.append("## `python -m django_secret_registry`\n")
    parts += _arguments(program._parser(), "python -m django_secret_registry")
    return "\n".join(parts)


def _arguments(parser: argparse.ArgumentParser, name: str) -> Iterator[str]:
    known = {option for action in _OF_DJANGO._actions for option in action.option_strings}
    rows = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {one.dest: one.help for one in action._choices_actions}
            for choice, sub in action.choices.items():
                yield f"### `{name} {choice}`\n\n{_plain(helps[choice])}\n"
                yield from _arguments(sub, f"{name} {choice}")
        elif not known.intersection(action.option_strings):
            spelled = ", ".join(action.option_strings) or str(action.metavar or action.dest)
            if action.option_strings and action.nargs != 0:
                values = "|".join(map(str, action.choices or ()))
                spelled += f" {action.metavar or values or action.dest.upper()}"
            text = (action.help or "") % {**vars(action), "prog": parser.prog}
            rows.append((f"`{spelled}`", _plain(text)))
    if rows:
        yield _table(("argument", "what it does"), rows)


def errors() -> str:
    """Return the table of the errors."""
    rows = []
    for kind in vars(exceptions).values():
        if isinstance(kind, type) and issubclass(kind, exceptions.SecretError):
            counted = status_of(kind("")) if kind is not exceptions.SecretError else ""
            parents = ", ".join(f"`{parent.__name__}`" for parent in kind.__bases__)
            meaning = _first_paragraph(kind)
            rows.append(
                (f"`{kind.__name__}`", parents, meaning, f"`{counted}`" if counted else "–")
            )
    return _table(("error", "is a", "what it says", "counted as"), rows)


def backends() -> str:
    """Return the table of the backends: what each is given, needs and understands."""
    rows = []
    for path, kind in _classes(providers, BaseProvider):
        parameters = inspect.signature(kind).parameters.values()
        options = [
            f"`{one.name}`"
            for one in parameters
            if one.name not in ("alias", "region", "members") and one.kind is not one.VAR_KEYWORD
        ]
        accepts = [f"`{word}`" for word in ("project", "version", "stage") if word in kind.accepts]
        rows.append(
            (
                f"`{path}`",
                ", ".join(options) or "–",
                ", ".join(accepts) or "–",
                str(kind.batch_size) if kind.batch_size > 1 else "–",
                ", ".join(kind.requires) or "–",
            )
        )
    heads = ("BACKEND", "OPTIONS", "a reference may carry", "in one call", "needs")
    return _table(heads, rows)


def buses() -> str:
    """Return the table of the buses."""
    rows = [
        (
            f"`{path}`",
            ", ".join(f"`{name}`" for name in inspect.signature(kind).parameters),
            ", ".join(kind.requires) or "–",
        )
        for path, kind in _classes(fleet, Bus)
    ]
    return _table(("BACKEND", "OPTIONS", "needs"), rows)


def _classes(package: ModuleType, base: type[Any]) -> Iterator[tuple[str, Any]]:
    """Yield the public subclasses of ``base``, each with the path that settings name."""
    for _, name, _ in sorted(pkgutil.iter_modules(package.__path__)):
        if name.startswith("_") or name == base.__module__.rpartition(".")[2]:
            continue
        module = importlib.import_module(f"{package.__name__}.{name}")
        for kind in vars(module).values():
            exported = getattr(kind, "__name__", "") in getattr(module, "__all__", ())
            own = getattr(kind, "__module__", "") == module.__name__
            if isinstance(kind, type) and issubclass(kind, base) and (own or exported):
                yield f"{module.__name__}.{kind.__name__}", kind


def permissions() -> str:
    """Return the table of the admin's permissions."""
    rows = []
    for model in django_apps.get_app_config(APP).get_models():
        own = dict(model._meta.permissions)
        names = [f"{action}_{model._meta.model_name}" for action in model._meta.default_permissions]
        page = str(model._meta.verbose_name_plural).capitalize()
        if own:
            cells = (", ".join(f"`{name}`" for name in (*names, *own)), page)
            rows.append(cells)
    return _table(("permissions", "of the page"), rows)


def public_names() -> str:
    """Return the documentation of each public name, for ``autodoc``."""
    lines = ["```{eval-rst}"]
    # What a project writes comes first, then what it gets, then what it may catch.
    for name in sorted(django_secret_registry.__all__, key=_place):
        kind = getattr(django_secret_registry, name)
        if isinstance(kind, type) and issubclass(kind, exceptions.SecretError):
            lines += [f".. autoexception:: {APP}.{name}", "   :show-inheritance:", ""]
        elif isinstance(kind, type):
            lines += [f".. autoclass:: {APP}.{name}", "   :members:", ""]
        elif callable(kind):
            lines += [f".. autofunction:: {APP}.{name}", ""]
        else:
            lines += [f".. autodata:: {APP}.{name}", "   :no-value:", ""]
    return "\n".join([*lines, "```", ""])


def _place(name: str) -> tuple[bool, bool, str]:
    kind = getattr(django_secret_registry, name)
    is_class = isinstance(kind, type)
    return is_class, is_class and issubclass(kind, exceptions.SecretError), name.lower()


#: What a page may ask for.
TABLES: Mapping[str, Callable[[], str]] = {
    "backends": backends,
    "buses": buses,
    "checks": checks,
    "commands": commands,
    "errors": errors,
    "metrics": metrics_,
    "permissions": permissions,
    "public-names": public_names,
    "settings": settings,
}


def comments(module: ModuleType) -> dict[tuple[str, str], str]:
    """Return the comment of each key of a dict, and of each member of a class, of a module.

    A key that comes from another dict (``**OTHER``) has that one's.
    """
    source = inspect.getsource(module)
    written = {}
    for token in tokenize.generate_tokens(StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            is_above = token.string.startswith("#:") and token.line.strip() == token.string
            written[token.start[0] + is_above] = token.string.lstrip("#: ")
    found: dict[tuple[str, str], str] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            for name, line in _members(node):
                _keep(found, (node.name, name), written, line)
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            (target,) = node.targets
            table = ast.unparse(target)
            for key, value in zip(node.value.keys, node.value.values, strict=True):
                if key is None:
                    other = ast.unparse(value)
                    known = [(name, text) for (of, name), text in found.items() if of == other]
                    found.update({(table, name): text for name, text in known})
                elif isinstance(key, ast.Constant):
                    _keep(found, (table, str(key.value)), written, key.lineno)
    return found


def _members(node: ast.ClassDef) -> Iterator[tuple[str, int]]:
    for statement in node.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            yield statement.targets[0].id, statement.lineno


def _keep(
    found: dict[tuple[str, str], str],
    name: tuple[str, str],
    written: Mapping[int, str],
    line: int,
) -> None:
    if text := written.get(line):
        found[name] = text[0].upper() + text[1:].rstrip(".") + "."


def _first_paragraph(kind: type) -> str:
    return " ".join((inspect.getdoc(kind) or "").partition("\n\n")[0].split()).replace("``", "`")


def _word(word: str) -> str:
    return f"`{word}`"


def _plain(text: str | None) -> str:
    return " ".join((text or "").split())


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table in Markdown."""
    lines = [tuple(heads)]
    lines.append(tuple("---" for _ in lines[0]))
    lines += [tuple(cell.replace("|", "\\|") for cell in row) for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
