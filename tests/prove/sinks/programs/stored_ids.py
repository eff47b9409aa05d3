"""Print the ids in all Parquet files below a URL, as one line of JSON, read by pyarrow."""

import json
import sys

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

files, root = fsspec.core.url_to_fs(sys.argv[1])
ids = []
for path in files.find(root):
    if not path.endswith(".parquet"):
        raise SystemExit(f"{path} is no file of the sink")
    # As bytes: a file of Python's, which threads of pyarrow may still hold, can abort the exit.
    ids += pq.read_table(pa.BufferReader(files.cat_file(path)))["id"].to_pylist()
print(json.dumps(ids))
