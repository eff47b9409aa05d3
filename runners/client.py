"""The API's client of a runner: admission, calls, and the runner's state."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence

from core import metrics, tracing
from core.background import Background
from core.counted import counted
from core.errors import RunnerUnavailable, describe_error
from core.request_context import current, remaining_seconds
from core.types import Classification, DesiredModel, LongText, RunnerDescription, Version
from runners.admission import (
    AHEAD_TOKENS,
    Admission,
    AdmissionRejected,
    QueueBounds,
    RecentCallers,
)
from runners.calls import RunnerCalls
from runners.desired_state import DesiredState
from runners.lanes import PIECE_CHARACTERS, Lane, estimated_tokens, lane_of, pieces
from runners.settling import Settling
from runners.transport import RUNNER_FAILURES, RunnerApi

logger = logging.getLogger("bentoml.sentiment.runner")

# Looking up the hosts, asking them, and having them load a model take at most 2.5 s together.
DESCRIBE_TIMEOUT_SECONDS = 3.0
STARTING_POLL_SECONDS = 0.1
READY_POLL_SECONDS = 1.0
FIRST_DESCRIPTION_SECONDS = 5.0
# Of a request of many tokens: one piece is computed while another waits.
SENDERS = 2
# Gets the number of texts before those of a piece, and its results.
OnPiece = Callable[[int, Sequence[Classification]], None]

# A runner on another host names its model, and a series of metrics is never given back.
MOST_NAMED = 1_000


class RunnerClient(Background):
    """The client of one version's runner.

    A background task asks the runner for its description: often while it starts, then every second.
    """

    def __init__(
        self,
        version: Version,
        runner: RunnerApi,
        bounds: QueueBounds,
        *,
        timeout_seconds: float,
        recent: RecentCallers | None = None,
        follows_policy: bool = False,
    ) -> None:
        """`bounds` and `recent` are those of this process; `timeout_seconds` caps deadlines.

        With `follows_policy` no call is sent before `set_desired` was called, and while the runner
        has yet to load the model of the policy after a start without what it had saved.
        """
        self.version: Version = version
        # Of a runner with a model.
        self.last_description: RunnerDescription | None = None
        # Why the runner has no model; None if it has one, or does not answer.
        self.problem: str | None = None
        self.ready = False
        # By time.monotonic; None while it answers.
        self._down_since: float | None = None
        self._desired = DesiredState()
        self._settling = Settling(version, self._desired, follows_policy=follows_policy)
        self._is_described = asyncio.Event()
        self._refresh_now = asyncio.Event()
        self._runner = runner
        self._timeout_seconds = timeout_seconds
        # The revisions and engines that have a series of metrics.
        self._named: set[tuple[str, str]] = set()
        self._admission = Admission(bounds, recent=recent)
        self._calls = RunnerCalls(version, runner, timeout_seconds=timeout_seconds)

    def description(self) -> RunnerDescription:
        """The last description that the runner gave.

        Raises:
            RunnerUnavailable: the runner has never answered, or has no model.
        """
        self._refuse_without_model()
        if self.last_description is None:
            raise RunnerUnavailable(f"Model {self.version} is still loading")
        return self.last_description

    async def wait_until_described(self) -> RunnerDescription:
        """The last description; waits a moment for the first one.

        Raises:
            RunnerUnavailable: the runner did not answer within `FIRST_DESCRIPTION_SECONDS`, or
                has no model.
        """
        if self.last_description is None and self.problem is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FIRST_DESCRIPTION_SECONDS):
                    await self._is_described.wait()
        return self.description()

    @property
    def is_full(self) -> bool:
        """Whether `admit` would refuse a single text."""
        return self._admission.is_full("interactive")

    def room(self, caller: str) -> float:
        """How many small requests of a caller `admit` would let in."""
        return self._admission.room("interactive", caller)

    @property
    def waiting_requests(self) -> int:
        """How many requests of callers wait for the model in this process."""
        return self._admission.waiting_requests

    @property
    def is_idle(self) -> bool:
        """Whether no text of this process waits for the model."""
        return self._admission.is_idle

    @contextlib.contextmanager
    def admit(
        self, texts: Sequence[str], long_text: LongText = "truncate", *, lane: Lane | None = None
    ) -> Iterator[None]:
        """Reserve room for `texts`, at least one; classify them inside the block.

        Without a `lane`, their tokens decide.

        Raises:
            Overloaded: they would wait too long.
            DeadlineExceeded: they would wait past the deadline of the request.
            RunnerUnavailable: the runner has no model, or has been down for as long as a request
                may take.
        """
        self._refuse_without_model()
        self._refuse_if_long_down()
        tokens = self._tokens(texts, long_text)
        lane = lane or lane_of(tokens)
        try:
            with self._admission.admit(
                lane,
                texts=len(texts),
                tokens=tokens,
                deadline_seconds=self._deadline_seconds(),
                caller=None if (context := current()) is None else context.caller,
            ):
                yield
        except AdmissionRejected as error:
            raise error.to_client() from error

    def _refuse_without_model(self) -> None:
        if self.problem is not None:
            raise RunnerUnavailable(f"Model {self.version} cannot be loaded; /health says why")

    def _refuse_if_long_down(self) -> None:
        """Refuse what could only wait in vain, as all have that came since the runner went down.

        A runner that is replaced is back sooner, and requests wait for it.
        """
        if self._down_since is None:
            return
        if (seconds := time.monotonic() - self._down_since) > self._timeout_seconds:
            raise RunnerUnavailable(f"Model {self.version} has been down for {seconds:.0f} s")

    def _deadline_seconds(self) -> float:
        return min(remaining_seconds(), self._timeout_seconds)

    def _tokens(self, texts: Sequence[str], long_text: LongText) -> int:
        return estimated_tokens(texts, self._window, long_text)

    @property
    def _window(self) -> int | None:
        """The most tokens of a text that the model reads at once; None before it is described."""
        known = self.last_description
        return known.max_tokens if known is not None else None

    def lane(self, texts: Sequence[str], long_text: LongText = "truncate") -> Lane:
        """The lane of a request for `texts`."""
        return lane_of(self._tokens(texts, long_text))

    async def classify(
        self,
        texts: Sequence[str],
        long_text: LongText = "truncate",
        *,
        lane: Lane | None = None,
        on_piece: OnPiece | None = None,
    ) -> list[Classification]:
        """Classify `texts`, which were admitted; the i-th result belongs to the i-th text.

        `on_piece` gets those that have come: the index of the first, and their results.

        Raises:
            RunnerUnavailable: the runner is down, or failed.
            DeadlineExceeded: the deadline of a bulk request passed.
        """
        tokens = self._tokens(texts, long_text)
        lane = lane or lane_of(tokens)
        attributes = {"version": self.version, "texts": len(texts), "lane": lane}
        with tracing.span("classify", attributes):
            if tokens > AHEAD_TOKENS or sum(map(len, texts)) > PIECE_CHARACTERS:
                return await self._send_by_pieces(texts, lane, long_text, on_piece)
            answers = await self._send(texts, tokens, lane, long_text)
            if on_piece is not None:
                on_piece(0, answers)
            return answers

    async def _send_by_pieces(
        self, texts: Sequence[str], lane: Lane, long_text: LongText, on_piece: OnPiece | None
    ) -> list[Classification]:
        """Classify many tokens, of which few wait in the queue of the runner at a time.

        So the texts of other requests come in between, and do not wait for the last of these.
        """
        rest = _numbered(pieces(texts, AHEAD_TOKENS // SENDERS, self._window, long_text))
        answers: dict[int, list[Classification]] = {}

        async def send_next() -> None:
            for first, piece in rest:
                tokens = self._tokens(piece, long_text)
                answers[first] = await self._send(piece, tokens, lane, long_text)
                if on_piece is not None:
                    on_piece(first, answers[first])

        senders = [asyncio.create_task(send_next()) for _ in range(SENDERS)]
        try:
            await asyncio.gather(*senders)
        finally:
            for sender in senders:
                sender.cancel()
        return [answer for _, piece in sorted(answers.items()) for answer in piece]

    async def _send(
        self, texts: Sequence[str], tokens: int, lane: Lane, long_text: LongText
    ) -> list[Classification]:
        await self._wait_until_settled()
        started = time.perf_counter()
        results = await self._calls.send(texts, lane, self._deadline_seconds(), long_text)
        self._down_since = None
        known = self.last_description
        if known is not None and results[0].revision != known.revision:
            self._refresh_now.set()
        self._admission.throughput.add(tokens, time.perf_counter() - started)
        return results

    async def _wait_until_settled(self) -> None:
        if await self._settling.wait(self._deadline_seconds()):
            return
        self.description()  # raises if the runner has never answered
        raise RunnerUnavailable(
            f"Model {self.version} has yet to load the model of the rollout policy"
        )

    def set_desired(self, desired: DesiredModel, as_of: float) -> None:
        """Have every host of the runner hold this model, also after a restart.

        `as_of` is the `time.monotonic()` at which the database was read, -inf if it was not.
        """
        if self._desired.set(desired, as_of):
            self._refresh_now.set()

    async def refresh(self) -> None:
        """Get the runner's description, and request the desired model if needed."""
        try:
            async with asyncio.timeout(DESCRIBE_TIMEOUT_SECONDS):
                description = await self._runner.describe()
                if (desired := self._desired.to_request(description)) is not None:
                    description = await self._runner.load(desired)
                    self._desired.note(description)
        except RUNNER_FAILURES as error:
            if self.ready:
                logger.warning(
                    "runner %s no longer answers: %s", self.version, describe_error(error)
                )
            self._note_down(problem=None)
        except Exception:  # a fault of our own: the background task logs it and asks again
            self.ready = False
            raise
        else:
            if description.has_model:
                self._note_up(description)
            else:
                self._note_down(problem=description.load_error or "it does not say why")
        # Set each time: of the values that the worker processes report, the newest counts.
        metrics.runner_up.labels(self.version).set(self.ready)

    def _note_down(self, problem: str | None) -> None:
        if problem is not None and problem != self.problem:
            logger.error("runner %s has no model: %s", self.version, problem)
        self.problem = problem
        self.ready = False
        self._down_since = self._down_since or time.monotonic()

    def _note_up(self, description: RunnerDescription) -> None:
        self.problem = None
        self._apply(description)
        is_ready = self._settling.judge(description)
        if is_ready and not self.ready:
            logger.info(
                "runner %s is ready: model %s on %s, on %s",
                self.version, description.tag, description.engine,
                counted(description.hosts, "host"),
            )  # fmt: skip
        self.ready = is_ready
        self._down_since = None

    def _apply(self, description: RunnerDescription) -> None:
        before, self.last_description = self.last_description, description
        if before is not None:
            self._set_info(before, 0)
        self._set_info(description, 1)
        if description.tokens_per_second:
            self._admission.throughput.seed(description.tokens_per_second)
        self._is_described.set()

    def _set_info(self, described: RunnerDescription, value: int) -> None:
        names = (described.revision, described.engine)
        if len(self._named) < MOST_NAMED:
            self._named.add(names)
        elif names not in self._named:
            names = ("other", "other")
        metrics.revision_info.labels(self.version, *names).set(value)

    async def _run(self) -> None:
        while True:
            self._refresh_now.clear()
            await self.refresh()
            await asyncio.sleep(STARTING_POLL_SECONDS)
            # What says why it has no model is not about to have one.
            if self.ready or self.problem is not None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(READY_POLL_SECONDS):
                        await self._refresh_now.wait()


def _numbered(pieces: Iterator[Sequence[str]]) -> Iterator[tuple[int, Sequence[str]]]:
    """Each piece with the number of texts before it."""
    first = 0
    for piece in pieces:
        yield first, piece
        first += len(piece)


def have_room(runners: Collection[RunnerClient], caller: str, under_way: int) -> bool:
    """Whether one more small request of a caller would be let in by every one of `runners`.

    Of the requests of all callers `under_way` in this process, those that wait for no model yet
    take room too.
    """
    unseen = under_way - sum(runner.waiting_requests for runner in runners)
    return max(unseen, 0) < min(runner.room(caller) for runner in runners)
