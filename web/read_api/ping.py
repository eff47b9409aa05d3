"""GET /ping, by which SageMaker and MLflow's client watch a container."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Response

from web.schemas.open_inference import ServerReady


def ping_router(ready: Callable[[], bool]) -> APIRouter:
    """`ready`: whether the process takes predictions."""
    router = APIRouter(tags=["sagemaker"])

    @router.get("/ping", responses={503: {"model": ServerReady}})
    async def ping(response: Response) -> ServerReady:
        """200 once predictions are served; 503 before, and while the service stops."""
        is_ready = ready()
        response.status_code = 200 if is_ready else 503
        return ServerReady(ready=is_ready)

    return router
