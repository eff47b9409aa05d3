"""What docker-compose.yml promises to who runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.paths import ROOT
from core.settings import Settings

COMPOSE = ROOT / "docker-compose.yml"
EXAMPLE = ROOT / "deploy" / "compose.env.example"
ONE_SHOTS = {"migrations"}
OURS = {"api", "migrations"}
PUBLISHED = {"api", "grafana"}
SETTINGS = {name.upper() for name in Settings.model_fields}
# uvicorn's.
KNOWN_BESIDES_SETTINGS = {"FORWARDED_ALLOW_IPS"}
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
    if name in OURS:
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    # Ours has one in its image.
    assert ("healthcheck" in service) == (name not in OURS)
    for other, wanted in service.get("depends_on", {}).items():
        ends = other in ONE_SHOTS
        condition = "service_completed_successfully" if ends else "service_healthy"
        assert wanted == {"condition": condition}
    assert ("restart" in service) is True


def test_no_secret_has_a_default() -> None:
    text = COMPOSE.read_text()
    found = {match["name"]: (match["kind"], match["rest"]) for match in VARIABLE.finditer(text)}
    for name, (kind, default) in found.items():
        if "PASSWORD" in name:
            assert (kind, name in example()) == ("?", True)
        if name == "API_KEYS":
            assert (kind, default) == ("-", "")
    # All that is asked for is in the example, and what it has is asked for.
    asked = set(found) | {secret["environment"] for secret in FILE["secrets"].values()}
    assert {name for name, (kind, _) in found.items() if kind == "?"} <= set(example())
    assert set(example()) <= asked
    secret = [name for name in example() if re.search("PASSWORD|KEY|WEBHOOK", name)]
    assert {example()[name] for name in secret} == {""}


def test_the_environment_is_made_of_settings() -> None:
    for name in OURS:
        assert set(SERVICES[name]["environment"]) <= SETTINGS | KNOWN_BESIDES_SETTINGS


def test_defaults_are_those_of_the_settings() -> None:
    defaults = {
        name.lower(): match["rest"]
        for name, value in SERVICES["api"]["environment"].items()
        if (match := VARIABLE.fullmatch(value)) and name in SETTINGS - {"ALLOW_ANONYMOUS"}
    }
    assert len(defaults) > 5
    parsed = Settings.model_validate(defaults)
    for name, text in defaults.items():
        if text:
            assert getattr(parsed, name) == Settings.model_fields[name].default, name


def test_what_is_mounted_is_there() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).exists(), source
            else:
                assert source in FILE["volumes"]
        assert set(service.get("secrets", [])) <= set(FILE["secrets"])


def test_it_is_given_the_time_to_stop() -> None:
    settings = Settings(_env_file=None)
    grace = int(SERVICES["api"]["stop_grace_period"].removesuffix("s"))
    assert grace > settings.drain_seconds + settings.stop_seconds


def test_prometheus_asks_what_is_there() -> None:
    [job] = yaml.safe_load((ROOT / "monitoring" / "prometheus.yml").read_text())["scrape_configs"]
    [api] = job["dns_sd_configs"]
    assert (api["names"], api["port"]) == (["api"], 3000)
    key = Path(job["authorization"]["credentials_file"])
    assert key.parent == Path("/run/secrets")
    assert key.name in SERVICES["prometheus"]["secrets"]
    for path in (ROOT / "monitoring" / "grafana" / "provisioning" / "datasources").glob("*.yml"):
        for source in yaml.safe_load(path.read_text())["datasources"]:
            assert source["url"].split("/")[2].split(":")[0] in SERVICES
