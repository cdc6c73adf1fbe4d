"""How Sphinx builds the documentation. Nothing is fetched: no inventory of others, no font."""

from __future__ import annotations

import sys
from pathlib import Path

import django
from django.conf import settings

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "_ext")]

settings.configure(
    INSTALLED_APPS=[
        "django_secret_registry",
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "django.contrib.sessions",
    ],
)
django.setup()

from pygments.lexers.special import TextLexer  # noqa: E402
from sphinx.highlighting import lexers  # noqa: E402

import django_secret_registry  # noqa: E402 - its apps and commands need settings

project = "django-secret-registry"
author = "The django-secret-registry contributors"
project_copyright = author
release = version = django_secret_registry.__version__

# Pygments' own lexer of HCL stops at a policy of Vault's.
lexers["hcl"] = TextLexer()

extensions = ["myst_parser", "sphinx.ext.autodoc", "registry_docs.directive"]
exclude_patterns = ["_build", "_ext"]
root_doc = "index"

myst_enable_extensions = ["colon_fence", "attrs_block"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
python_use_unqualified_type_names = True

# Quotes in tables are quotes of Python.
smartquotes = False

html_theme = "furo"
html_title = f"django-secret-registry {release}"
html_show_sourcelink = False
html_copy_source = False
