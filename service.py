"""The Bento service: composition at the top, one short method per API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from core.gc import paused_gc

with paused_gc():
    import bentoml

    from core.setting_checks import settings_for_serving

    # First: some modules read limits when they are imported. What cannot work is told in one line.
    settings = settings_for_serving()

    from core.errors import TextTooLong
    from core.request_context import caller
    from core.types import LongText, Sentiment, Version
    from runners.services import RunnerV1, RunnerV2
    from serving.process import ServingProcess
    from web.schemas.admin import ReloadRequest, RolloutReply, RolloutRequest
    from web.schemas.predictions import (
        AbCompareReply,
        AbCompareRequest,
        AbRequest,
        BatchReply,
        BatchRequest,
        FeedbackReply,
        FeedbackRequest,
        InvalidText,
        PredictionReply,
        PredictRequest,
    )

if TYPE_CHECKING:
    from runners.transport import RunnerApi

process = ServingProcess(settings, {"v1": RunnerV1, "v2": RunnerV2})


@bentoml.service(  # type: ignore[operator]
    name="sentiment",
    workers=settings.api_workers,
    http={"host": settings.host, "port": settings.port},
    logging={"access": {"enabled": False}},
    runner_probe={"enabled": False},  # __is_ready__ asks the runners
)
@bentoml.asgi_app(process.read_app, path="/")
class SentimentService:
    """Sentiment of English texts by two DistilBERT versions."""

    runner_v1: RunnerApi = bentoml.depends(RunnerV1)  # type: ignore[call-overload]
    runner_v2: RunnerApi = bentoml.depends(RunnerV2)  # type: ignore[call-overload]

    @bentoml.on_startup
    async def start(self) -> None:
        self.container = await process.start(
            bento, self, {"v1": self.runner_v1, "v2": self.runner_v2}
        )

    @bentoml.on_shutdown
    async def stop(self) -> None:
        await process.stop()

    async def __is_ready__(self) -> bool:
        return process.ready

    @bentoml.api(route="/predict", input_spec=PredictRequest, output_spec=PredictionReply)
    async def predict(
        self, text: str, version: Version | None, long_text: LongText | None = None
    ) -> PredictionReply:
        """Sentiment of one text."""
        predict = self.container.pipeline.predict
        [prediction] = await predict([text], version, "/predict", long_text)
        return PredictionReply.of(prediction)

    @bentoml.api(route="/predict/batch", input_spec=BatchRequest, output_spec=BatchReply)
    async def predict_batch(
        self,
        /,
        texts: list[str | InvalidText],
        version: Version | None,
        on_error: str,
        long_text: LongText | None = None,
    ) -> BatchReply:
        """Sentiment of many texts, in their order."""
        predict = self.container.pipeline.predict
        while True:
            valid = [index for index, text in enumerate(texts) if isinstance(text, str)]
            requested = [text for text in texts if isinstance(text, str)]
            try:
                answers = (
                    await predict(requested, version, "/predict/batch", long_text)
                    if requested
                    else []
                )
            except TextTooLong as error:
                reasons = {valid[index]: reason for index, reason in error.reasons.items()}
                if on_error != "skip":
                    raise TextTooLong(reasons, "texts.{}".format) from None
                # The others were computed, and are in the cache.
                texts = [
                    InvalidText(reasons[index]) if index in reasons else text
                    for index, text in enumerate(texts)
                ]
            else:
                following = iter(answers)
                return BatchReply.of(
                    [text if isinstance(text, InvalidText) else next(following) for text in texts]
                )

    @bentoml.api(route="/predict/ab", input_spec=AbRequest, output_spec=PredictionReply)
    async def predict_ab(
        self, text: str, subject: str | None, long_text: LongText | None = None
    ) -> PredictionReply:
        """Sentiment of one text by the version that the A/B split assigns to the subject."""
        predict = self.container.pipeline.predict_ab
        return PredictionReply.of(await predict(text, subject, long_text))

    @bentoml.api(
        route="/predict/ab-compare", input_spec=AbCompareRequest, output_spec=AbCompareReply
    )
    async def predict_ab_compare(
        self, text: str, subject: str | None, long_text: LongText | None = None
    ) -> AbCompareReply:
        """Sentiment of one text by both versions, side by side."""
        compare = self.container.pipeline.compare
        return AbCompareReply.of(await compare(text, subject, long_text))

    @bentoml.api(route="/feedback", input_spec=FeedbackRequest, output_spec=FeedbackReply)
    async def feedback(self, prediction_id: UUID, label: Sentiment) -> FeedbackReply:
        """The true label of a prediction; the latest label counts."""
        await self.container.feedback.add(prediction_id, label)
        return FeedbackReply(prediction_id=prediction_id, label=label)

    @bentoml.api(route="/admin/rollout", input_spec=RolloutRequest, output_spec=RolloutReply)
    async def rollout(self, /, **fields: Any) -> RolloutReply:
        """Another rollout policy: shares, shadow, schedule, guardrails, roles."""
        return RolloutReply.of(await self.container.rollout.change(author=caller(), **fields))

    @bentoml.api(route="/admin/models/reload", input_spec=ReloadRequest, output_spec=RolloutReply)
    async def reload_model(self, /, **fields: Any) -> RolloutReply:
        """Another model for a version, loaded beside the one that answers; see /health."""
        return RolloutReply.of(await self.container.rollout.reload(author=caller(), **fields))


# BentoML's decorator made a service of the class, which its types do not tell.
bento: Any = SentimentService
process.install(bento)
