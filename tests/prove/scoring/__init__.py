"""Proof: a file of any size is scored in bounded memory, and by a Ray cluster that loses nodes.

The cluster's file is that of one machine, byte for byte, though a driver and a node are killed. The
suite measures the memory of CSV alone.
"""
