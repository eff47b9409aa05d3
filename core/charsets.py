"""The encodings of text that are read, by the names that people and programs have for them.

Python knows more. Some have escape sequences (UTF-7, ISO-2022, `unicode_escape`): one that never
ends is decoded again from its beginning with each block, which takes hours. Others, such as base64
and zip, are no encodings of text.
"""

from __future__ import annotations

from encodings import normalize_encoding
from encodings.aliases import aliases

_CODE_PAGES = (
    "037", 273, 424, 437, 500, 720, 737, 775, 850, 852, 855, 856, 857, 858, *range(860, 867), 869,
    874, 875, 932, 949, 950, 1006, 1026, 1125, 1140, *range(1250, 1259),
)  # fmt: skip
UNICODE = frozenset({
    "utf_8", "utf_8_sig", "utf_16", "utf_16_le", "utf_16_be", "utf_32", "utf_32_le", "utf_32_be",
})  # fmt: skip
OTHERS = frozenset({
    *(f"cp{page}" for page in _CODE_PAGES),
    *(f"iso8859_{part}" for part in range(1, 17) if part != 12),
    "ascii", "latin_1", "koi8_r", "koi8_t", "koi8_u", "kz1048", "ptcp154", "tis_620", "hp_roman8",
    "mac_cyrillic", "mac_greek", "mac_iceland", "mac_latin2", "mac_roman", "mac_turkish",
    "big5", "big5hkscs", "euc_jis_2004", "euc_jisx0213", "euc_jp", "euc_kr", "gb18030", "gb2312",
    "gbk", "johab", "shift_jis", "shift_jis_2004", "shift_jisx0213",
})  # fmt: skip
# A name that Python does not have.
_MORE_ALIASES = {"windows_31j": "cp932"}


def charset(label: str) -> str | None:
    """Python's name of the module of an encoding; None: it is none that is read."""
    # Not codecs.lookup, which remembers every label that it does not know.
    name = normalize_encoding(label.lower())
    name = aliases.get(name) or _MORE_ALIASES.get(name, name)
    return name if name in UNICODE or name in OTHERS else None
