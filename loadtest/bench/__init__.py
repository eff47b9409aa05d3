"""The parts of `make bench`: servers, measurements, record, tables, plot."""
