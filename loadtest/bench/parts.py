"""The parts of `make bench`, one after the other; they share the models and the service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

from core.types import VERSIONS
from loadtest.bench import service
from loadtest.bench.cost import measure_cost
from loadtest.bench.engines import Step, measure_engines
from loadtest.bench.models import base_size_model, served_model
from loadtest.bench.peak import measure_peak
from loadtest.bench.plan import BASE, STARTER, Part, Plan
from loadtest.bench.servers import Site, our_service, site
from loadtest.bench.summary import Row


def measure_parts(plan: Plan, parts: list[Part], step: Step) -> Iterator[Row]:
    """A row for each figure of the parts, as soon as it is measured."""
    with ExitStack() as stack:
        models = {STARTER: served_model()}
        if BASE in plan.sizes and {Part.engines, Part.service} & set(parts):
            step("saving a model of base size with every engine")
            models[BASE] = stack.enter_context(base_size_model())
        if Part.engines in parts:
            step("engines: what the cores multiply at most")
            yield from measure_peak(plan.engine_rounds, plan.peak_seconds)
            yield from measure_engines(plan, models, step)
        if not set(parts) - {Part.engines}:
            return
        where = stack.enter_context(site())
        if Part.start in parts:
            yield from service.measure_starts(plan, where, step)
        yield from _measure_served(plan, parts, where, step)
        if Part.service in parts and BASE in models and plan.base_cells:
            versions = dict.fromkeys(VERSIONS, models[BASE])
            yield from service.measure_base_size(plan, replace(where, models=versions), step)


def _measure_served(plan: Plan, parts: list[Part], where: Site, step: Step) -> Iterator[Row]:
    with our_service(where, **service.LONG_QUEUE) as ours:
        step("start: from `bentoml serve` to ready")
        if Part.start in parts:
            yield service.measure_start(plan, ours, plan.starts - 1)
        else:
            ours.wait_until_ready()
        if Part.service in parts:
            yield from service.measure_service(plan, where, ours, step)
        if Part.cost in parts:
            yield from measure_cost(plan, ours, step)
