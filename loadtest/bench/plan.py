"""How much is measured: the default run of half an hour, and the quick one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from loadtest.traffic import Kind

# The starter's, which is served, and DistilBERT-base's, which a fine-tuned checkpoint mostly has.
STARTER, BASE = "starter", "base"


class Part(StrEnum):
    engines = "engines"
    service = "service"
    cost = "cost"
    start = "start"


@dataclass(frozen=True)
class Cell:
    """One traffic at one number of clients, measured on each server in every round.

    A headline cell is what a required figure rests on, so it gets every round; others get one.
    Clients that think send little, so they get `longer` times the seconds.
    """

    kind: Kind
    clients: int
    think: tuple[float, float] = (0.0, 0.0)
    headline: bool = False
    longer: int = 1


@dataclass(frozen=True)
class Plan:
    cells: tuple[Cell, ...]
    base_cells: tuple[Cell, ...]  # of the base size, ours and the peer alone
    rounds: int
    seconds: float
    warm_up_seconds: float
    shapes: tuple[tuple[int, int], ...]  # (texts, tokens) of a batch
    sizes: tuple[str, ...]
    engine_rounds: int
    engine_seconds: float
    cost_tokens: tuple[int, ...]  # words, to be exact: a word of ours is a token
    cost_batches: tuple[int, ...]
    cost_clients: tuple[int, ...]
    starts: int

    def rounds_of(self, cell: Cell) -> int:
        return self.rounds if cell.headline else 1


THINKING = (1.0, 3.0)
_HEADLINES = {(Kind.distinct, 64), (Kind.repeated, 8), (Kind.mixed, 100)}
_CLIENTS = (1, 8, 64, 100, 256)

DEFAULT = Plan(
    cells=(
        *(
            Cell(kind, clients, headline=(kind, clients) in _HEADLINES)
            for kind in Kind
            for clients in _CLIENTS
        ),
        Cell(Kind.mixed, 100, THINKING, headline=True, longer=4),
    ),
    base_cells=(Cell(Kind.distinct, 64, headline=True),),
    rounds=3,
    seconds=3.0,
    warm_up_seconds=0.5,
    shapes=((1, 24), (8, 24), (32, 24), (32, 128), (4, 512)),
    sizes=(STARTER, BASE),
    engine_rounds=3,
    engine_seconds=0.25,
    cost_tokens=(8, 32, 128, 400),
    cost_batches=(1, 10, 32, 100),
    cost_clients=(1, 8, 64, 256),
    starts=3,
)

QUICK = Plan(
    cells=(
        Cell(Kind.distinct, 64, headline=True),
        Cell(Kind.repeated, 8, headline=True),
        Cell(Kind.mixed, 100, THINKING, headline=True),
    ),
    base_cells=(),
    rounds=1,
    seconds=3.0,
    warm_up_seconds=0.5,
    shapes=((1, 24), (32, 24)),
    sizes=(STARTER,),
    engine_rounds=2,
    engine_seconds=0.2,
    cost_tokens=(8, 128),
    cost_batches=(100,),
    cost_clients=(),
    starts=1,
)
