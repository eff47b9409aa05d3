"""The bill of materials of an image, in CycloneDX: its packages and its models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL


def bill_of_materials(image: str, contents: Mapping[str, Any]) -> str:
    """The document, as JSON, of what loadtest/image/contents.py found in the image."""
    bom = Bom(components=_components(contents))
    root = Component(name=image, type=ComponentType.CONTAINER, bom_ref="image")
    bom.metadata.component = root
    bom.register_dependency(root, bom.components)
    return JsonV1Dot6(bom).output_as_string(indent=2)


def _components(contents: Mapping[str, Any]) -> Iterator[Component]:
    for name, version in contents["packages"].items():
        url = PackageURL("pypi", name=name, version=version)
        yield Component(name=name, version=version, purl=url, bom_ref=str(url))
    for name, version, architecture in contents["system_packages"]:
        url = PackageURL("deb", "debian", name, version, {"arch": architecture})
        yield Component(name=name, version=version, purl=url, bom_ref=str(url))
    for model in contents["models"]:
        yield Component(
            name=model["name"],
            version=model["version"],
            type=ComponentType.MACHINE_LEARNING_MODEL,
            bom_ref=f"{model['name']}:{model['version']}",
            components=[
                Component(
                    name=file,
                    type=ComponentType.FILE,
                    bom_ref=f"{model['name']}:{model['version']}/{file}",
                    hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256)],
                )
                for file, sha256 in model["files"].items()
            ],
        )
