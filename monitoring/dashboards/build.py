"""Makes the Grafana dashboards: the JSON beside this file, from one line a panel.

A reviewer reads the lines; Grafana reads the JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from grafana_foundation_sdk.builders.common import VizLegendOptions, VizTooltipOptions
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, Row
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.timeseries import Panel as TimeseriesPanel
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef

from monitoring.dashboards.cache import CACHE
from monitoring.dashboards.log import LOG
from monitoring.dashboards.model import MODEL
from monitoring.dashboards.overview import OVERVIEW
from monitoring.dashboards.panels import Page, Panel

FOLDER = Path(__file__).parent
SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")
WIDTH, HEIGHT = 8, 8  # of 24 columns; three panels in a row

PAGES = (OVERVIEW, MODEL, CACHE, LOG)


def dashboard(page: Page) -> Dashboard:
    made = (
        Dashboard(page.title)
        .uid(page.uid)
        .tags(["sentiment"])
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("browser")
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(DatasourceVariable("source").label("Data source").type("prometheus"))
    )
    for title, panels in page.rows.items():
        made = made.with_row(Row(title))
        for panel in panels:
            made = made.with_panel(_panel(panel))
    return made


def _panel(panel: Panel) -> TimeseriesPanel:
    made = (
        TimeseriesPanel()
        .title(panel.title)
        .description(panel.help)
        .datasource(SOURCE)
        .unit(panel.unit)
        .min(0)
        .span(WIDTH)
        .height(HEIGHT)
        .fill_opacity(8)
        .legend(
            VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    )
    for query in panel.queries:
        made = made.with_target(
            Dataquery().expr(query.expression).legend_format(query.legend).range()
        )
    return made


def dashboards() -> Iterator[tuple[str, str]]:
    """The name of each file, and what is in it."""
    encoder = JSONEncoder(sort_keys=True, indent=1)
    for page in PAGES:
        yield f"{page.uid}.json", encoder.encode(dashboard(page).build()) + "\n"


def expressions() -> Iterator[str]:
    """Every query of every panel."""
    for page in PAGES:
        for panels in page.rows.values():
            for panel in panels:
                yield from (query.expression for query in panel.queries)
