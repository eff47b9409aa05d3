"""The prediction cache: its keys, Redis behind it, and single-flight in front of the runner."""
