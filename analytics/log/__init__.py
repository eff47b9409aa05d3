"""The prediction log: a spool on local disk, and a process that ships it to PostgreSQL.

prediction_log.py      records predictions into the spool, before their replies leave
records.py             encodes and decodes the lines of a spool
spool.py               appends lines in a thread, many with one write
seal.py                hides the hashes in the lines of a spool, by its key
waiting.py             reads what a spool still holds
open_segment.py        a segment that the spool writes
rejected.py            sets lines aside that cannot be stored, and puts them back
segments.py            reads, locks and deletes the files of a spool
shipper_supervisor.py  starts the shipper's process in one API process and restarts it
__main__.py            the shipper's process: `python -m analytics.log`
shipper.py             ships segments to PostgreSQL and deletes them
shipment.py            ships a spool that no service ships any more: `sentiment log ship`
unshipped.py           counts the predictions that a spool still holds, and names the spool
destination.py         notes the database of a spool in its folder
sinks/                 hands stored predictions on: CloudEvents, Parquet files
batch_size.py          how many predictions are sent at a time
writer.py              writes a batch in one transaction, with the keys of dimension_keys.py
"""
