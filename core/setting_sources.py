"""Reads settings as shells, editors and `docker run --env-file` leave them."""

from __future__ import annotations

from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

_QUOTES = ("'", '"')


class TrimmedSource(PydanticBaseSettingsSource):
    """Another source, without white space, line ends and a pair of quotes around each value.

    `docker run --env-file` passes quotes on, and a secret in a file mostly ends with a line end. A
    value of which nothing is left counts as unset.
    """

    def __init__(
        self, settings_cls: type[BaseSettings], source: PydanticBaseSettingsSource
    ) -> None:
        super().__init__(settings_cls)
        self._source = source

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self._source.get_field_value(field, field_name)

    def __call__(self) -> dict[str, Any]:
        values = {name: _trimmed(value) for name, value in self._source().items()}
        return {name: value for name, value in values.items() if value != ""}


def _trimmed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = value.strip().removeprefix("\ufeff").strip()
    if len(text) > 1 and text[0] in _QUOTES and text[-1] == text[0]:
        text = text[1:-1].strip()
    return text
