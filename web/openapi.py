"""The OpenAPI document: BentoML's POST APIs and the GET endpoints in one, with our error shape."""

from __future__ import annotations

from typing import Any

from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

from errors import PROBLEM_CONTENT_TYPE, status_title
from schemas import ProblemDocument
from web.routes import ANALYTICS_ROUTES, POST_ROUTES

REF_TEMPLATE = "#/components/schemas/{model}"
DESCRIPTION = (
    "Two versions of a DistilBERT sentiment classifier. Every error is an RFC 9457 problem "
    "(`application/problem+json`); 429 and 503 carry `Retry-After`."
)
# What each POST can answer besides its 2xx.
_POST_PROBLEMS = (400, 413, 415, 422, 429, 500, 503, 504)
_GET_PROBLEMS = (422, 500)


def openapi_document(
    bento_spec: dict[str, Any], get_routes: list[BaseRoute], *, version: str
) -> dict[str, Any]:
    """One OpenAPI 3.1 document.

    `bento_spec` is BentoML's own, of which the POST APIs and their models are kept.
    """
    document = get_openapi(
        title="Sentiment API",
        version=version,
        description=DESCRIPTION,
        routes=get_routes,
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for path in POST_ROUTES:
        operation = dict(bento_spec["paths"][path]["post"])
        operation["responses"] = {
            status: reply for status, reply in operation["responses"].items() if status < "300"
        }
        operation["operationId"] = operation.pop("x-bentoml-name")
        operation["summary"] = operation["operationId"].replace("_", " ").capitalize()
        operation["tags"] = ["predictions"]
        document["paths"][path] = {"post": operation}
    for name, schema in bento_spec["components"]["schemas"].items():
        if name in _referenced(document["paths"], bento_spec["components"]["schemas"]):
            schemas[name] = schema
    schemas["Problem"] = ProblemDocument.model_json_schema(ref_template=REF_TEMPLATE)
    schemas.update(schemas["Problem"].pop("$defs", {}))
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    _describe_problems(document)
    return document


def _describe_problems(document: dict[str, Any]) -> None:
    content = {PROBLEM_CONTENT_TYPE: {"schema": {"$ref": REF_TEMPLATE.format(model="Problem")}}}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            statuses = set(_POST_PROBLEMS if method == "post" else _GET_PROBLEMS)
            if path in ANALYTICS_ROUTES:
                statuses |= {429, 503}
            if path == "/feedback":
                statuses.add(404)
            for status in sorted(statuses):
                operation["responses"][str(status)] = {
                    "description": status_title(status),
                    "content": content,
                }


def _referenced(node: Any, schemas: dict[str, Any]) -> set[str]:
    """The names of all schemas that `node` refers to, directly or through others."""
    found: set[str] = set()
    stack = [node]
    while stack:
        current = stack.pop()
        if isinstance(current, dict):
            name = str(current.get("$ref", "")).rpartition("/")[2]
            if name in schemas and name not in found:
                found.add(name)
                stack.append(schemas[name])
            stack.extend(current.values())
        elif isinstance(current, list):
            stack.extend(current)
    return found
