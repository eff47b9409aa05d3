"""Parquet files that end a process which opens them."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.parquet import encryption


class _Keys(encryption.KmsClient):  # type: ignore[misc]
    """Wraps no key: nobody reads the file."""

    def wrap_key(self, key_bytes: bytes, _master_key_identifier: str) -> bytes:
        return key_bytes.hex().encode()


def encrypted_parquet() -> bytes:
    """A file with an encrypted column, whose table of contents is not encrypted."""
    configuration = encryption.EncryptionConfiguration(
        footer_key="footer", column_keys={"column": ["text"]}, plaintext_footer=True
    )
    factory = encryption.CryptoFactory(lambda _connection: _Keys())
    properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), configuration)
    table = pa.table({"text": ["a secret"], "number": [1]})
    file = io.BytesIO()
    with pq.ParquetWriter(file, table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)
    return file.getvalue()
