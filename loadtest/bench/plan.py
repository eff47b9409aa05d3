"""How much is measured: the default run of half an hour, and the quick one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from loadtest.bench.peers import ALL, LITSERVE, Peer
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


THINKING = (1.0, 3.0)
_HEADLINES = {(Kind.distinct, 64), (Kind.repeated, 8), (Kind.mixed, 100)}
_CLIENTS = (1, 8, 64, 100, 256)


@dataclass(frozen=True)
class Plan:
    """The default run, where a field is not given."""

    cells: tuple[Cell, ...] = (
        *(
            Cell(kind, clients, headline=(kind, clients) in _HEADLINES)
            for kind in Kind
            for clients in _CLIENTS
        ),
        Cell(Kind.mixed, 100, THINKING, headline=True, longer=4),
    )
    peers: tuple[Peer, ...] = ALL
    # Of the base size, ours and LitServe alone.
    base_cells: tuple[Cell, ...] = (Cell(Kind.distinct, 64, headline=True),)
    rounds: int = 3
    seconds: float = 3.0
    warm_up_seconds: float = 0.5
    # (texts, tokens) of a batch
    shapes: tuple[tuple[int, int], ...] = ((1, 24), (8, 24), (32, 24), (32, 128), (4, 512))
    sizes: tuple[str, ...] = (STARTER, BASE)
    engine_rounds: int = 3
    engine_seconds: float = 0.25
    peak_seconds: float = 1.0
    cost_tokens: tuple[int, ...] = (8, 32, 128, 400)  # words: a word of ours is a token
    cost_batches: tuple[int, ...] = (1, 10, 32, 100)
    cost_clients: tuple[int, ...] = (1, 8, 64, 256)
    starts: int = 3

    def rounds_of(self, cell: Cell) -> int:
        return self.rounds if cell.headline else 1

    def steps(self) -> dict[Part, int]:
        """How many measurements each part has; of engines about, until the models are found."""
        return {
            Part.engines: 1 + len(self.sizes) * _USUAL_ENGINES,
            Part.start: self.starts,
            Part.service: 1
            + len(self.peers)
            + sum(
                self.rounds_of(cell) * (2 + sum(has_cell(peer, cell) for peer in self.peers))
                for cell in self.cells
            )
            + sum(2 * self.rounds_of(cell) for cell in self.base_cells)
            + bool(self.base_cells),
            Part.cost: len(self.cost_tokens + self.cost_batches + self.cost_clients)
            + 1
            + self.rounds,
        }


def has_cell(peer: Peer, cell: Cell) -> bool:
    """Whether a peer, which has no cache, no batches and no second version, is sent a cell."""
    few = {1, 8, 64}
    return cell.kind is Kind.distinct and (peer.name == LITSERVE or cell.clients in few)


_USUAL_ENGINES = 5  # torch in bf16 among them

QUICK = Plan(
    cells=(
        Cell(Kind.distinct, 64, headline=True),
        Cell(Kind.repeated, 8, headline=True),
        Cell(Kind.mixed, 100, THINKING, headline=True),
    ),
    base_cells=(),
    # The others need environments of gigabytes.
    peers=tuple(peer for peer in ALL if peer.name == LITSERVE),
    rounds=1,
    shapes=((1, 24), (32, 24)),
    sizes=(STARTER,),
    engine_rounds=2,
    engine_seconds=0.2,
    cost_tokens=(8, 128),
    cost_batches=(100,),
    cost_clients=(),
    starts=1,
)
