"""The FastAPI app that serves the GET endpoints beside BentoML's POSTs."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError

from errors import ServiceError, leave_problem
from schemas import invalid_fields


def get_app(*routers: APIRouter) -> FastAPI:
    """An app of `routers` whose errors are problems. BentoML mounts it at `/`."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    for router in routers:
        app.include_router(router)
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    return app


async def _service_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    return _leave(error)


async def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # The first part of a location is only where it came from ("query").
    return _leave(
        invalid_fields([(tuple(fault["loc"][1:]), str(fault["msg"])) for fault in error.errors()])
    )


def _leave(error: ServiceError) -> Response:
    leave_problem(error.problem())
    return Response(status_code=error.status)
