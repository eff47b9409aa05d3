"""The encodings that are read keep a character between two blocks, and have all their names."""

from __future__ import annotations

import codecs
import encodings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.charsets import OTHERS, UNICODE, charset

BEGINNINGS = (b"", b"+AGE", b"\\N{", b"\\U0001", b"\x1b$B", b"~{", b"\x8e\xa2", b"\xff\xfe")


@pytest.mark.parametrize("name", sorted(UNICODE | OTHERS))
@given(st.sampled_from(BEGINNINGS), st.binary(min_size=1, max_size=6))
def test_decoder_keeps_no_more_than_a_character(name: str, beginning: bytes, part: bytes) -> None:
    decoder = codecs.getincrementaldecoder(name)(errors="replace")
    try:
        for block in (beginning, *[part * 10] * 5):
            decoder.decode(block)
            assert len(decoder.getstate()[0]) <= 8
    except UnicodeError as error:
        assert "BOM" in str(error)  # of UTF-16 and UTF-32


@pytest.mark.parametrize(("label", "name"), [
    ("UTF-8", "utf_8"), ("utf8", "utf_8"), ("UTF-16LE", "utf_16_le"), ("latin-1", "latin_1"),
    ("ISO-8859-1", "latin_1"), ("iso8859-15", "iso8859_15"), ("Windows-1252", "cp1252"),
    ("windows-31j", "cp932"), ("Shift_JIS", "shift_jis"), ("ks_c_5601-1987", "euc_kr"),
    ("IBM037", "cp037"), ("macintosh", "mac_roman"), ("KOI8-R", "koi8_r"),
])  # fmt: skip
def test_label_is_found_as_people_write_it(label: str, name: str) -> None:
    assert charset(label) == name
    assert codecs.lookup(name)


@pytest.mark.parametrize("label", [
    "utf-7", "unicode_escape", "raw_unicode_escape", "iso-2022-jp", "iso2022_kr", "hz", "punycode",
    "idna", "base64", "zip", "rot13", "undefined", "mbcs", "klingon", "", "é", "../cp1252",
])  # fmt: skip
def test_others_are_not_read_and_not_remembered(label: str) -> None:
    before = len(encodings._cache)
    assert charset(label) is None
    assert len(encodings._cache) == before
