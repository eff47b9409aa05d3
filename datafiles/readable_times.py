"""Times of Arrow as strings, as CSV and JSON lines have them."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from datafiles.arrow_types import is_zoned, readable_schema

_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DAY_SECONDS = 86_400
# Of the year 30,000; Arrow's calendar ends with 32,767.
_LAST_SECOND = 884_000_000_000


def readable(table: pa.Table, text: str | None = None) -> pa.Table:
    """Convert times to strings with Arrow, because Python's times have no nanoseconds.

    The column `text`, if it is there, is UTF-8, also where its type is that of bytes.
    """
    if text is not None and text in table.column_names:
        place = table.column_names.index(text)
        table = table.set_column(place, text, table.column(place).cast(pa.string()))
    for place, column in enumerate(table.columns):
        if is_zoned(column.type):
            # Without the offset of a slice, which the parts of lists would not have.
            parts = [_zoned_strings(pa.concat_arrays([part])) for part in column.chunks]
            strings = pa.chunked_array(parts or [pa.nulls(0)])
            table = table.set_column(place, table.field(place).name, strings)
    return table.cast(readable_schema(table.schema))


def _zoned_strings(values: pa.Array) -> pa.Array:
    """Convert times with a zone to strings, also inside lists, structs and maps."""
    types, kind, is_null = pa.types, values.type, values.is_null()
    if types.is_timestamp(kind) and kind.tz is not None:
        return _zoned_times(values)
    # With the fields as they are, because one that has no nulls has to stay so.
    if types.is_struct(kind):
        members = [_zoned_strings(values.field(index)) for index in range(kind.num_fields)]
        fields = [kind.field(index).with_type(part.type) for index, part in enumerate(members)]
        return pa.StructArray.from_arrays(members, fields=fields, mask=is_null)
    if types.is_map(kind):
        keys, items = _zoned_strings(values.keys), _zoned_strings(values.items)
        changed = pa.map_(
            kind.key_field.with_type(keys.type), kind.item_field.with_type(items.type)
        )
        return pa.MapArray.from_arrays(values.offsets, keys, items, changed, mask=is_null)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        items = _zoned_strings(values.values)
        field = kind.value_field.with_type(items.type)
        if types.is_fixed_size_list(kind):
            changed = pa.list_(field, kind.list_size)
            return pa.FixedSizeListArray.from_arrays(items, type=changed, mask=is_null)
        changed = pa.large_list(field) if types.is_large_list(kind) else pa.list_(field)
        return type(values).from_arrays(values.offsets, items, type=changed, mask=is_null)
    return values


def _zoned_times(times: pa.Array) -> pa.Array:
    """Convert times with a zone to strings; those that no calendar reaches, to their values.

    A data base's "infinity" is such a time. Arrow makes a wrong date of it; without a zone it
    writes its value, as here.
    """
    try:
        strings = times.cast(pa.string())
    except pa.ArrowInvalid:  # a zone that this machine does not know
        strings = times.cast(pa.timestamp(times.type.unit, "UTC")).cast(pa.string())
    units = _UNITS[times.type.unit]
    numbers = times.cast(pa.int64())
    # The time of the zone, which is at most a day from UTC, has to be one too.
    end = min(_LAST_SECOND * units, (1 << 63) - 1 - _DAY_SECONDS * units)
    is_out = pc.or_(pc.greater(numbers, end), pc.less(numbers, -end))
    if not pc.any(is_out).as_py():
        return strings
    values = pc.binary_join_element_wise(
        "<value out of range: ", numbers.cast(pa.string()), ">", ""
    )
    return pc.if_else(is_out, values, strings)
