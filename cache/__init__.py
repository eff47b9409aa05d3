"""The prediction cache: keys, Redis, and single-flight in front of the runner."""
