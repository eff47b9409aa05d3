"""The bill of materials is valid CycloneDX, and holds all that was found."""

from __future__ import annotations

import json

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from loadtest.image.bill_of_materials import bill_of_materials

CONTENTS = {
    "packages": {"numpy": "2.4.0"},
    "system_packages": [["libc6", "2.36-9", "amd64"]],
    "models": [
        {"name": "sentiment-distilbert-v1", "version": "2a78", "files": {"config.json": "ab" * 32}}
    ],
}


def test_bill_of_materials_lists_packages_and_models_and_is_valid() -> None:
    text = bill_of_materials("sentiment:latest", CONTENTS)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bom = json.loads(text)
    assert {component.get("purl") for component in bom["components"]} == {
        "pkg:pypi/numpy@2.4.0",
        "pkg:deb/debian/libc6@2.36-9?arch=amd64",
        None,
    }
    [model] = [part for part in bom["components"] if part["type"] == "machine-learning-model"]
    [file] = model["components"]
    assert file["hashes"] == [{"alg": "SHA-256", "content": "ab" * 32}]
    assert bom["metadata"]["component"]["name"] == "sentiment:latest"
