"""A customer's walk through the shop over HTTP, during which two secrets rotate."""

from __future__ import annotations

import hmac
import html
import http.cookiejar
import re
import urllib.parse
import urllib.request

from .steps import DemoError, check, done, title, wait_for
from .stores import Store

PAGES = ("/", "/checkout/", "/stores/", "/secrets/", "/admin/login/", "/static/shop/shop.css")
#: What no page may show; the map service's key is made for browsers.
HIDDEN = (("shop-stripe", "api_key"), ("shop-django", "secret_key"), ("shop-db", "password"))


class Browser:
    """Just enough of one: cookies, forms, and the text of an element by its id."""

    def __init__(self, url: str) -> None:
        self.url = url
        jar = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))

    def get(self, path: str) -> str:
        return self._open(self.url + path)

    def submit(self, page: str, path: str, **fields: str) -> str:
        """Post the form for ``path`` that stands on ``page``, with ``fields`` and its token."""
        token = find(r'name="csrfmiddlewaretoken" value="([^"]+)"', self.get(page))
        data = urllib.parse.urlencode({"csrfmiddlewaretoken": token, **fields}).encode()
        return self._open(urllib.request.Request(self.url + path, data))

    def _open(self, request: str | urllib.request.Request) -> str:
        with self._opener.open(request, timeout=10) as response:
            text: str = response.read().decode()
            return text


def find(pattern: str, page: str) -> str:
    match = re.search(pattern, page)
    if match is None:
        raise DemoError(f"no page shows {pattern}")
    return html.unescape(match[1])


def element(page: str, id_: str) -> str:
    return find(rf'id="{id_}"[^>]*>([^<]*)<', page)


def version(browser: Browser, reference: str) -> str:
    """Return the version that the shop holds of a secret, as its own page tells."""
    pattern = rf'data-reference="{re.escape(reference)}" data-version="([^"]*)"'
    return find(pattern, browser.get("/secrets/"))


class Tour:
    """``ttl``: seconds for which the shop keeps a secret before it looks again."""

    def __init__(self, url: str, store: Store, *, ttl: float) -> None:
        self.browser = Browser(url)
        self.store = store
        self.patience = ttl + 20

    def walk(self) -> None:
        title("A customer looks at every page")
        self.browser.submit("/", "/basket/lantern/")
        pages = {path: self.browser.get(path) for path in PAGES}
        for path in PAGES:
            done(f"GET {path}")
        values = [self.store.value(*secret) for secret in HIDDEN]
        check("no page shows a secret", not any(v in p for v in values for p in pages.values()))
        key = find(r'data-api-key="([^"]+)"', pages["/stores/"])
        check("the map has its key", key == self.store.value("shop-maps", "browser_key"))
        check("the payment request is signed", self.signed_now())

        title("The payment provider's key rotates")
        self.store.rotate("shop-stripe", "api_key")
        _, took = wait_for("the signature follows", self.signed_now, seconds=self.patience)
        done(f"after {took:.1f} s the page signs with the new key; nothing was restarted")

        title("SECRET_KEY rotates")
        current, previous = "store://shop-django", self.store.previous
        colleague = Browser(self.browser.url)
        before = version(colleague, current), version(colleague, previous)

        def followed() -> bool | None:
            colleague.submit("/", "/basket/thermos/")  # signs a cookie of its own
            key, fallback = version(colleague, current), version(colleague, previous)
            # A copy beside the present value has a version of its own.
            moved = fallback == before[0] if self.store.versioned else fallback != before[1]
            return True if key != before[0] and moved else None

        self.store.rotate("shop-django", "secret_key")
        _, took = wait_for("SECRET_KEY and its fallback follow", followed, seconds=self.patience)
        done(f"after {took:.1f} s the shop signs with the new key, and still knows the old one")
        check("the basket, signed with the old key, is still there", self.has("lantern"))
        self.browser.submit("/", "/basket/compass/")
        check("and takes another product", self.has("lantern") and self.has("compass"))

    def signed_now(self) -> bool | None:
        """Tell whether the checkout page is signed with the key that the store holds now."""
        page = self.browser.get("/checkout/")
        signed = f"{element(page, 'timestamp')}.{element(page, 'body')}"
        key = self.store.value("shop-stripe", "api_key")
        signature = hmac.new(key.encode(), signed.encode(), "sha256").hexdigest()
        return True if signature == element(page, "signature") else None

    def has(self, product: str) -> bool:
        return f'data-product="{product}"' in self.browser.get("/checkout/")
