"""Proof: a service on nodes of their own goes on while links and nodes fail under load.

Each node is a network namespace with a cable to one switch: two with the API, two with the runner
of each version, one with PostgreSQL and Redis, one with nginx as docs/operations.md has it, and a
client that runs `sentiment loadtest`. Other clients beside it count what they were told.
"""
