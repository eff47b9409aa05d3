"""Proof: promtool, amtool and a real Prometheus accept the rules, and an alert fires."""
