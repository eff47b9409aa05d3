"""Changes of the types of Arrow columns, also inside lists, structs and maps."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

ChangeType = Callable[[pa.DataType], pa.DataType]

_PLAIN = {
    pa.string_view(): pa.string(),
    pa.binary_view(): pa.binary(),
}


def with_types(schema: pa.Schema, change: ChangeType) -> pa.Schema:
    """The schema with the changed type of each column; `change` gets types without children."""
    return pa.schema([_changed(field, change) for field in schema])


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The schema without dictionaries and views.

    Arrow cannot take single rows of a view, and cannot append dictionaries chunk by chunk.

    Raises:
        ValueError: a struct has two members of the same name, which no output can hold.
    """
    return with_types(schema, lambda type_: _PLAIN.get(type_, type_))


def readable_schema(schema: pa.Schema) -> pa.Schema:
    """The schema with strings for times: Python's times have no nanoseconds.

    A duration becomes the number of its units.
    """
    return with_types(schema, _readable)


def is_zoned(type_: pa.DataType) -> bool:
    """Whether a type is that of times with a zone, or has them inside it."""
    return bool(_type(type_, _without_zone) != type_)


def _without_zone(type_: pa.DataType) -> pa.DataType:
    return pa.timestamp(type_.unit) if pa.types.is_timestamp(type_) else type_


def _readable(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_duration(type_):
        return pa.int64()
    return pa.string() if pa.types.is_temporal(type_) else type_


def _changed(field: pa.Field, change: ChangeType) -> pa.Field:
    return field.with_type(_type(field.type, change))


def _type(type_: pa.DataType, change: ChangeType) -> pa.DataType:
    types = pa.types
    if types.is_dictionary(type_):
        return _type(type_.value_type, change)
    if types.is_struct(type_):
        fields = [_changed(type_.field(index), change) for index in range(type_.num_fields)]
        if len({field.name for field in fields}) != len(fields):
            raise ValueError(f"a struct has two members of the same name: {type_}")
        return pa.struct(fields)
    if types.is_map(type_):
        return pa.map_(_changed(type_.key_field, change), _changed(type_.item_field, change))
    if types.is_list(type_) or types.is_list_view(type_) or types.is_fixed_size_list(type_):
        size = type_.list_size if types.is_fixed_size_list(type_) else -1
        return pa.list_(_changed(type_.value_field, change), size)
    if types.is_large_list(type_) or types.is_large_list_view(type_):
        return pa.large_list(_changed(type_.value_field, change))
    return change(type_)
