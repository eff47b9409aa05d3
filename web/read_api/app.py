"""The FastAPI app that serves the GET endpoints beside BentoML's POSTs."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute

from core.errors import PROBLEM_CONTENT_TYPE, ModelNotFound, ServiceError
from core.request_context import context_of
from web.problems import problem_body
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
        app.include_router(router)
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    return app


def redirect_without_slash(request: Request) -> RedirectResponse:
    """Redirect to a page whose relative links hold from beside its folder alone.

    The redirect itself is relative: it keeps scheme, host and prefix.
    """
    name = request.scope["path"].rstrip("/").rpartition("/")[2]
    query = f"?{request.url.query}" if request.url.query else ""
    return RedirectResponse(f"../{name}{query}")


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
