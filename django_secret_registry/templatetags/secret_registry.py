"""``{% load secret_registry %}{% secret "maps_key" %}``: entries that templates may show."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from django.template import Library, Node, TemplateSyntaxError
from django.utils.html import escape

from .. import registry
from ..exceptions import SecretNotExposed
from ..specs import Derived

if TYPE_CHECKING:
    from django.template.base import FilterExpression, Parser, Token
    from django.template.context import Context

register = Library()


class SecretNode(Node):
    """Renders an entry, or stores it under ``target`` in the context.

    Nothing of the value stays in the node: templates are kept for the life of the process, and an
    evicted secret must not be. The registry keeps the escaped text, as long as the value itself.
    """

    def __init__(self, name: FilterExpression, target: str | None) -> None:
        self.name = name
        self.target = target
        literal = None if name.is_var or name.filters else name.var
        self.literal = str(literal) if isinstance(literal, str) else None

    def render(self, context: Context) -> str:
        name = self.literal
        if name is None:
            name = self.name.resolve(context, ignore_failures=True)
        # The policy is looked up each time, because settings may be overridden.
        entry = registry.config.entries.get(name) if isinstance(name, str) else None
        if entry is None or not entry.templates:
            # What a variable holds is not shown, nor text that names no entry: it may be a secret
            # that was passed by mistake.
            quoted = '"' in self.name.token or "'" in self.name.token
            shown = "..." if quoted and entry is None else self.name.token
            raise SecretNotExposed(
                f"{{% secret {shown} %}} asks for what templates may not show",
                reference=entry.name if entry is not None else "",
                hint='Only an entry of SECRETS with "TEMPLATES": True may be rendered.',
            )
        if self.target is not None:
            context[self.target] = registry.get(entry.name)
            return ""
        text: str = registry.get((_escaped if context.autoescape else _plain)(entry.name))
        return text


def _text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    raise SecretNotExposed(
        f"the entry {name!r} is no text and cannot be rendered as it is",
        hint=f'Write {{% secret "{name}" as x %}} and render a part of x.',
    )


# One of each per entry: what they are made of is cached under them.
@functools.cache
def _plain(name: str) -> Derived:
    return Derived(name, (functools.partial(_text, name),))


@functools.cache
def _escaped(name: str) -> Derived:
    return Derived(name, (functools.partial(_text, name), escape))


@register.tag("secret")
def compile_secret(parser: Parser, token: Token) -> SecretNode:
    """``{% secret name %}`` renders an entry of ``SECRETS``; ``{% secret name as x %}`` stores it.

    ``name`` is a literal or a variable. The entry must have ``"TEMPLATES": True``, else
    :class:`SecretNotExposed` is raised. What is rendered is escaped unless autoescape is off; what
    is stored is not, it is escaped where it is rendered. An entry with a MAP gives a dict.
    """
    bits = token.split_contents()
    target = None
    if len(bits) == 4 and bits[2] == "as":
        target = bits[3]
    elif len(bits) != 2:
        raise TemplateSyntaxError(f'{bits[0]!r} is written {{% {bits[0]} "entry" [as variable] %}}')
    return SecretNode(parser.compile_filter(bits[1]), target)
