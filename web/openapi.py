"""The OpenAPI document: BentoML's POST APIs and the GET endpoints in one, with our error shape."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.routing import BaseRoute

from core.errors import status_title
from web.access import PLAYGROUND, SOURCE_HEADER
from web.idempotency import KEY_HEADER, KEY_PATTERN, RESULT_HEADER
from web.json_api import MAX_TIMEOUT_MS, TIMEOUT_HEADER, PostApi
from web.problems import problem_content_type
from web.routes import PATH_PARAMETERS, ROUTES, Route, listed_route
from web.schemas.predictions import ProblemDocument

REF_TEMPLATE = "#/components/schemas/{model}"
DESCRIPTION = (
    "Two versions of a DistilBERT sentiment classifier. Every error is an RFC 9457 problem "
    "(`application/problem+json`, below `/v2` `application/json`); 429 and 503 carry "
    "`Retry-After`. Any request may get a 414 for a target that is too long, a 421 for a `Host` "
    "that is not a name of the service, and a 431 for headers that are too long. The [dashboard]"
    "(dashboard) shows traffic, the A/B test and the rollout."
)
# In the order in which /docs shows them.
TAGS = {
    "predictions": "Classify texts, and send their true labels.",
    "analytics": "Read what was predicted, and which version is better.",
    "jobs": "Score files in the background.",
    "operations": "Health, models, cache and limits.",
    "admin": "Change the rollout, and read the keys.",
    "open inference": "For clients of the Open Inference Protocol V2.",
    "hugging face": "For clients of text-embeddings-inference.",
    "sagemaker": "For SageMaker and MLflow.",
}
# Relative to the document: true behind every proxy, whether it says its prefix or not.
SERVERS: list[dict[str, str | Any]] = [{"url": "."}]
# What BentoML serves itself.
BENTO_ROUTES = {
    "/livez": "200 while the process lives.",
    "/readyz": "200 once both models are loaded; 503 before, and while a runner is down.",
    "/metrics": "Prometheus metrics.",
}
# What each kind of endpoint can answer besides its 2xx.
_POST_PROBLEMS = (400, 408, 413, 415, 422, 429, 500, 503, 504)
_GET_PROBLEMS = (422, 500)
_DATABASE_PROBLEMS = (422, 500, 503)


def openapi_document(
    post_apis: Collection[PostApi], get_routes: list[BaseRoute], *, version: str
) -> dict[str, Any]:
    """One OpenAPI 3.1 document of every endpoint."""
    document = get_openapi(
        title="Sentiment API",
        version=version,
        description=DESCRIPTION,
        routes=get_routes,
        servers=SERVERS,
        tags=[{"name": name, "description": text} for name, text in TAGS.items()],
    )
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            route = listed_route(method.upper(), path)
            problems = _DATABASE_PROBLEMS if route.queries_database else _GET_PROBLEMS
            if route.limit is not None:
                problems = (*problems, 429)
            operation["responses"].update(_problem_replies(path, (*problems, *route.problems)))
    for api in sorted(post_apis, key=lambda api: ROUTES.index(api.route)):
        document["paths"].setdefault(api.route.path, {})["post"] = _operation(api)

    for path, summary in BENTO_ROUTES.items():
        document["paths"][path] = {"get": _text_operation(path, summary)}

    models: list[type[BaseModel]] = [ProblemDocument]
    for api in post_apis:
        models += [api.operation().request, api.operation().reply]
    _, definitions = models_json_schema(
        [(model, "validation") for model in models], ref_template=REF_TEMPLATE
    )
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            route = listed_route(method.upper(), path)
            if any(
                parameter["in"] in ("path", "query")
                for parameter in operation.get("parameters", ())
            ):
                operation["responses"].update(_problem_replies(path, (414,)))
            _add_access(operation, route)
    _add_links(document["paths"])
    components = document["components"]
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    components["headers"] = _HEADERS
    schemas = components["schemas"]
    schemas.update(definitions["$defs"])
    # FastAPI's own error shape, which no endpoint answers with.
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return document


def _add_access(operation: dict[str, Any], route: Route) -> None:
    """Add the scope, for a service that has keys, and the headers of each answer."""
    if route.scope is not None:
        operation["security"] = [{}, {"key": []}]
        operation["description"] = f"With API keys: needs the scope {route.scope}."
        operation["responses"].update(_problem_replies(route.path, (401, 403)))
    for status, reply in operation["responses"].items():
        is_retried = status in _RETRIED or (status == "409" and route.is_repeatable)
        names = ["Retry-After"] if is_retried else []
        if route.limit is not None and status[0] in "24":
            names += ["RateLimit", "RateLimit-Policy"]
        if route.is_repeatable and status[0] == "2":
            names.append(RESULT_HEADER)
        if names:
            reply["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _add_links(paths: dict[str, Any]) -> None:
    """Link an answer to the requests that it makes possible."""
    for path, prediction_id in _FEEDBACK_FROM.items():
        paths[path]["post"]["responses"]["200"]["links"] = {
            "feedback": {
                "operationId": paths["/feedback"]["post"]["operationId"],
                "requestBody": {"prediction_id": f"$response.body#/{prediction_id}"},
                "description": "Send the true label of the prediction.",
            }
        }


_FEEDBACK_FROM = {
    "/predict": "id",
    "/predict/ab": "id",
    "/predict/batch": "predictions/0/id",
    "/predict/ab-compare": "predictions/v1/id",
}


_RETRIED = frozenset({"429", "503", "504", "507"})
# No header is always there: limits can be off, and the 503 of /health is a report of its own.
_HEADERS = {
    "Retry-After": {
        "description": "Seconds after which to try again.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "RateLimit": {
        "description": 'Requests left, and seconds until there are more: `"predict";r=99;t=1`.',
        "schema": {"type": "string"},
    },
    "RateLimit-Policy": {
        "description": 'The limit, and its window in seconds: `"predict";q=100;w=60`.',
        "schema": {"type": "string"},
    },
}
_HEADERS[RESULT_HEADER] = {
    "description": f"With an {KEY_HEADER}: whether the answer was stored for repeats of the "
    "request, or is that of an earlier one.",
    "schema": {"type": "string", "enum": ["stored", "replayed", "not-stored"]},
}
_KEY_PARAMETER = {
    "name": KEY_HEADER,
    "in": "header",
    "description": "A repeat of the request with the same key gets the same answer, and is counted "
    "once. Another request with the key: 422; while the first is not answered: 409.",
    "schema": {"type": "string", "pattern": f"^{KEY_PATTERN}$"},
}
_TIMEOUT_PARAMETER = {
    "name": TIMEOUT_HEADER,
    "in": "header",
    "description": "Milliseconds after which the answer is of no use any more: 504 then.",
    "schema": {"type": "integer", "minimum": 1, "maximum": MAX_TIMEOUT_MS},
}


_SOURCE_PARAMETER = {
    "name": SOURCE_HEADER,
    "in": "header",
    "description": "playground: a text that a person tries out. It is not recorded, so no "
    "analytics, A/B test or `/feedback` knows it, and it counts against limits of its own.",
    "schema": {"type": "string", "enum": [PLAYGROUND]},
}


_BYTES = {"schema": {"type": "string", "format": "binary"}}


def _operation(api: PostApi) -> dict[str, Any]:
    described = api.operation()
    conflict = (409,) if api.route.is_repeatable else ()
    json_schema = _schema(described.request)
    content = {
        media_type: {"schema": described.content[media_type]}
        if media_type in described.content
        else json_schema
        for media_type in filter(None, api.route.media_types)
    }
    return {
        "tags": [described.tag],
        "operationId": described.name,
        "summary": described.summary,
        "parameters": [
            *_path_parameters(api.route),
            _TIMEOUT_PARAMETER,
            *([_SOURCE_PARAMETER] if api.route.predicts else []),
            *([_KEY_PARAMETER] if api.route.is_repeatable else []),
        ],
        "requestBody": {"required": True, "content": content},
        "responses": {
            str(api.route.success_status): {
                "description": status_title(api.route.success_status),
                "content": {
                    "application/json": _schema(described.reply),
                    **dict.fromkeys(described.reply_types, _BYTES),
                },
            },
            **_problem_replies(api.route.path, (*_POST_PROBLEMS, *api.route.problems, *conflict)),
        },
    }


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "enum": list(values)},
        }
        for name, values in PATH_PARAMETERS.items()
        if f"{{{name}}}" in route.path
    ]


def _text_operation(path: str, summary: str) -> dict[str, Any]:
    problems = _problem_replies(path, (503,)) if path == "/readyz" else {}
    return {
        "tags": ["operations"],
        "operationId": path.removeprefix("/"),
        "summary": summary,
        "responses": {
            "200": {"description": "OK", "content": {"text/plain": {"schema": {"type": "string"}}}},
            **problems,
        },
    }


def _problem_replies(path: str, statuses: Iterable[int]) -> dict[str, Any]:
    return {
        str(status): {
            "description": status_title(status),
            "content": {problem_content_type(path): _schema(ProblemDocument)},
        }
        for status in sorted(statuses)
    }


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return {"schema": {"$ref": REF_TEMPLATE.format(model=model.__name__)}}
