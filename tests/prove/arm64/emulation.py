"""ARM processors as qemu emulates them in a container."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PLATFORM = "linux/arm64"
# Of each emulated processor.
CORES = 2


@dataclass(frozen=True)
class Processor:
    """A processor of qemu's `-cpu help`, by the identity that Linux on it shows."""

    name: str
    part: str
    features: str

    def options(self, folder: Path) -> list[str]:
        """The options of `docker run` for a container on this processor; writes into `folder`.

        Before 8.1 qemu shows the host's /proc/cpuinfo. ONNX Runtime reads its processor there, and
        crashes at import if that is none of ARM's.
        """
        lines = {
            "Features": self.features,
            "CPU implementer": "0x41",
            "CPU architecture": "8",
            "CPU variant": "0x0",
            "CPU part": self.part,
            "CPU revision": "3",
        }
        text = "".join(f"{name}\t: {value}\n" for name, value in lines.items())
        file = folder / f"cpuinfo-{self.name}"
        file.write_text("".join(f"processor\t: {core}\n{text}\n" for core in range(CORES)))
        mount = f"type=bind,src={file},dst=/proc/cpuinfo,readonly"
        # The health check starts another emulated Python every ten seconds.
        options = ["--platform", PLATFORM, "--no-healthcheck", "--mount", mount]
        return [*options, "--env", f"QEMU_CPU={self.name}"]


_ARMV8_0 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
PROCESSORS = {
    processor.name: processor
    for processor in (
        # Of the Raspberry Pi 4 and the first ARM servers: no products of 8-bit numbers.
        Processor("cortex-a72", "0xd08", _ARMV8_0),
        # Of AWS Graviton2 and Ampere Altra: has them (asimddp).
        Processor("neoverse-n1", "0xd0c", f"{_ARMV8_0} atomics fphp asimdhp asimddp"),
    )
}
