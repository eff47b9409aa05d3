"""A text or a file that a person enters is answered, and moves the numbers."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Page, Route, expect

from tests.prove.dashboard.pages import SHOWN_MS, Seen, ask, predictions
from tests.serving import ServedBento

ATTACK = '<img src=x onerror="document.title=\'owned\'"><script>document.title="owned"</script>'


def test_text_is_answered_by_both_versions_and_counted(page: Page, seen: Seen) -> None:
    before = predictions(page)
    ask(page, "A warm, funny, engaging film that I could watch every week.", recorded=True)
    for version in ("v1", "v2"):
        card = page.locator(f"#answer [data-version={version}]")
        expect(card.locator(".says")).to_contain_text("positive")
        expect(card).to_contain_text("revision")
        expect(card).to_contain_text(re.compile(r"computed in \d"))
        assert card.locator(".bar").count() == 2
    expect(page.locator("#tiles .value").first).not_to_have_text(f"{before:,}", timeout=SHOWN_MS)
    assert predictions(page) >= before + 2
    for chart in ("traffic", "latency", "sentiment", "confidence", "cache"):
        assert page.locator(f"#{chart} canvas").count() == 1
    expect(page.locator("#recent tbody tr").first).to_contain_text("/predict/ab-compare")
    assert seen.complaints == []
    ask(page, "A warm, funny, engaging film that I could watch every week.")
    expect(page.locator("#answer [data-version=v1]")).to_contain_text("from the cache")


def test_label_button_sends_feedback(page: Page, site: ServedBento) -> None:
    ask(page, "I fell asleep twice, and was glad of it.", recorded=True)
    says = page.locator("#answer [data-version=v1] .says").inner_text()
    page.locator(f"#answer [data-label={says}]").click()
    expect(page.locator("#answer [role=status]")).to_have_text(re.compile("Thank you.*right"))


def test_text_that_is_tried_is_not_recorded(page: Page, site: ServedBento) -> None:
    before = site.metric("prediction_log_recorded_total")
    ask(page, "Tried out, and nothing else.")
    expect(page.locator("#answer")).to_contain_text("This was not recorded.")
    assert page.locator("#answer [data-label]").count() == 0
    give(page, "two.csv", b"text\na joy\na bore\n")
    expect(page.locator("#answer")).to_contain_text("2 texts of column text", timeout=SHOWN_MS)
    assert site.metric("prediction_log_recorded_total") == before


def test_markup_in_a_text_is_shown_and_not_run(page: Page, seen: Seen) -> None:
    ask(page, ATTACK)
    quoted = ATTACK.replace('"', '""')
    content = f'text\n"{quoted}"\n'.encode()
    page.locator("#csv").set_input_files(
        {"name": "texts.csv", "mimeType": "text/csv", "buffer": content}
    )
    expect(page.locator("#answer td.text")).to_have_text(ATTACK)
    assert page.title() == "Sentiment"
    assert page.locator("#answer img").count() == 0
    assert seen.complaints == []


def test_csv_file_is_answered_row_by_row(page: Page) -> None:
    rows = "\n".join(f'{number},"Film {number}, a joy"' for number in range(60))
    page.locator("#csv").set_input_files(
        {"name": "films.csv", "mimeType": "text/csv", "buffer": f"id,text\n{rows}\n".encode()}
    )
    expect(page.locator("#answer")).to_contain_text("60 texts of column text", timeout=SHOWN_MS)
    assert page.locator("#answer tbody tr").count() == 60
    with page.expect_download() as download:
        page.get_by_role("link", name="Save as CSV").click()
    saved = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    assert len(saved) == 61
    assert saved[0] == (
        '"id","text","sentiment_v1","confidence_v1","sentiment_v2","confidence_v2","truncated"'
    )
    assert saved[1].startswith('"0","Film 0, a joy","')


def test_csv_file_past_the_rate_limit_waits_and_finishes(page: Page) -> None:
    refused: list[str] = []

    def refuse_once(route: Route) -> None:
        if refused:
            route.continue_()
            return
        refused.append(route.request.url)
        headers = {"Retry-After": "1", "content-type": "application/problem+json"}
        route.fulfill(status=429, body='{"detail": "Too many requests"}', headers=headers)

    page.route("**/predict/batch", refuse_once)
    page.locator("#csv").set_input_files(
        {"name": "two.csv", "mimeType": "text/csv", "buffer": b"text\na joy\na bore\n"}
    )
    expect(page.locator("#answer")).to_contain_text("RATE_LIMIT_BATCH is reached")
    expect(page.locator("#answer tbody tr")).to_have_count(2, timeout=SHOWN_MS)


def test_empty_csv_file_shows_an_error(page: Page) -> None:
    page.locator("#csv").set_input_files({"name": "x.csv", "mimeType": "text/csv", "buffer": b""})
    expect(page.locator("#answer [role=alert]")).to_have_text(
        "x.csv is not scored: a CSV file must begin with the names of its columns."
    )


def give(page: Page, name: str, content: bytes) -> None:
    page.locator("#csv").set_input_files({"name": name, "mimeType": "text/csv", "buffer": content})


def test_bad_rows_are_listed_and_the_good_ones_are_scored(page: Page, seen: Seen) -> None:
    long = "a joy " * 900
    rows = f'1,a joy\n2\n3,"  "\n4,"{long}"\n5,"open\n6,a bore\n7,nul \0\n8,👍 fine\n'
    give(page, "films.csv", f"id,text\n{rows}".encode())
    expect(page.locator("#answer")).to_contain_text("3 texts of column text", timeout=SHOWN_MS)
    bad = page.locator("#answer .scroll", has_text="Reason").locator("tbody tr")
    expect(bad).to_have_count(5)
    assert bad.locator("td:nth-child(1)").all_inner_texts() == ["3", "4", "5", "6", "8"]
    reasons = bad.locator("td:nth-child(2)").all_inner_texts()
    assert reasons[0] == "1 fields; the header has 2"
    assert "5000 characters" in reasons[2]
    with page.expect_download() as download:
        page.get_by_role("link", name="Save as CSV").click()
    saved = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[0] for line in saved] == ['"id"', '"1"', '"6"', '"8"']
    # The refused batches are 422, which the browser reports.
    assert [line for line in seen.complaints if "422" not in line] == []


def test_column_delimiter_and_encoding_can_be_chosen(page: Page) -> None:
    give(page, "films.csv", "nr;kritik;note\n1;Ein schöner Film;gut\n".encode("cp1252"))
    alert = page.locator("#answer [role=alert]")
    expect(alert).to_contain_text("it is not in UTF-8: line 2 has the byte 0xF6")
    page.get_by_label("Encoding").select_option("cp1252")
    expect(alert).to_contain_text("no column text; the columns are: nr, kritik, note")
    page.get_by_label("Column").select_option("kritik")
    expect(page.locator("#answer")).to_contain_text("1 text of column kritik", timeout=SHOWN_MS)
    expect(page.locator("#answer td.text")).to_have_text("Ein schöner Film")
    expect(page.get_by_label("Delimiter")).to_have_value(";")
    page.get_by_label("Column").select_option("note")
    expect(page.locator("#answer td.text")).to_have_text("gut", timeout=SHOWN_MS)


def test_text_that_is_too_long_is_refused_and_not_cut(page: Page) -> None:
    page.get_by_label("Text, or drop a CSV file here").fill("a joy 👍 " * 700)
    page.get_by_role("button", name="Ask both versions").click()
    expect(page.locator("#answer [role=alert]")).to_be_visible()
    assert page.locator("#text").input_value() == "a joy 👍 " * 700
