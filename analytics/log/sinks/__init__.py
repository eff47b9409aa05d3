"""Hands stored predictions on to sinks: CloudEvents over HTTP, and Parquet files by hour.

outbox.py     the ids of the predictions that PostgreSQL has stored, in files beside the spool
cursor.py     how far a sink has come in the outbox
rows.py       reads predictions from PostgreSQL, and whether a transaction was committed
delivery.py   the one loop of every sink: its batches, retries and bound
events.py     the sink that sends CloudEvents
parquet.py    the sink that writes Parquet files
configured.py the sinks that the settings ask for
"""
