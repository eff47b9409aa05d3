"""What a start says about the folders that it cannot use, or that others could use."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.folder_check import (
    bentoml_home_problem,
    data_folder_problem,
    data_folder_warning,
    temporary_folder_problem,
)

READ_ONLY = Path("/proc")  # where not even root can make a folder


def test_folders_that_can_be_written_have_no_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "home"))
    assert bentoml_home_problem() is None
    assert data_folder_problem(tmp_path / "made" / "by it") is None
    assert temporary_folder_problem() is None


@pytest.mark.parametrize(
    ("path", "reason"), [("sub", "cannot be made by user"), ("", "cannot be written to by user")]
)
def test_folder_that_cannot_be_written_is_named_with_the_user(
    path: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = READ_ONLY / path
    monkeypatch.setenv("BENTOML_HOME", str(folder))
    for problem, name in (
        (data_folder_problem(folder), "DATA_FOLDER"),
        (bentoml_home_problem(), "BENTOML_HOME"),
    ):
        assert problem is not None
        assert problem.startswith(f"{name}: /proc")
        assert "by user" in problem
        assert reason in problem or name == "BENTOML_HOME"


@pytest.mark.parametrize("folder", ["/", "/etc", "/usr/../var", "/root"])
def test_folder_of_the_system_is_no_data_folder(folder: str) -> None:
    assert f"DATA_FOLDER: {folder} is the system's" in f"{data_folder_problem(Path(folder))}"


@pytest.mark.parametrize("name", ["", "spool"])
def test_file_in_place_of_a_folder_is_named(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "data"
    if name:
        folder.mkdir()
    (folder / name).write_text("")
    problem = data_folder_problem(folder)
    assert problem is not None
    assert str(folder / name) in problem


@pytest.mark.parametrize("value", ["", "$NOTHING"])
def test_home_that_is_set_to_nothing_is_refused(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTHING", "")
    monkeypatch.setenv("BENTOML_HOME", value)
    assert "set to nothing" in str(bentoml_home_problem())


@pytest.mark.parametrize(
    ("length", "is_refused"), [(20, False), (60, False), (61, True), (99, True)]
)
def test_temporary_folder_too_long_for_sockets_is_refused(
    length: int, is_refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = "/" + "x" * (length - 1)
    monkeypatch.setattr(tempfile, "tempdir", folder)
    problem = temporary_folder_problem()
    assert (problem is not None) is is_refused
    assert problem is None or problem.startswith(f"TMPDIR: {folder} is too long for the sockets")


@pytest.mark.parametrize("name", ["spool", "lock", "models", "redis"])
def test_link_of_another_user_is_named_and_one_of_ours_is_followed(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    assert data_folder_problem(tmp_path) is None
    if os.geteuid() == 0:
        os.chown(tmp_path / name, 65_534, 65_534, follow_symlinks=False)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 65_534)
    problem = data_folder_problem(tmp_path)
    assert problem is not None
    assert problem.startswith(f"DATA_FOLDER: {tmp_path / name} is a link that user ")


def _give(path: Path, uid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `path` another user's."""
    if os.geteuid() == 0:
        os.chown(path, uid, uid, follow_symlinks=False)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: uid)


@pytest.mark.parametrize("mode", [0o1777, 0o777, 0o702])
@pytest.mark.parametrize("name", ["spool", "models", "redis", "postgres", "lock", "rollout.json"])
def test_what_another_user_has_planted_in_an_open_data_folder_is_named(
    tmp_path: Path, name: str, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = tmp_path / name
    planted.touch() if name in ("lock", "rollout.json") else planted.mkdir()
    tmp_path.chmod(mode)
    assert data_folder_problem(tmp_path) is None
    _give(planted, 65_534, monkeypatch)
    problem = data_folder_problem(tmp_path)
    assert problem is not None
    assert problem.startswith(f"DATA_FOLDER: {planted} belongs to user ")


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of temporary files, whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


@pytest.mark.parametrize(
    ("mode", "is_refused"), [(0o1777, False), (0o777, True), (0o702, True), (0o755, False)]
)
def test_temporary_folder_in_which_others_may_replace_sockets_is_refused_if_they_use_it(
    temporary: Path, mode: int, is_refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary.chmod(mode)
    (temporary / "a file").touch()
    # As a volume of Kubernetes is.
    assert temporary_folder_problem() is None
    is_refused |= os.geteuid() != 0  # then the folder becomes theirs as well
    _give(temporary / "a file", 65_534, monkeypatch)
    problem = temporary_folder_problem()
    assert (problem is not None) is is_refused
    assert problem is None or "replace the sockets of the workers" in problem


def test_temporary_folder_of_another_user_is_refused(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _give(temporary, 65_534, monkeypatch)
    assert "lets its owner, user " in str(temporary_folder_problem())


def test_data_folder_that_another_user_has_planted_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    tmp_path.chmod(0o1777)
    assert data_folder_problem(tmp_path / "data") is None
    _give(tmp_path / "data", 65_534, monkeypatch)
    problem = data_folder_problem(tmp_path / "data")
    assert problem is not None
    assert problem.startswith(f"DATA_FOLDER: {tmp_path / 'data'} belongs to user ")


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o775])
def test_folders_of_another_user_in_a_closed_folder_are_used(
    tmp_path: Path, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root serves from the data that the service has written as a user."""
    for name in ("spool", "models", "postgres"):
        (tmp_path / name).mkdir()
        _give(tmp_path / name, 65_534, monkeypatch)
    tmp_path.chmod(mode)
    assert data_folder_problem(tmp_path) is None


@pytest.mark.parametrize(
    ("mode", "is_warned"), [(0o777, True), (0o703, True), (0o1777, False), (0o755, False)]
)
def test_data_folder_whose_entries_others_may_replace_is_named_and_refused_if_it_is_not_ours(
    tmp_path: Path, mode: int, is_warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(mode)
    assert data_folder_problem(data) is None  # the start takes the right
    warning = data_folder_warning(data)
    assert (warning is not None) is is_warned
    with monkeypatch.context() as patch:
        patch.setattr(os.path, "ismount", lambda _: True)
        assert data_folder_warning(data) is None
    _give(data, 65_534, monkeypatch)
    assert (data_folder_problem(data) is not None) is is_warned


def test_owner_of_a_data_folder_that_is_not_ours_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    _give(data, 65_534, monkeypatch)
    assert data_folder_problem(data) is None  # the operator has chosen it
    assert f"{data} belongs to user " in str(data_folder_warning(data))


def test_folder_on_the_way_in_which_others_may_replace_data_is_named(tmp_path: Path) -> None:
    data = tmp_path / "open" / "data"
    data.mkdir(parents=True)
    assert data_folder_warning(data) is None
    data.parent.chmod(0o777)
    problem = data_folder_warning(data)
    assert problem == (
        f"DATA_FOLDER: {data.parent} lets every user of this machine replace {data.name}"
    )
