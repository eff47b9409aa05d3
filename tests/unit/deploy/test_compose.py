"""docker-compose.yml is valid, bounded, and passes on every setting."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.paths import ROOT
from core.settings import Settings
from core.settings_reference import SET_BY_COMPOSE, with_passed_settings

COMPOSE = ROOT / "docker-compose.yml"
EXAMPLE = ROOT / "deploy" / "compose.env.example"
ONE_SHOTS = {"migrations"}
OURS = {"api", "migrations"}
# Grafana and Jaeger are started on request only.
UI = {"grafana", "jaeger"}
PUBLISHED = {"api", "grafana"}
SETTINGS = {name.upper() for name in Settings.model_fields}
# Libraries read these themselves.
KNOWN_BESIDES_SETTINGS = {
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
}
VARIABLE = re.compile(r"\$\{(?P<name>[A-Z_]+)(?::(?P<kind>[-?])(?P<rest>[^}]*))?\}")

FILE: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
SERVICES: dict[str, dict[str, Any]] = FILE["services"]


def example() -> dict[str, str]:
    lines = EXAMPLE.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_it_is_what_the_schema_of_compose_says() -> None:
    check = Path(sys.executable).with_name("check-jsonschema")
    subprocess.run([check, "--builtin-schema", "vendor.compose-spec", COMPOSE], check=True)


def test_only_the_api_and_grafana_are_reached_from_outside() -> None:
    assert {name for name, service in SERVICES.items() if "ports" in service} == PUBLISHED
    assert not any("network_mode" in service for service in SERVICES.values())
    assert FILE["networks"]["inside"]["internal"] is True
    assert {name for name, service in SERVICES.items() if "outside" in service["networks"]} == {
        *PUBLISHED,
        "alertmanager",  # which goes there
    }


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned(name: str) -> None:
    image = SERVICES[name]["image"]
    if name in OURS:
        assert image == "${SENTIMENT_IMAGE:-sentiment:latest}"
    else:
        assert re.fullmatch(r"[a-z]+(/[a-z]+)?:v?\d+\.\d+(\.\d+)?(-[a-z]+)?", image)


@pytest.mark.parametrize("name", SERVICES)
def test_all_are_bounded_and_watched(name: str) -> None:
    service = SERVICES[name]
    assert "mem_limit" in service
    assert service["logging"]["options"]["max-size"]
    assert "no-new-privileges:true" in service["security_opt"]
    if name in OURS | {"prometheus", "alertmanager"}:
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    # Compose writes these into the root file system, and fails if that is read-only.
    assert not {"secrets", "configs"} & set(service)
    assert (service.get("profiles") == ["ui"]) == (name in UI)
    # Ours has one in its image.
    assert ("healthcheck" in service) == (name not in OURS)
    for other, wanted in service.get("depends_on", {}).items():
        ends = other in ONE_SHOTS
        condition = "service_completed_successfully" if ends else "service_healthy"
        assert wanted == {"condition": condition}
    assert ("restart" in service) is True


def sized(size: str) -> int:
    """The bytes of a size of docker: its units are powers of two."""
    match = VARIABLE.fullmatch(size)
    number, unit = re.fullmatch(r"(\d+)([mg])", match["rest"] if match else size).groups()  # type: ignore[union-attr]
    return int(number) << {"m": 20, "g": 30}[unit]


def test_guide_tells_what_the_parts_may_take() -> None:
    guide = " ".join((ROOT / "docs" / "deploy" / "compose.md").read_text().split())
    limits = {name: sized(service["mem_limit"]) for name, service in SERVICES.items()}
    ui = sum(limits.pop(name) for name in UI)
    stay = sum(limit for name, limit in limits.items() if name not in ONE_SHOTS)
    assert f"{stay / 2**30:g} GiB of memory" in guide
    assert f"{ui / 2**30:g} GiB more" in guide
    [metrics] = (
        option.partition("=")[2]
        for option in SERVICES["prometheus"]["command"]
        if option.startswith("--storage.tsdb.retention.size")
    )
    assert f"{metrics.removesuffix('GB')} GB of metrics" in guide
    spool = Settings(_env_file=None).log_max_bytes
    assert f"{spool / 2**30:g} GiB of spool" in guide


def test_no_secret_has_a_default() -> None:
    text = COMPOSE.read_text()
    found = {match["name"]: (match["kind"], match["rest"]) for match in VARIABLE.finditer(text)}
    secret = re.compile("PASSWORD|KEY|WEBHOOK")
    optional = [name for name, (kind, _) in found.items() if kind == "-" and secret.search(name)]
    assert {found[name][1] for name in optional} == {""}
    # `?` is checked for services of a profile that is off, too.
    assert {name for name, (kind, _) in found.items() if kind == "?"} == {"POSTGRES_PASSWORD"}
    # The example has all that must be set, and nothing that is not read.
    assert set(example()) <= set(found) | set(SERVICES["api"]["environment"])
    assert "POSTGRES_PASSWORD" in example()
    assert {value for name, value in example().items() if secret.search(name)} == {""}


def test_every_setting_is_passed_on_or_set() -> None:
    text = COMPOSE.read_text()
    assert with_passed_settings(text) == text
    environment = SERVICES["api"]["environment"]
    passed = {name for name, value in environment.items() if value is None}
    assert passed == SETTINGS - SET_BY_COMPOSE | KNOWN_BESIDES_SETTINGS
    # The image sets HOST and PORT; REDIS_MAX_MEMORY goes to the redis service.
    assert set(environment) - passed == SET_BY_COMPOSE - {"HOST", "PORT", "REDIS_MAX_MEMORY"}
    assert set(SERVICES["migrations"]["environment"]) <= SETTINGS


def test_size_of_the_cache_is_checked_before_redis_starts() -> None:
    redis = SERVICES["redis"]
    assert "${REDIS_MAX_MEMORY:-256mb}" in redis["command"]
    assert redis["mem_limit"] == "${REDIS_MEMORY:-512m}"
    # The image refuses a size that is none, once; Redis would be started again for ever.
    assert SERVICES["migrations"]["environment"]["REDIS_MAX_MEMORY"] is None
    assert redis["depends_on"] == {"migrations": {"condition": "service_completed_successfully"}}
    assert {"REDIS_MAX_MEMORY", "REDIS_MEMORY"} <= set(example())


def test_traces_have_an_endpoint_only_with_the_ui() -> None:
    lines = EXAMPLE.read_text().splitlines()
    at = lines.index("# COMPOSE_PROFILES=ui")
    assert lines[at + 1] == "# OTEL_EXPORTER_OTLP_ENDPOINT=http://jaeger:4318"
    assert SERVICES["api"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"] is None


def test_what_is_mounted_is_there() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).exists(), source
            else:
                assert source in FILE["volumes"]


def test_it_is_given_the_time_to_stop() -> None:
    settings = Settings(_env_file=None)
    grace = VARIABLE.fullmatch(SERVICES["api"]["stop_grace_period"])
    assert grace is not None
    assert int(grace["rest"].removesuffix("s")) > settings.api_stop_seconds


def test_prometheus_asks_what_is_there() -> None:
    [job] = yaml.safe_load((ROOT / "monitoring" / "prometheus.yml").read_text())["scrape_configs"]
    [api] = job["dns_sd_configs"]
    assert (api["names"], api["port"]) == (["api"], 3000)
    key = job["authorization"]["credentials_file"]
    assert f"> {key} " in " ".join(SERVICES["prometheus"]["entrypoint"])
    for path in (ROOT / "monitoring" / "grafana" / "provisioning" / "datasources").glob("*.yml"):
        for source in yaml.safe_load(path.read_text())["datasources"]:
            assert source["url"].split("/")[2].split(":")[0] in SERVICES


def test_files_with_secrets_are_written_before_alertmanager_reads_them() -> None:
    written = " ".join(SERVICES["alertmanager"]["entrypoint"])
    configuration = yaml.safe_load((ROOT / "monitoring" / "alertmanager.yml").read_text())
    slack, pagerduty = configuration["receivers"]
    [slack], [pagerduty] = slack["slack_configs"], pagerduty["pagerduty_configs"]
    for file in (slack["api_url_file"], pagerduty["routing_key_file"]):
        folder, _, name = file.rpartition("/")
        assert f"cd {folder} " in written
        assert f"> {name} " in written


def test_grafana_finds_its_dashboards_and_data_sources() -> None:
    grafana = SERVICES["grafana"]
    mounted = {volume.split(":")[1]: volume.split(":")[0] for volume in grafana["volumes"]}
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (ROOT / mounted[str(home.parent)] / home.name).exists()
    provisioning = ROOT / mounted["/etc/grafana/provisioning"]
    for path in (provisioning / "dashboards").glob("*.yml"):
        for provider in yaml.safe_load(path.read_text())["providers"]:
            assert provider["options"]["path"] in mounted
    sources = [
        source
        for path in (provisioning / "datasources").glob("*.yml")
        for source in yaml.safe_load(path.read_text())["datasources"]
    ]
    assert {source["uid"] for source in sources} == {"prometheus", "jaeger"}
    # A dashboard's data source is a variable, whose choices are the sources of this type.
    for dashboard in (ROOT / "monitoring" / "dashboards").glob("*.json"):
        source, *choices = json.loads(dashboard.read_text())["templating"]["list"]
        assert (source["type"], source["query"]) == ("datasource", "prometheus")
        assert {choice["datasource"]["uid"] for choice in choices} == {f"${{{source['name']}}}"}
