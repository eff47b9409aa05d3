"""Proof: the commands of docs/tutorials/ print what the pages show.

The commands come out of the pages. `…` in a page stands for what differs each time.
"""
