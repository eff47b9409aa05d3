"""Prometheus, its alert rules, and the Grafana dashboards with their source."""
