"""BentoML's workers and their manager still need the seams around them, which still fit."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.context import server_context
from bentoml._internal.utils import circus
from bentoml.serving import running_inside_container

import service
from core.paths import ROOT
from runners.services import RunnerV1, RunnerV2
from serving.framework import (
    is_worker,
    lean_worker,
    make_private_arbiter,
    process_name,
    runner_urls,
    wrap_arbiter,
)
from serving.supervision import API_WATCHER
from serving.worker import UnusedModule

# BentoML's decorator made services of the classes, which its types do not tell.
RUNNERS: tuple[Any, ...] = (RunnerV1, RunnerV2)


def test_process_name_is_what_bentoml_knows() -> None:
    before = server_context.service_name, server_context.worker_index
    try:
        names = []
        for known in (
            (None, None),
            ("sentiment", None),
            ("sentiment", 0),
            ("sentiment_runner_v1", 2),
        ):
            server_context.service_name, server_context.worker_index = known
            names.append(process_name())
    finally:
        server_context.service_name, server_context.worker_index = before
    assert names == ["serve", "sentiment", "sentiment", "sentiment_runner_v1:2"]


def test_runner_urls_are_those_of_bentomls_map() -> None:
    mapping = BentoMLContainer.remote_runner_mapping
    mapping.set({"one": "unix:///tmp/x.sock", "many": "http://a:1, http://b:2", "none": ""})
    try:
        urls = [runner_urls(name) for name in ("one", "many", "none", "absent")]
    finally:
        mapping.reset()
    assert urls == [["unix:///tmp/x.sock"], ["http://a:1", "http://b:2"], [], []]


def test_this_process_is_no_worker_and_bentomls_worker_has_the_name_that_tells_it() -> None:
    assert not is_worker()
    assert find_spec("_bentoml_impl.worker.service") is not None


WORKER = """
import sys
from importlib.machinery import ModuleSpec
import serving.framework as framework
sys.modules["__main__"].__spec__ = ModuleSpec("_bentoml_impl.worker.service", None)
print(framework.is_worker())
"""


def test_worker_is_known_by_the_module_that_it_runs() -> None:
    assert run_python(WORKER) == "True"


LEAN = """
import sys
from serving import worker
sys.argv = ["", "service:SentimentService", "--service-name", "sentiment_runner_v1", "--fd", "0"]
try:
    worker.main()
except OSError as error:  # its standard input is no socket
    lean = {name for name in sys.modules if type(sys.modules[name]) is worker.UnusedModule}
    print(sorted(lean & {*worker.UNUSED}) == sorted(worker.UNUSED), "service" in sys.modules)
    import _bentoml_impl.client
    print(_bentoml_impl.client.RemoteProxy is worker.NoProxy, "aiohttp" in sys.modules)
"""


def test_runner_loads_the_service_without_what_bentoml_never_uses_there() -> None:
    """If BentoML no longer imports one of the modules, its name can go."""
    assert run_python(LEAN).splitlines() == ["True True", "True False"]


def test_module_that_was_left_out_fails_when_it_is_used() -> None:
    client = UnusedModule("bentoml._internal.cloud").BentoCloudClient
    with pytest.raises(RuntimeError, match=r"leaves bentoml\._internal\.cloud out"):
        client()


def test_worker_starts_by_the_path_of_its_program_and_other_programs_as_they_are() -> None:
    [program, *rest] = lean_worker(["-m", "_bentoml_impl.worker.service", "service:bento"])
    assert (Path(program), rest) == (ROOT / "serving" / "worker.py", ["service:bento"])
    assert lean_worker(["-m", "another"]) == ["-m", "another"]


MANAGER = """
import json
from bentoml._internal.utils import circus
from serving.framework import wrap_arbiter

bentomls = circus.create_standalone_arbiter([])


class Stopped(Exception):
    pass


def record(make, watchers, **options):
    print(json.dumps({
        "watchers": {
            watcher.name: [watcher.args, watcher.graceful_timeout, watcher.respawn]
            for watcher in watchers
        },
        "options": sorted(options),
        "check_delay": bentomls.check_delay,
        "endpoints": [bentomls.endpoint, bentomls.pubsub_endpoint],
    }))
    raise Stopped


wrap_arbiter(record)
import service
try:
    service.bento.serve_http(port=0)
except Stopped:
    pass
"""


def test_bentomls_manager_is_slow_by_default_and_made_by_our_wrapper(tmp_path: Path) -> None:
    """If it no longer is, supervision has less to change; if it is made otherwise, all of it."""
    made = json.loads(run_python(MANAGER, BENTOML_HOME=str(tmp_path)))
    # Nothing else says how often it looks for dead workers.
    assert made["check_delay"] == 10
    assert "check_delay" not in made["options"]
    # Open to every user of the machine, which `make_private_arbiter` is there for.
    assert all(re.fullmatch(r"tcp://127\.0\.0\.1:\d+", url) for url in made["endpoints"])
    assert not {"endpoint", "pubsub_endpoint"} & set(made["options"])
    runners = {f"{API_WATCHER}_{runner.name}": runner.name for runner in RUNNERS}
    assert made["watchers"].keys() == {API_WATCHER, *runners}
    for name, (arguments, graceful_seconds, respawn) in made["watchers"].items():
        assert graceful_seconds == 86_400
        assert respawn is not running_inside_container()
        assert arguments[:2] == ["-m", "_bentoml_impl.worker.service"]
        # How supervision finds out which services there will be.
        served = arguments[arguments.index("--service-name") + 1]
        assert served == runners.get(name, service.bento.name)


NO_IPV4 = """
import socket
from serving.framework import reserve_no_port
from bentoml._internal import utils
from bentoml._internal.utils import circus
import service

bind, bound = socket.socket.bind, []
def record(self, address):
    bound.append(address)
    raise OSError(99, "Cannot assign requested address")
socket.socket.bind = record


class Stopped(Exception):
    pass


def stop(*_watchers, **_options):
    raise Stopped


circus.create_standalone_arbiter = stop
try:
    service.bento.serve_http(port=0)
except (Stopped, OSError) as end:
    print(type(end).__name__, bound)
"""


def test_start_binds_no_address_but_its_own(tmp_path: Path) -> None:
    """BentoML binds a port of 127.0.0.1 to reserve it, which a machine may lack."""
    assert run_python(NO_IPV4, BENTOML_HOME=str(tmp_path)) == "Stopped []"


def test_wrapper_is_put_around_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """service.py is imported twice in one process when BentoML loads it by another name."""
    made: list[object] = []
    made_by_service: Any = circus.create_standalone_arbiter
    monkeypatch.setattr(circus, "create_standalone_arbiter", made_by_service.func)

    def wrapper(name: str) -> Callable[..., None]:
        def call(make: Callable[..., None], **options: Any) -> None:
            made.extend([name, make, options])

        return call

    for name in ("first", "second"):
        wrap_arbiter(wrapper(name))
    circus.create_standalone_arbiter(watchers=[])
    assert made == ["first", make_private_arbiter, {"watchers": []}]


ARBITER = """
import stat
from pathlib import Path
from serving.framework import make_private_arbiter

arbiter = make_private_arbiter([], check_delay=-1)
folders = {Path(url.removeprefix("ipc://")).parent
           for url in (arbiter.endpoint, arbiter.pubsub_endpoint)}
assert arbiter.ctrl.endpoint == arbiter.endpoint
assert arbiter.endpoint != arbiter.pubsub_endpoint
[folder] = folders
modes = [stat.filemode(folder.stat().st_mode)]
with arbiter.exit_stack:
    arbiter.initialize()
    arbiter.ctrl.initialize()
    modes += [stat.filemode(path.stat().st_mode)[0] for path in sorted(folder.iterdir())]
arbiter.stop_controller_and_close_sockets()
print(*modes, folder.exists())
"""


def test_manager_listens_on_sockets_that_only_its_user_reaches() -> None:
    assert run_python(ARBITER) == "drwx------ s s - False"


HANGUP = """
import signal
from circus.sighandler import SysHandler
from serving.framework import stop_at_hangup

class Manager(SysHandler):
    def __init__(self):
        pass

    def quit(self):
        print("stops", end=" ")

    def reload(self):
        print("restarts its workers", end=" ")

for prepare in (lambda: None, stop_at_hangup):
    prepare()
    Manager().handle_hup()
signal.signal(signal.SIGHUP, signal.SIG_IGN)
stop_at_hangup()
Manager().handle_hup()
"""


def test_bentomls_manager_restarts_its_workers_at_sighup_and_ours_stops() -> None:
    """If it no longer does, the seam can go."""
    assert run_python(HANGUP) == "restarts its workers stops"


BUSY = """
import os, signal
from circus.util import synchronized
from tornado import gen
from serving.framework import make_private_arbiter, stop_when_busy

@synchronized("manage_watchers")
@gen.coroutine
def replace_a_worker(arbiter):
    os.kill(os.getpid(), signal.SIGTERM)
    yield gen.sleep(0.2)
    print("replaced", end=" ", flush=True)

signal.alarm(10)
stop_when_busy()
arbiter = make_private_arbiter([], check_delay=-1)
with arbiter.exit_stack:
    arbiter.loop.add_callback(replace_a_worker, arbiter)
    arbiter.start()
print("stopped")
"""


def test_manager_stops_that_is_told_while_it_replaces_a_worker() -> None:
    assert run_python(BUSY) == "replaced stopped"


CLOCK_SET_BACK = """
import time
from circus import get_arbiter
from serving.framework import make_private_arbiter, use_steady_clock

time_of_day, offset = time.time, 0.0
time.time = lambda: time_of_day() + offset

def looks_again(steady):
    global offset
    offset = 0.0
    if steady:
        use_steady_clock()
    arbiter = make_private_arbiter([], check_delay=0.05)
    looked = []

    def look():
        global offset
        offset = -3_600.0
        looked.append(None)
        if len(looked) == 3:
            arbiter.loop.add_callback(arbiter.loop.stop)

    arbiter.manage_watchers = look
    arbiter.loop.asyncio_loop.call_later(2, arbiter.loop.stop)
    with arbiter.exit_stack:
        arbiter.start()
    return len(looked)

print(looks_again(False), looks_again(True))
"""


def test_bentomls_manager_waits_for_a_clock_that_was_set_back_and_ours_does_not() -> None:
    """If it no longer does, the seam can go."""
    assert run_python(CLOCK_SET_BACK) == "1 3"


NO_PROCESS_LEFT = """
from contextlib import suppress
import psutil
from circus.watcher import Watcher
from serving.framework import make_private_arbiter, never_give_up, start_workers_by

failures = 0

def start(command, **options):
    global failures
    if failures:
        failures -= 1
        raise OSError(11, "Resource temporarily unavailable")
    return psutil.Popen(command, **options)

start_workers_by(start)

def is_replaced(ours):
    watcher = Watcher("one", "sleep 60", graceful_timeout=1)
    if ours:
        never_give_up(watcher)
    arbiter = make_private_arbiter([watcher], check_delay=0.1)
    found = []

    def kill():
        global failures
        failures = 5
        [first] = watcher.get_active_processes()
        psutil.Process(first.pid).kill()
        arbiter.loop.call_later(2, look)

    def look():
        found.extend(watcher.get_active_processes())
        arbiter.loop.add_callback(arbiter.stop)

    arbiter.loop.call_later(0.5, kill)
    arbiter.loop.call_later(8, arbiter.loop.stop)
    with arbiter.exit_stack, suppress(RuntimeError):  # there is no process left
        arbiter.start()
    return len(found)

print(is_replaced(OURS))
"""


def test_bentomls_manager_gives_a_worker_up_that_cannot_be_forked_now_and_ours_does_not() -> None:
    """If it no longer does, the seam can go."""
    assert run_python(NO_PROCESS_LEFT.replace("OURS", "False")) == "0"
    assert run_python(NO_PROCESS_LEFT.replace("OURS", "True")) == "1"


INHERITED = """
import os, sys
from serving.framework import close_inherited_sockets
close_inherited_sockets()
for number in sys.argv[2:]:
    try:
        os.fstat(int(number))
        print(number, os.get_inheritable(int(number)))
    except OSError:
        pass
"""


def test_worker_closes_the_listening_sockets_that_it_does_not_serve() -> None:
    own, other = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    one_end, other_end = socket.socketpair()
    with own, other, one_end, other_end:
        numbers = [own.fileno(), other.fileno(), one_end.fileno()]
        command = [sys.executable, "-c", INHERITED, "--fd", *map(str, numbers)]
        output = subprocess.check_output(command, cwd=ROOT, pass_fds=numbers, encoding="utf-8")
    # The second is no listening socket; it is nobody's port.
    assert output.split() == [str(numbers[0]), "False", str(numbers[2]), "True"]


def run_python(program: str, **settings: str) -> str:
    """What a process of its own prints."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"BENTOML_DO_NOT_TRACK": "true", **settings},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    return done.stdout.strip()
