"""Proof: a real fault of a served product fires each alert on a real Prometheus.

All windows of the rules, and the ages that they allow, are divided by 60; Prometheus looks every
second instead of every 15. Each fault has a Prometheus of its own. Of the traffic that drift
compares, the week before is written into the database; everything else happens. promtool and
amtool accept the rules, their tests and the configuration.
"""
