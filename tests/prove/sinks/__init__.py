"""Proof: real object stores and a real CloudEvents SDK get each prediction from the sinks.

The stores are emulators that are not ours, moto's S3 and gcp-storage-emulator, asked by s3fs and
gcsfs over HTTP. Between both is a server that refuses, fails, hangs, or kills the shipper before or
after a put. `sentiment log ship` ships, with the packages of the stores beside it.
"""
