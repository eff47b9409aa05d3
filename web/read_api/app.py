"""The FastAPI app that serves the GET endpoints beside BentoML's POSTs."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute

from core.errors import PROBLEM_CONTENT_TYPE, ModelNotFound, ServiceError
from core.request_context import context_of
from web.problems import problem_body
from web.query import check_parameters
from web.routes import route_of
from web.schemas.predictions import invalid_fields


def create_read_app(*routers: APIRouter) -> FastAPI:
    """An app of `routers` whose errors are problems. BentoML mounts it at `/`."""
    app = FastAPI(
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
    )
    for router in routers:
        for route in router.routes:
            if isinstance(route, APIRoute) and not route.summary:
                # FastAPI's own would have a capital at each word.
                route.summary = route.name.replace("_", " ").capitalize()
        app.include_router(router, dependencies=[Depends(_refuse_unknown_parameters)])
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    return app


def _refuse_unknown_parameters(request: Request) -> None:
    # Open routes are probed and linked to by programs that add parameters of their own.
    if route_of(request.method, request.scope["path"]).scope is not None:
        known = set(_parameters(request.scope["route"].dependant))
        check_parameters(request.scope["query_string"], known)


def _parameters(dependant: Dependant) -> Iterator[str]:
    """The names that a route and what it depends on read from the query."""
    for field in dependant.query_params:
        yield field.alias
    for inner in dependant.dependencies:
        yield from _parameters(inner)


def redirect_without_slash(request: Request) -> RedirectResponse:
    """Redirect to a page whose relative links hold from beside its folder alone.

    The redirect itself is relative: it keeps scheme, host and prefix.
    """
    name = request.scope["path"].rstrip("/").rpartition("/")[2]
    return redirect_with_query(request, f"../{name}")


def redirect_with_query(request: Request, location: str) -> RedirectResponse:
    query = f"?{request.url.query}" if request.url.query else ""
    return RedirectResponse(f"{location}{query}")


def _operation_id(route: APIRoute) -> str:
    """The name of an endpoint in a generated client, such as `analytics_summary`."""
    if "{" in route.path:
        return route.name
    name = route.path.strip("/").replace("/", "_").replace("-", "_")
    methods = "_".join(sorted(route.methods or ()))
    return name if methods == "GET" else f"{methods.lower()}_{name}"


async def _service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    return _problem(request, error)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # The parameters of paths are names of models.
    if any(fault["loc"][0] == "path" for fault in error.errors()):
        return _problem(request, ModelNotFound())
    # The first part of a location is its source ("query").
    errors = [(tuple(fault["loc"][1:]), str(fault["msg"])) for fault in error.errors()]
    return _problem(request, invalid_fields(errors))


def _problem(request: Request, error: ServiceError) -> Response:
    problem = error.problem()
    return Response(
        problem_body(problem, request.url.path, context_of(request.scope).id),
        problem.status,
        {"content-type": PROBLEM_CONTENT_TYPE, **problem.headers},
    )
