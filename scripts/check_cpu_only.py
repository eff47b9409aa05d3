"""Fail if a CUDA build of torch, or any CUDA package, is installed."""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import PackageNotFoundError, distributions, requires

# nvidia-ml-py is BentoML's: plain Python that asks the driver how many GPUs there are.
ALLOWED = {"nvidia-ml-py"}
CUDA_PREFIXES = ("nvidia-", "cuda-", "triton", "pytorch-triton")


def cuda_packages(names: list[str]) -> list[str]:
    """The distribution `names` that belong to CUDA."""
    found = {name.lower().replace("_", "-") for name in names} - ALLOWED
    return sorted(name for name in found if name.startswith(CUDA_PREFIXES))


def main() -> None:
    """Fail if a CUDA build of torch, or any CUDA package, is installed."""
    try:
        required = [requirement.split()[0] for requirement in requires("torch") or []]
    except PackageNotFoundError:
        sys.exit("torch is not installed")
    installed = [distribution.metadata["Name"] for distribution in distributions()]
    found = cuda_packages([*required, *installed])
    if found:
        sys.exit(
            f"This torch is a CUDA build, or CUDA is installed: {', '.join(found[:5])}.\n"
            "Remove .venv and run make again with TORCH_INDEX set to an index of CPU builds "
            "(pytorch.org, 'Get started', compute platform CPU)."
        )


if __name__ == "__main__":
    # This runs before anything but torch is installed.
    argparse.ArgumentParser("python -m scripts.check_cpu_only", description=__doc__).parse_args()
    main()
