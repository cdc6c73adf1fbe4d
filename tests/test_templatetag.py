"""``{% secret %}``: what templates may show, and how it is escaped."""

from __future__ import annotations

import pytest
from django.template import Context, Template, TemplateSyntaxError
from django.test import override_settings

from django_secret_registry import SecretNotExposed, SecretNotFound, registry
from django_secret_registry.providers.memory import MemoryStore
from django_secret_registry.values import SecretStr
from tests.canary import CANARY, canary

MAPS = canary("maps<&'\">")
USER = canary("user")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(
        {
            "maps": MAPS,
            "hidden": canary("hidden"),
            "smtp": {"user": USER, "password": canary("<password>")},
        }
    )


@pytest.fixture
def config(store, settings):
    config = {
        "PROVIDERS": {
            "memory": {
                "BACKEND": "django_secret_registry.providers.memory.MemoryProvider",
                "OPTIONS": {"secrets": store},
            }
        },
        "SECRETS": {
            "maps_key": {"REF": "memory://maps", "TEMPLATES": True},
            "hidden": "memory://hidden",
            "smtp": {
                "MAP": {"user": "memory://smtp#user", "password": "memory://smtp#password"},
                "TEMPLATES": True,
            },
            "raw": {"REF": "memory://maps?as=bytes", "TEMPLATES": True},
        },
    }
    settings.SECRET_REGISTRY = config
    return config


def compiled(source: str) -> Template:
    return Template("{% load secret_registry %}" + source)


def render(source: str, **context: object) -> str:
    return compiled(source).render(Context(context))


ESCAPED = canary("maps&lt;&amp;&#x27;&quot;&gt;")


@pytest.mark.usefixtures("config")
class TestRendering:
    def test_renders_an_entry_escaped(self):
        """An entry that templates may show is rendered, escaped for HTML."""
        assert render('{% secret "maps_key" %}') == ESCAPED

    def test_renders_raw_without_autoescape(self):
        """Where autoescape is off, as in a text mail, the value is rendered as it is."""
        source = '{% autoescape off %}{% secret "maps_key" %}{% endautoescape %}'
        assert render(source) == MAPS

    def test_stores_unescaped_and_escapes_once(self):
        """``as`` renders nothing and stores the value, which is escaped once where it is shown."""
        assert render('{% secret "maps_key" as key %}[{{ key }}]') == f"[{ESCAPED}]"

    def test_stores_a_masked_str(self):
        """What ``as`` stores is a real ``str`` whose repr does not show it."""
        context = Context()
        compiled('{% secret "maps_key" as key %}').render(context)
        assert type(context["key"]) is SecretStr
        assert context["key"] == MAPS

    @pytest.mark.parametrize("expression", ["name", 'part|add:"_key"', "names.0", "'maps_key'"])
    def test_takes_a_variable(self, expression):
        """The name of the entry may be a variable or any other expression."""
        context = {"name": "maps_key", "part": "maps", "names": ["maps_key"]}
        assert render(f"{{% secret {expression} %}}", **context) == ESCAPED

    def test_gives_a_map_as_a_dict(self):
        """An entry with a MAP is stored as a dict; its members are escaped where they are shown."""
        source = '{% secret "smtp" as smtp %}{{ smtp.user }}|{{ smtp.password }}'
        assert render(source) == f"{USER}|{canary('&lt;password&gt;')}"

    @pytest.mark.parametrize("name", ["smtp", "raw"])
    def test_refuses_to_render_what_is_no_text(self, name):
        """A MAP or bytes rendered without ``as`` is an error that says how to write it."""
        with pytest.raises(SecretNotExposed, match=f'secret "{name}" as x'):
            render(f'{{% secret "{name}" %}}')

    def test_follows_a_rotation(self, store):
        """A compiled template renders the new value once the secret has rotated."""
        template = compiled('{% secret "maps_key" %}')
        template.render(Context())
        store.put("maps", canary("new"))
        registry.refresh("maps_key")
        assert template.render(Context()) == canary("new")

    def test_keeps_nothing_of_an_evicted_secret(self, store):
        """A compiled template does not go on rendering a secret that was deleted and evicted."""
        template = compiled('{% secret "maps_key" %}')
        template.render(Context())
        store.delete("maps")
        registry.evict("maps_key")
        with pytest.raises(SecretNotFound):
            template.render(Context())


@pytest.mark.usefixtures("config")
class TestExposure:
    def test_refuses_an_entry_without_templates(self):
        """An entry without ``"TEMPLATES": True`` raises an error that names the entry."""
        with pytest.raises(SecretNotExposed) as caught:
            render('{% secret "hidden" %}')
        assert caught.value.reference == "hidden"
        assert '"TEMPLATES": True' in str(caught.value)

    @pytest.mark.parametrize(
        "source", ['{% secret "hidden" as x %}', "{% secret name as x %}", "{% secret name %}"]
    )
    def test_refuses_it_however_it_is_asked_for(self, source):
        """Neither ``as`` nor a variable gets round the policy."""
        with pytest.raises(SecretNotExposed):
            render(source, name="hidden")

    @pytest.mark.parametrize("reference", ["memory://maps", "ref+memory://maps", "memory://nope"])
    def test_refuses_references(self, reference):
        """A reference is no entry, also where it names the secret of one that may be shown."""
        with pytest.raises(SecretNotExposed):
            render(f'{{% secret "{reference}" %}}')
        with pytest.raises(SecretNotExposed):
            render("{% secret name %}", name=reference)
        assert {info.state for info in registry.snapshot().secrets} == {"absent"}

    @pytest.mark.parametrize(
        "value", [canary("given by mistake"), SecretStr(canary("x")), None, 5, [], {}]
    )
    def test_does_not_show_what_a_variable_holds(self, value):
        """The error shows the template's words, not the variable's value: it may be a secret."""
        with pytest.raises(SecretNotExposed, match=r"\{% secret name %\}"):
            render("{% secret name %}", name=value)

    @pytest.mark.parametrize("name", ["given", "memory://given", "given by mistake"])
    @pytest.mark.parametrize("more", ["", "|upper", " as x"])
    def test_does_not_show_a_literal_that_names_no_entry(self, name, more):
        """Text in quotes that is no entry is not repeated: it may be the secret itself."""
        with pytest.raises(SecretNotExposed) as caught:
            render(f'{{% secret "{canary(name)}"{more} %}}')
        assert CANARY not in str(caught.value)

    def test_refuses_an_undefined_variable(self):
        """A variable that does not exist is an error and not an empty string."""
        with pytest.raises(SecretNotExposed):
            render("{% secret nothing %}")

    def test_follows_settings(self, config):
        """The policy is that of the current settings, also in a template compiled before."""
        template = compiled('{% secret "maps_key" %}')
        template.render(Context())
        secrets = {**config["SECRETS"], "maps_key": "memory://maps"}
        with (
            override_settings(SECRET_REGISTRY={**config, "SECRETS": secrets}),
            pytest.raises(SecretNotExposed),
        ):
            template.render(Context())
        assert template.render(Context()) == ESCAPED

    def test_exposure_is_not_overridden_by_a_test(self, override_secrets):
        """``override_secrets`` gives values; which entries templates may show stays as it is."""
        override_secrets({"maps_key": "<test>", "hidden": "x"})
        assert render('{% secret "maps_key" %}') == "&lt;test&gt;"
        with pytest.raises(SecretNotExposed):
            render('{% secret "hidden" %}')


@pytest.mark.parametrize(
    "source",
    ["{% secret %}", '{% secret "a" "b" %}', '{% secret "a" as %}', '{% secret "a" to x %}'],
)
def test_refuses_other_syntax(source):
    """A tag that is written wrongly is a ``TemplateSyntaxError`` that shows how to write it."""
    with pytest.raises(TemplateSyntaxError, match=r'\{% secret "entry" \[as variable\] %\}'):
        compiled(source)
