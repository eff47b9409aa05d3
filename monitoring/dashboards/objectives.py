"""The numbers of docs/slo.md, which the dashboards show as lines."""

from __future__ import annotations

import re

from core.paths import ROOT

_PAGE = (ROOT / "docs" / "slo.md").read_text(encoding="utf-8")
# The rows of its first table: name, meaning, objective, error budget in percent.
_ROWS: dict[str, tuple[str, str]] = {
    name: (meaning, budget)
    for name, meaning, budget in re.findall(
        r"^\| (\w+) \| (.*) \| [\d.]+ % \| ([\d.]+) %.*\|$", _PAGE, re.MULTILINE
    )
}
_WITHIN = re.findall(r"within ([\d.]+) s", _ROWS["latency"][0])

# The share of requests that may miss each objective.
ERROR_BUDGETS = {name: float(budget) / 100 for name, (_, budget) in _ROWS.items()}
LATENCY_SECONDS = float(_WITHIN[0])
