"""Which processes may be stopped as left servers of a data folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from serving.embedded.children import shares_cgroup


@pytest.mark.parametrize(
    ("other", "shares"),
    [
        ("0::/\n", True),
        ("0::/../cri-containerd-bbb.scope\n", False),
        ("9:memory:/docker/bbb\n0::/\n", False),
    ],
)
def test_process_of_another_container_is_in_another_control_group(
    tmp_path: Path, other: str, shares: bool
) -> None:
    for name, content in (("self", "0::/\n"), ("7", other)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup").write_text(content)
    assert shares_cgroup(7, tmp_path) == shares
    with pytest.raises(FileNotFoundError):
        shares_cgroup(8, tmp_path)


@pytest.mark.skipif(not Path("/proc/self/cgroup").exists(), reason="only Linux has control groups")
def test_child_is_in_the_control_group_of_its_parent() -> None:
    assert shares_cgroup(os.getppid())
