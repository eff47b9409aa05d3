"""Proof: the service works behind a real PgBouncer in transaction mode."""
