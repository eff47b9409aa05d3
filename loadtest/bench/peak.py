"""What the cores multiply at most: large products of matrices in float32, bf16 and 8 bits.

An engine spends most of its time in such products, so what it reaches of them says how much of a
ratio between two engines the machine leaves to gain.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from loadtest.bench.own_process import own_process
from runners.cpu import usable_cpus

PRECISIONS = ("float32", "bf16", "int8")
_SIZE = 2_048


def measure_peak(rounds: int, seconds: float) -> Iterator[dict[str, Any]]:
    """A row for each precision and round, in billions of multiply-adds a second on all cores."""
    with own_process() as process:
        for number in range(rounds):
            for precision in PRECISIONS:
                measured = process.submit(_multiply, precision, seconds).result()
                yield {
                    "part": "peak",
                    "precision": precision,
                    "round": number,
                    "billion_multiply_adds_per_second": measured,
                }


def _multiply(precision: str, seconds: float) -> float:
    import torch

    torch.set_num_threads(usable_cpus())
    shape = (_SIZE, _SIZE)
    multiply: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    if precision == "int8":
        # torch has no public product of 8 bits; its own quantized layers call this one.
        multiply = torch._int_mm  # noqa: SLF001
        left, right = (torch.randint(-128, 128, shape, dtype=torch.int8) for _ in range(2))
    else:
        multiply = torch.matmul
        kind = torch.bfloat16 if precision == "bf16" else torch.float32
        left, right = (torch.randn(shape, dtype=kind) for _ in range(2))
    multiply(left, right)  # the first may choose how to compute it
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        multiply(left, right)
        best = min(best, time.perf_counter() - started)
    return _SIZE**3 / best / 1e9
