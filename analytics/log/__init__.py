"""The prediction log: requests wait for a spool on local disk, a shipper brings it to PostgreSQL.

records.py       what is kept of a prediction, and the line that it is in a spool
segments.py      the files of a spool, and how they are read
spool.py         appends lines, in a thread, before their replies leave
prediction_log.py  what the prediction path records into
shipper.py       moves what is spooled to PostgreSQL, each prediction once
shipping.py      keeps the process of the shipper running
writer.py        one transaction a batch, with identities.py and rows.py
"""
