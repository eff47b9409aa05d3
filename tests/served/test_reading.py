"""The GET endpoints of a served Bento: health, cache, limits, metrics, documentation."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from core.types import ENGINE_NAMES
from tests.serving import ServedBento
from tests.waiting import wait_until
from web.routes import ROUTES


@pytest.fixture
def client(served: ServedBento) -> Iterator[httpx.Client]:
    with served.client() as client:
        yield client


def test_health_names_every_part(client: httpx.Client) -> None:
    reply = client.get("/health")
    assert reply.status_code == 200
    body = reply.json()
    assert body["status"] == "ok"
    assert (body["model_loaded"], body["database_connected"], body["redis_connected"]) == (
        True,
    ) * 3
    for version in ("v1", "v2"):
        assert body["versions"][version]["ready"] is True
        assert body["versions"][version]["engine"] in ENGINE_NAMES
        assert len(body["versions"][version]["revision"]) == 12


def test_probes_answer(client: httpx.Client) -> None:
    assert client.get("/livez").status_code == 200
    assert client.get("/readyz").status_code == 200


GETS = [
    path
    for route in ROUTES
    for path in route.paths
    if route.method == "GET"
    and route.path not in ("/", "/dashboard/", "/docs/", "/static_content/")
    and "{job}" not in route.path
]


@pytest.mark.parametrize("path", [*GETS, "/dashboard/main.js", "/static_content/swagger-ui.css"])
def test_head_is_answered_as_get_without_a_body(client: httpx.Client, path: str) -> None:
    read, head = client.get(path), client.head(path)
    assert (read.status_code, head.status_code, head.content) == (200, 200, b"")
    for name in ("content-type", "cache-control", "content-security-policy", "x-frame-options"):
        assert head.headers.get(name) == read.headers.get(name)
    # The connection is still in step.
    assert client.get("/livez").status_code == 200


@pytest.mark.parametrize("path", ["/predict", "/feedback", "/no/such/path"])
def test_head_of_other_paths_has_the_status_of_get(client: httpx.Client, path: str) -> None:
    read, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (read.status_code, b"")
    assert head.headers.get("allow") == read.headers.get("allow")


@pytest.mark.parametrize("path", sorted({*GETS} - {"/docs", "/dashboard"}))
def test_slash_at_the_end_changes_nothing(client: httpx.Client, path: str) -> None:
    reply = client.get(f"{path}/")
    assert (reply.status_code, reply.history) == (200, [])


@pytest.mark.parametrize("query", ["", "?range=6h", "?a=b&c=", "?since=%3Cb%3E"])
def test_root_redirects_to_the_dashboard_and_keeps_the_query(
    client: httpx.Client, query: str
) -> None:
    for method in ("GET", "HEAD"):
        reply = client.request(method, f"/{query}")
        assert (reply.status_code, reply.headers["location"]) == (307, f"dashboard{query}")
        assert b"googletagmanager" not in reply.content


@pytest.mark.parametrize("path", ["/docs/", "/docs/?a=b", "/dashboard/", "/dashboard/?range=6h"])
def test_page_with_a_slash_redirects_relatively(client: httpx.Client, path: str) -> None:
    reply = client.get(path, headers={"X-Forwarded-Proto": "https"})
    assert reply.status_code == 307
    assert reply.headers["location"] == f"../{path[1:].replace('/', '', 1)}"


def test_no_path_redirects_to_an_absolute_address(client: httpx.Client) -> None:
    for path in ("/schema.json/", "/docs.json/", "/no/such/path/", "/predict//"):
        reply = client.get(path)
        assert (reply.status_code, "location" in reply.headers) == (404, False), path


def test_cache_stats_follow_hits_and_misses(client: httpx.Client) -> None:
    before = client.get("/cache/stats").json()
    for _ in range(2):
        client.post("/predict", json={"text": "Counted by the cache."})
    after = client.get("/cache/stats").json()
    assert after["hits"] - before["hits"] == 1
    assert after["misses"] - before["misses"] == 1
    assert after["cache_size"] - before["cache_size"] == 1
    assert after["hit_rate"] == pytest.approx(
        100 * after["hits"] / (after["hits"] + after["misses"])
    )


def test_rate_limit_counts_down_then_429_with_retry_after(served: ServedBento) -> None:
    with served.client() as client, served.client() as someone_else:
        assert (
            client.get("/rate-limit/status", params={"limit": "batch"}).json()["remaining"] == 2_000
        )
        for sent in range(1, 21):
            reply = client.post("/predict/batch", json={"texts": ["limited"] * 100})
            assert reply.status_code == 200
            assert reply.headers["ratelimit-policy"] == '"batch";q=2000;w=60'
            assert reply.headers["ratelimit"].startswith(f'"batch";r={2_000 - 100 * sent};t=')
        reply = client.post("/predict/batch", json={"texts": ["limited"]})
        assert reply.status_code == 429
        assert reply.headers["content-type"] == "application/problem+json"
        assert 1 <= int(reply.headers["retry-after"]) <= 60
        status = client.get("/rate-limit/status", params={"limit": "batch"}).json()
        assert (status["limit"], status["remaining"]) == (2_000, 0)
        assert 0 < status["reset_in_seconds"] <= 60
        # Other limits of this client, and the same limit of others, are untouched.
        assert client.post("/predict", json={"text": "limited"}).status_code == 200
        assert someone_else.post("/predict/batch", json={"texts": ["x"]}).status_code == 200


def series(client: httpx.Client) -> set[str]:
    lines = client.get("/metrics").text.splitlines()
    return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}


def test_random_paths_and_methods_add_no_metrics(client: httpx.Client) -> None:
    def scan(number: int) -> None:
        client.get(f"/wp-admin/{number}")
        client.request(f"SCAN{number}", "/predict")
        client.post(f"/predict/{number}", json={"text": "x"})

    series(client)  # which has metrics of its own
    for number in range(5):
        scan(number)
    before = series(client)
    for number in range(5, 30):
        scan(number)
    # The drift of the predictions before may be found out meanwhile.
    added = {line for line in series(client) - before if not line.startswith("model_drift_")}
    assert added == set()
    assert not any("wp-admin" in line or "SCAN" in line for line in before)
    # BentoML's own know our routes.
    client.post("/predict", json={"text": "Seen by both."})
    assert any(
        line.startswith("bentoml_service_request_total{") and 'endpoint="/predict"' in line
        for line in series(client)
    )


def test_replies_have_security_headers_and_allow_no_other_origin(client: httpx.Client) -> None:
    for reply in (
        client.post("/predict", json={"text": "Framed."}),
        client.get("/no/such/path"),
        client.get("/livez"),
    ):
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["content-security-policy"].startswith("default-src 'none'")
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    reply = client.options("/predict", headers=asked)
    assert reply.status_code == 405
    assert not any(name.startswith("access-control") for name in reply.headers)


def test_metrics_have_their_documented_names(client: httpx.Client) -> None:
    client.post("/predict", json={"text": "Seen by the metrics."})
    client.get("/no/such/path")
    # Some are first told a moment after the start.
    wait_until(lambda: "model_drift_psi{" in client.get("/metrics").text)
    families = {
        family.name: family
        for family in text_string_to_metric_families(client.get("/metrics").text)
    }
    labels = {
        name: set(family.samples[0].labels) - {"le"}
        for name, family in families.items()
        if family.samples
    }
    assert labels["http_requests"] == {"endpoint", "status"}
    assert labels["http_request_duration_seconds"] == {"endpoint"}
    assert labels["model_predictions"] == {"sentiment", "version"}
    assert labels["model_inference_duration_seconds"] == {"version"}
    assert labels["model_confidence"] == labels["model_queued_texts"] == {"version"}
    assert labels["model_tokens"] == {"version", "kind"}
    assert labels["model_revision_info"] == {"version", "revision", "engine"}
    assert labels["model_drift_psi"] == labels["model_drift_psi_noise"] == {"version", "feature"}
    assert labels["sentiment_build_info"] == {"version", "python", "bentoml"}
    assert labels["cache_hits"] == labels["cache_misses"] == set()
    assert labels["db_queries"] == labels["db_query_duration_seconds"] == {"type"}
    endpoints = {sample.labels["endpoint"] for sample in families["http_requests"].samples}
    assert "other" in endpoints
    assert "/no/such/path" not in endpoints
    up = {sample.labels["version"]: sample.value for sample in families["runner_up"].samples}
    assert up == {"v1": 1, "v2": 1}


def test_one_openapi_document_lists_every_endpoint(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    # The order of /docs.
    assert [tag["name"] for tag in document["tags"]][:2] == ["predictions", "analytics"]
    operations = [each for path in document["paths"].values() for each in path.values()]
    assert {tag for each in operations for tag in each["tags"]} == {
        tag["name"] for tag in document["tags"]
    }
    assert "[dashboard](dashboard)" in document["info"]["description"]
    closed = {route.path for route in ROUTES if route.scope is not None}
    probes = {"/health", "/livez", "/readyz", "/ping", "/v2/health/live", "/v2/health/ready"}
    assert set(document["paths"]) == {*closed, *probes}
    schemas = document["components"]["schemas"]
    for route in ROUTES:
        if route.method != "POST" or route.path == "/jobs":  # its body is a file
            continue
        path = route.path
        operation = document["paths"][path]["post"]
        reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        request = schemas[reference.rpartition("/")[2]]
        # The document's own example is a request that works.
        if path != "/feedback" and route.scope != "admin":
            assert client.post(route.paths[0], json=request["example"]).status_code == 200
        problem = "application/json" if path.startswith("/v2") else "application/problem+json"
        assert problem in operation["responses"]["422"]["content"]
        parameters = {(each["in"], each["name"]) for each in operation["parameters"]}
        headers = {("header", "X-Request-Timeout-Ms")}
        if route.is_repeatable:
            headers.add(("header", "Idempotency-Key"))
        if route.predicts:
            headers.add(("header", "X-Sentiment-Source"))
        assert {entry for entry in parameters if entry[0] != "path"} == headers
        limited = {"RateLimit", "RateLimit-Policy"} if route.limit else set()
        assert set(operation["responses"]["429"]["headers"]) == {*limited, "Retry-After"}
    references = {text.split('"')[0] for text in str(document).split("#/components/schemas/")[1:]}
    assert {reference.split("'")[0] for reference in references} <= set(schemas)


def test_every_endpoint_is_reached_below_the_path_prefix(unlimited: ServedBento) -> None:
    """As a proxy that leaves the prefix in the path has it; probes come without."""
    with unlimited.client() as client:
        for path in (*GETS, "/dashboard/main.js", "/static_content/swagger-ui.css"):
            assert client.get(f"/models/sentiment{path}").status_code == 200, path
        for path in ("/predict", "/predict/", "/models/sentiment/predict"):
            reply = client.post(path, json={"text": "Below a prefix."})
            assert (reply.status_code, reply.history) == (200, []), path
        page = client.get("/models/sentiment/", follow_redirects=True)
        assert (page.status_code, page.url.path) == (200, "/models/sentiment/dashboard")
        home = client.get("/models/sentiment")
        assert (home.status_code, home.headers["location"]) == (308, "sentiment/")
        before = unlimited.metric("http_requests_total", endpoint="/health")
        client.get("/models/sentiment/health/")
        assert unlimited.metric("http_requests_total", endpoint="/health") == before + 1
        document = client.get("/models/sentiment/openapi.json").json()
        assert document["servers"] == [{"url": "."}]


def test_script_of_a_listed_website_can_read_every_refusal(unlimited: ServedBento) -> None:
    shop = {"Origin": "https://shop.example"}
    json_ = shop | {"Content-Type": "application/json"}
    with unlimited.client() as client:
        for reply, status in (
            (client.post("/predict", content=b"{", headers=json_), 400),
            (client.post("/predict", content=b"{}", headers=json_), 422),
            (client.post("/predict", content=b"{}", headers=shop), 415),
            (client.post("/predict", headers=json_ | {"Content-Encoding": "br"}), 415),
            (client.post("/predict", content=b" " * 5_000_000, headers=json_), 413),
            (client.get("/predict", headers=shop), 405),
            (client.get("/no/such/path", headers=shop), 404),
            (client.get("/health", headers=shop | {"Host": "evil.example"}), 421),
            (client.get("/health", headers=shop | {"X-Long": "x" * 100_000}), 431),
        ):
            assert reply.status_code == status
            assert reply.headers["access-control-allow-origin"] == "https://shop.example"
            assert "X-Request-Id" in reply.headers["access-control-expose-headers"]
            assert reply.headers.get_list("vary") == ["Origin"]


def test_docs_page_works_without_the_internet(client: httpx.Client) -> None:
    page = client.get("/docs").text
    assert "https://" not in page
    for asset in ("static_content/swagger-ui-bundle.js", "static_content/swagger-ui.css"):
        assert asset in page
        assert client.get(f"/{asset}").status_code == 200
