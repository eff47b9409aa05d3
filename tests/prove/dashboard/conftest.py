"""A served Bento with something to show, and a browser that looks at it."""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, Route, sync_playwright

from core.api_keys import make_api_key
from scripts.chromium import ARGUMENTS, chromium
from tests.prove.dashboard.pages import WIDTHS, Seen, shown
from tests.serving import Serve, ServedBento


@pytest.fixture(scope="package")
def site(unlimited: ServedBento) -> ServedBento:
    """With some traffic of every kind, and labels."""
    with unlimited.client() as client:
        for number in range(30):
            text = f"Number {number} of the films was {'a joy' if number % 3 else 'a bore'}."
            answered = client.post("/predict/ab-compare", json={"text": text}).json()
            client.post("/predict/ab", json={"text": text, "subject": f"user-{number}"})
            for version in ("v1", "v2"):
                answer = client.post(
                    "/feedback",
                    json={
                        "prediction_id": answered["predictions"][version]["id"],
                        "label": "positive" if number % 3 else "negative",
                    },
                )
                assert answer.status_code == 202, answer.text
    return unlimited


@pytest.fixture(scope="package")
def locked(
    serve_own: Serve,
) -> Iterator[tuple[ServedBento, str, str]]:
    """With keys, one that may do all that the page does and one that may not; and with texts."""
    (key, entry), (other, other_entry) = (
        make_api_key("ana", ["predict", "feedback", "analytics"]),
        make_api_key("shop", ["predict"]),
    )
    api_keys = f"{entry.entry()},{other_entry.entry()}"
    # A test asks every twentieth of a second until predictions can be drawn.
    often = "10000/minute"
    with serve_own(
        "locked", API_KEYS=api_keys, TEXT_STORAGE="full", RATE_LIMIT_ANALYTICS=often
    ) as bento:
        yield bento, key, other


@pytest.fixture(scope="package")
def browser(site: ServedBento, locked: object) -> Iterator[Browser]:
    """Started after what it looks at: while Playwright runs, nothing else may run an event loop."""
    del site, locked
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def open_page(browser: Browser, seen: Seen) -> Iterator[Callable[..., Page]]:
    contexts = []

    def open_at(url: str, *, width: int = WIDTHS["desktop"], theme: str = "light") -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=theme,  # type: ignore[arg-type]
        )
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: seen.requests.append(request.url))
        page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        page.on(
            "console",
            lambda line: seen.complaints.append(line.text) if line.type == "error" else None,
        )
        page.goto(url)
        return page

    yield open_at
    for context in contexts:
        context.close()


@pytest.fixture
def page(open_page: Callable[..., Page], site: ServedBento) -> Page:
    return shown(open_page(f"{site.url}/dashboard"))


@pytest.fixture(params=["/models/sentiment", ""], ids=["taken off", "left"])
def behind_proxy(
    request: pytest.FixtureRequest, open_page: Callable[..., Page], site: ServedBento
) -> Page:
    """A page behind a proxy that has the service below /models/sentiment.

    The proxy takes the prefix off, or leaves it in the path.
    """
    page = open_page("about:blank")

    def forward(route: Route) -> None:
        parts = urllib.parse.urlsplit(route.request.url)
        assert parts.path.startswith("/models/sentiment"), route.request.url
        path = parts.path.removeprefix(request.param)
        headers = route.request.headers | {"host": parts.netloc}
        reply = route.fetch(url=f"{site.url}{path}?{parts.query}", headers=headers)
        route.fulfill(response=reply)

    page.route("http://proxy.test/**", forward)
    return page
