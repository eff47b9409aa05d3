"""The Grafana dashboards: their source, in about one line a panel, beside the JSON."""
