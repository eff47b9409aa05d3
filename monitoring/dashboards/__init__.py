"""What the Grafana dashboards show: a module for each, in one line a panel."""
