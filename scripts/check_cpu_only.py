"""Refuses an installation that has a CUDA build of torch or any CUDA package."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, distributions, requires

# nvidia-ml-py is BentoML's: plain Python that asks the driver how many GPUs there are.
ALLOWED = {"nvidia-ml-py"}
CUDA_PREFIXES = ("nvidia-", "cuda-", "triton", "pytorch-triton")


def cuda_packages(names: list[str]) -> list[str]:
    """Those of the distribution `names` that belong to CUDA."""
    found = {name.lower().replace("_", "-") for name in names} - ALLOWED
    return sorted(name for name in found if name.startswith(CUDA_PREFIXES))


def main() -> int:
    try:
        wanted = [requirement.split()[0] for requirement in requires("torch") or []]
    except PackageNotFoundError:
        print("torch is not installed", file=sys.stderr)
        return 1
    installed = [distribution.metadata["Name"] for distribution in distributions()]
    found = cuda_packages([*wanted, *installed])
    if found:
        print(
            f"This torch is a CUDA build, or CUDA is installed: {', '.join(found[:5])}.\n"
            "Remove .venv and run make again with TORCH_INDEX set to an index of CPU builds "
            "(pytorch.org, 'Get started', compute platform CPU).",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
