"""Print the ids in all Parquet files below a URL, as one line of JSON, read by pyarrow."""

import json
import sys

import fsspec
import pyarrow.parquet as pq

files, root = fsspec.core.url_to_fs(sys.argv[1])
ids = []
for path in files.find(root):
    if not path.endswith(".parquet"):
        raise SystemExit(f"{path} is no file of the sink")
    with files.open(path, "rb") as opened:
        ids += pq.read_table(opened)["id"].to_pylist()
print(json.dumps(ids))
