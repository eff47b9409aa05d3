"""The GET endpoints of the Open Inference Protocol V2: health, and what the models take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, Protocol

from fastapi import APIRouter, Depends, Response

from core.errors import RunnerUnavailable
from core.types import RunnerDescription, Version
from core.version import VERSION
from web.schemas.open_inference import (
    INPUT_NAME,
    OUTPUT_DATATYPES,
    ModelMetadata,
    ModelReady,
    ServerLive,
    ServerMetadata,
    ServerReady,
    TensorMetadata,
)

MODEL = "/v2/models/{model}"
MODEL_VERSION = "/v2/models/{model}/versions/{model_version}"


class DescribedRunner(Protocol):
    @property
    def ready(self) -> bool: ...

    def description(self) -> RunnerDescription: ...


class Models(Protocol):
    @property
    def runners(self) -> Mapping[Version, DescribedRunner]: ...


def model_version(model_version: Literal["1"]) -> str:
    """The version of a path: a model has one."""
    return model_version


def open_inference_router(models: Callable[[], Models], ready: Callable[[], bool]) -> APIRouter:
    """`ready`: whether the process takes predictions."""
    router = APIRouter(tags=["open inference"])

    @router.get("/v2")
    async def server_metadata() -> ServerMetadata:
        """The name of the server, and the extensions of the protocol that it has."""
        return ServerMetadata(name="sentiment", version=VERSION, extensions=["binary_tensor_data"])

    @router.get("/v2/health/live")
    async def server_live() -> ServerLive:
        """200 while the process lives."""
        return ServerLive(live=True)

    @router.get("/v2/health/ready", responses={503: {"model": ServerReady}})
    async def server_ready(response: Response) -> ServerReady:
        """200 once predictions are served; 503 before, and while the service stops."""
        is_ready = ready()
        response.status_code = 200 if is_ready else 503
        return ServerReady(ready=is_ready)

    @router.get(
        f"{MODEL_VERSION}/ready", name="model_version_ready", dependencies=[Depends(model_version)]
    )
    @router.get(f"{MODEL}/ready")
    async def model_ready(model: Version) -> ModelReady:
        """200 while the model answers; 503 else."""
        if not (models().runners[model].ready and ready()):
            raise RunnerUnavailable(f"Model {model} does not answer now")
        return ModelReady(name=model, ready=True)

    @router.get(MODEL_VERSION, name="model_version_metadata", dependencies=[Depends(model_version)])
    @router.get(MODEL)
    async def model_metadata(model: Version) -> ModelMetadata:
        """The inputs and outputs of a model."""
        held = models().runners[model].description()
        shapes = {"scores": [-1, len(held.labels)]}
        return ModelMetadata(
            name=model,
            versions=["1"],
            platform=held.engine,
            inputs=[TensorMetadata(name=INPUT_NAME, datatype="BYTES", shape=[-1])],
            outputs=[
                TensorMetadata(name=name, datatype=datatype, shape=shapes.get(name, [-1]))
                for name, datatype in OUTPUT_DATATYPES.items()
            ],
        )

    return router
