"""Reads settings as shells, editors and `docker run --env-file` leave them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

_QUOTES = ("'", '"')


class TrimmedSource(PydanticBaseSettingsSource):
    """Another source, without white space, line ends and a pair of quotes around each value.

    A value that has to be one of several words may be in another case.

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
        values = {name: trimmed(value) for name, value in self._source().items()}
        fields = self.settings_cls.model_fields
        return {
            name: _spelled(value, fields[name].annotation) if name in fields else value
            for name, value in values.items()
            if value != ""
        }


def _spelled(value: Any, annotation: Any) -> Any:
    """The choice that a value names in another case, such as `info` for `INFO`."""
    if not isinstance(value, str):
        return value
    matching = (choice for choice in _choices(annotation) if choice.lower() == value.lower())
    return next(matching, value)


def _choices(annotation: Any) -> Iterator[str]:
    """The strings of a Literal, also inside a union or another Literal."""
    for part in get_args(annotation):
        if isinstance(part, str):
            yield part
        else:
            yield from _choices(part)


def trimmed(value: Any) -> Any:
    """A value without what shells, editors and Docker leave around it."""
    if not isinstance(value, str):
        return value
    text = value.strip().removeprefix("\ufeff").strip()
    if len(text) > 1 and text[0] in _QUOTES and text[-1] == text[0]:
        text = text[1:-1].strip()
    return text
