"""`python -m raftwal.pysyncobj PROGRAM`: other people's programs, as real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from clusters import free_addresses

import raftwal
from raftwal.pysyncobj.__main__ import Ending, main
from raftwal.pysyncobj.launch import ProgramNotFoundError, find_module, find_program

ROOT = Path(__file__).parents[1]
LAUNCH = [sys.executable, "-m", "raftwal.pysyncobj"]
SECONDS = 60
STORAGE_FAILED = 74

SHOW = """\
'''What a program can see of how it was started.'''
import json, os, sys
main = sys.modules["__main__"]
print(json.dumps({
    "argv": sys.argv, "path": sys.path, "same": main.__dict__ is globals(),
    "names": sorted(globals().keys() - {"__annotations__"}), "name": __name__, "doc": __doc__,
    "file": __file__, "package": __package__, "cached": __cached__,
    "spec": __spec__ and __spec__.name, "loader": type(__loader__).__name__,
    "builtins": repr(__builtins__),
}))
"""

NODE = """\
import os, resource, signal, sys
from pysyncobj import SyncObj, SyncObjConf, replicated


class Counter(SyncObj):
    def __init__(self, address):
        super().__init__(address, [], SyncObjConf(
            journalFile="counter", fullDumpFile="counter.dump", bindAddress=address,
            raftMinTimeout=0.35, raftMaxTimeout=0.4))
        self.value = 0

    @replicated
    def add(self, padding):
        self.value += 1
        return self.value


def fail_writes():
    # Any write to a file fails from here on, as on a disk that is full to the last byte.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


def stop(*_):
    print("stopping in order", flush=True)
    sys.exit()


if os.environ.get("HANDLES_SIGTERM"):
    signal.signal(signal.SIGTERM, stop)
node = Counter(sys.argv[1])
for line in iter(sys.stdin.readline, ""):
    if line.strip() == "fail":
        fail_writes()
    elif line.strip() == "child":
        import subprocess
        child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"],
                                 close_fds=False)
        print(child.pid, flush=True)
    else:
        try:
            print(node.add("x" * 1000, sync=True, timeout=20), flush=True)
        except Exception as error:
            print(repr(error), flush=True)
"""


def environment(**variables: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if "RAFTWAL" not in name}
    return {**inherited, "PYTHONPATH": str(ROOT), **variables}


def run(*command, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def launched(*arguments, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return run(*LAUNCH, *arguments, cwd=cwd, **variables)


class Node:
    """The program above under the launcher, told what to do line by line."""

    launcher = LAUNCH

    def __init__(self, directory: Path, address: str, *options: str, **variables: str) -> None:
        (directory / "node.py").write_text(NODE)
        self.process = subprocess.Popen(
            [*self.launcher, *options, "node.py", address],
            cwd=directory,
            env=environment(**variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def tell(self, line: str) -> None:
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def ask(self, line: str) -> str:
        self.tell(line)
        answer = self.process.stdout.readline().strip()
        assert answer, self.process.stderr.read()
        return answer

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=SECONDS)

    def ended(self) -> tuple[int, str, str]:
        """Wait for it to end by itself: status, what it still printed, and its stderr."""
        # communicate() would close its stdin, which ends it.
        self.process.wait(SECONDS)
        output, errors = self.process.communicate()
        return self.process.returncode, output, errors


class PlainNode(Node):
    """The same under Python itself."""

    launcher = (sys.executable,)


@contextmanager
def node(
    directory: Path, address: str, *options: str, kind: type[Node] = Node, **variables: str
) -> Iterator[Node]:
    started = kind(directory, address, *options, **variables)
    try:
        yield started
    finally:
        started.kill()


@pytest.fixture
def address() -> str:
    return free_addresses(1)[0]


def verified(directory: Path) -> str:
    done = run(sys.executable, "-m", "raftwal", "verify", directory, cwd=directory.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout


# A program cannot tell the difference.


def make_script(directory: Path) -> list[str]:
    (directory / "show.py").write_text(SHOW)
    return ["show.py"]


def make_linked_script(directory: Path) -> list[str]:
    (directory / "elsewhere").mkdir()
    (directory / "elsewhere" / "show.py").write_text(SHOW)
    (directory / "bin").mkdir()
    (directory / "bin" / "show").symlink_to(directory / "elsewhere" / "show.py")
    return ["bin/show"]


def make_directory(directory: Path) -> list[str]:
    (directory / "show").mkdir()
    (directory / "show" / "__main__.py").write_text(SHOW)
    return ["show/"]


def make_archive(directory: Path) -> list[str]:
    with zipfile.ZipFile(directory / "show.pyz", "w") as archive:
        archive.writestr("__main__.py", SHOW)
    return ["show.pyz"]


def make_module(directory: Path) -> list[str]:
    (directory / "show.py").write_text(SHOW)
    return ["-m", "show"]


def make_package(directory: Path) -> list[str]:
    (directory / "shows" / "show").mkdir(parents=True)
    (directory / "shows" / "__init__.py").write_text("import sys; assert sys.argv[0] == '-m'\n")
    (directory / "shows" / "show" / "__init__.py").write_text("")
    (directory / "shows" / "show" / "__main__.py").write_text(SHOW)
    return ["-m", "shows.show"]


@pytest.mark.parametrize(
    "make",
    [make_script, make_linked_script, make_directory, make_archive, make_module, make_package],
)
def test_a_program_sees_what_it_would_see_under_python(make, tmp_path):
    program = make(tmp_path)
    arguments = ["a", "--cluster-name", "b c", "--", "-m", ""]
    plain = run(sys.executable, *program, *arguments, cwd=tmp_path)
    under = launched("--cluster-name", "x", *program, *arguments, cwd=tmp_path)
    assert plain.returncode == 0, plain.stderr
    assert under.returncode == 0, under.stderr
    assert json.loads(under.stdout) == json.loads(plain.stdout)


def test_a_command_on_the_path_is_found_as_a_shell_finds_it(tmp_path):
    command = tmp_path / "bin" / "show-command"
    command.parent.mkdir()
    command.write_text(f"#!{sys.executable}\n{SHOW}")
    command.chmod(0o755)
    path = os.pathsep.join([str(command.parent), os.environ["PATH"]])
    plain = run("show-command", "a", cwd=tmp_path, PATH=path)
    under = launched("show-command", "a", cwd=tmp_path, PATH=path)
    assert json.loads(under.stdout) == json.loads(plain.stdout)


def test_a_command_is_found_beside_the_interpreter_without_a_path(tmp_path):
    done = launched("pytest", "--version", cwd=tmp_path, PATH="")
    assert done.stdout.startswith("pytest ")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python has -P from 3.11 on")
def test_python_P_puts_nothing_in_front_of_the_search_path(tmp_path):
    make_script(tmp_path)
    plain = run(sys.executable, "-P", "show.py", cwd=tmp_path)
    under = run(sys.executable, "-P", *LAUNCH[1:], "show.py", cwd=tmp_path)
    assert json.loads(under.stdout) == json.loads(plain.stdout)


ENDINGS = {
    "a status": "import sys; sys.exit(3)",
    "an exception": """
def read():
    raise KeyError("port")
try:
    read()
except KeyError as error:
    raise ValueError("bad config") from error
""",
    "its own hook": """
import sys, traceback
sys.excepthook = lambda kind, error, tb: print("hook:", len(traceback.extract_tb(tb)))
1 / 0
""",
    "an interrupt": "raise KeyboardInterrupt",
    "a signal": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "bad syntax": "x = = 1",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_program_ends_as_it_would_under_python(ending, tmp_path):
    (tmp_path / "ends.py").write_text(f"print('begun', flush=True)\n{ENDINGS[ending]}\n")
    plain = run(sys.executable, "ends.py", cwd=tmp_path)
    under = launched("ends.py", cwd=tmp_path)
    assert plain.returncode != 0
    assert (under.returncode, under.stdout) == (plain.returncode, plain.stdout)
    assert under.stderr == plain.stderr


CHILDREN = """
import multiprocessing, sys
from pysyncobj import SyncObj
def child(queue):
    queue.put((sys.argv, "installation.py" in SyncObj.__init__.__code__.co_filename))
if __name__ == "__main__":
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        queue = context.Queue()
        process = context.Process(target=child, args=(queue,))
        process.start()
        print(method, *queue.get(timeout=30))
        process.join()
"""


def test_children_work_and_only_forked_ones_have_raftwal_installed(tmp_path):
    """As the documentation says: a new interpreter knows nothing of this one."""
    (tmp_path / "children.py").write_text(CHILDREN)
    done = launched("children.py", "a", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "fork ['children.py', 'a'] True",
        "spawn ['children.py', 'a'] False",
    ]


# Its nodes are durable.


def test_a_node_that_is_killed_comes_back_with_what_it_acknowledged(tmp_path, address):
    with node(tmp_path, address) as first:
        assert [first.ask("add") for _ in range(3)] == ["1", "2", "3"]
        first.kill()
    assert "5 entries" in verified(tmp_path / "counter.raftwal")
    assert not (tmp_path / "counter").exists()
    with node(tmp_path, address) as second:
        assert second.ask("add") == "4"


def test_a_started_program_does_not_keep_the_lock_of_a_node_that_was_killed(tmp_path, address):
    """Patroni's PostgreSQL outlives it."""
    with node(tmp_path, address) as first:
        child = int(first.ask("child"))
        try:
            first.process.kill()
            first.process.wait(SECONDS)
            os.kill(child, 0)  # it lives
            with node(tmp_path, address) as second:
                assert second.ask("add") == "1"
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_journal_of_pysyncobjs_own_is_refused_or_taken_over(tmp_path, address):
    with node(tmp_path, address, kind=PlainNode) as plain:
        assert [plain.ask("add") for _ in range(3)] == ["1", "2", "3"]
    refused = launched("node.py", address, cwd=tmp_path)
    assert refused.returncode == 1
    assert refused.stderr.startswith("raftwal: there is a journal of PySyncObj's own")
    assert "Traceback" not in refused.stderr
    with node(tmp_path, address, "--migrate", "auto") as taken_over:
        assert taken_over.ask("add") == "4"


def test_options_and_variables_reach_the_log_and_options_stand_above(tmp_path, address):
    variables = {"RAFTWAL_CLUSTER_NAME": "green", "RAFTWAL_SEGMENT_BYTES": "4096"}
    with node(tmp_path, address, "--cluster-name", "blue", **variables) as first:
        for _ in range(8):
            first.ask("add")
    assert len(list((tmp_path / "counter.raftwal" / "wal").glob("*.wal"))) > 1
    refused = launched("node.py", address, cwd=tmp_path, **variables)
    assert refused.returncode == 1
    assert refused.stderr.startswith("raftwal: ")
    assert "'blue'" in refused.stderr
    assert "'green'" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_corrupt_log_is_told_in_one_message_without_a_traceback(tmp_path, address):
    with node(tmp_path, address) as first:
        first.ask("add")
    (segment,) = (tmp_path / "counter.raftwal" / "wal").glob("*-*.wal")
    content = bytearray(segment.read_bytes())
    content[9] ^= 1
    segment.write_bytes(content)
    done = launched("node.py", address, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("raftwal: ")
    assert str(segment) in done.stderr
    assert "Traceback" not in done.stderr


# After a storage failure.


def test_a_storage_failure_has_the_program_stop_in_order_and_exit_with_74(tmp_path, address):
    with node(tmp_path, address, HANDLES_SIGTERM="1") as failing:
        assert failing.ask("add") == "1"
        failing.tell("fail")
        failing.tell("add")
        status, output, errors = failing.ended()
    assert status == STORAGE_FAILED
    assert "stopping in order" in output
    assert "raftwal: this process ends: " in errors
    assert "File too large" in errors
    with node(tmp_path, address) as again:
        assert int(again.ask("add")) > 1


def test_a_program_without_a_handler_for_sigterm_exits_with_74_too(tmp_path, address):
    with node(tmp_path, address) as failing:
        assert failing.ask("add") == "1"
        failing.tell("fail")
        failing.tell("add")
        assert failing.ended()[0] == STORAGE_FAILED


def test_a_failure_status_of_the_programs_own_is_kept(monkeypatch, capsys):
    monkeypatch.setattr(signal, "getsignal", lambda _: print)
    signals = []
    monkeypatch.setattr(os, "kill", lambda *sent: signals.append(sent))
    ending = Ending()
    ending.begin(OSError("No space left on device"))
    assert signals == [(os.getpid(), signal.SIGTERM)]
    assert capsys.readouterr().err == "raftwal: this process ends: No space left on device\n"
    for status in (5, "a text"):
        ending.check(status)
    for status in (0, None):
        with pytest.raises(SystemExit) as ended:
            ending.check(status)
        assert ended.value.code == STORAGE_FAILED


@pytest.mark.parametrize("interrupt", [SystemExit(0), KeyboardInterrupt()])
def test_an_interrupt_of_the_thread_that_ticks_is_no_storage_failure(interrupt, monkeypatch):
    """A Raft controller of Patroni's ticks in its main thread, where SIGTERM makes it exit."""
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("a second signal"))
    monkeypatch.setattr(os, "_exit", lambda *_: pytest.fail("no end in order"))
    ending = Ending()
    ending.begin(interrupt)
    ending.check(0)


def test_a_node_that_stands_still_says_why_on_healthz(tmp_path, address):
    (exporter,) = free_addresses(1)
    options = ["--on-storage-failure", "stand-still", "--metrics-address", exporter]
    with node(tmp_path, address, *options) as failing, httpx.Client() as client:
        assert failing.ask("add") == "1"
        assert client.get(f"http://{exporter}/healthz").text == "ok\n"
        failing.ask("fail\nadd")
        answer = client.get(f"http://{exporter}/healthz")
        assert answer.status_code == 503
        assert "File too large" in answer.text
        assert "raftwal_storage_failed" in client.get(f"http://{exporter}/metrics").text
        assert failing.process.poll() is None


# Metrics and health.


def test_metrics_and_readiness_are_those_of_the_programs_nodes(tmp_path, address):
    (exporter,) = free_addresses(1)
    (tmp_path / "waits.py").write_text("print('begun', flush=True); input()")
    with (
        subprocess.Popen(
            [*LAUNCH, "--metrics-address", exporter, "waits.py"],
            cwd=tmp_path,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as without,
        httpx.Client() as client,
    ):
        assert without.stdout.readline() == "begun\n"
        answer = client.get(f"http://{exporter}/readyz")
        assert (answer.status_code, answer.text) == (
            503,
            "no durable node has been made in this process\n",
        )
        without.communicate("\n", timeout=SECONDS)
    options = ["--metrics-address", exporter, "--metrics-namespace", "etcd"]
    with node(tmp_path, address, *options) as running, httpx.Client() as client:
        assert running.ask("add") == "1"
        deadline = time.monotonic() + SECONDS
        while (answer := client.get(f"http://{exporter}/readyz")).status_code != 200:
            assert time.monotonic() < deadline, answer.text
        metrics = client.get(f"http://{exporter}/metrics").text
        assert f'etcd_disk_wal_fsync_duration_seconds_count{{node="{address}"}}' in metrics


def test_an_address_that_is_taken_is_said_before_the_program_begins(tmp_path):
    import socket  # noqa: PLC0415

    (tmp_path / "begins.py").write_text("print('begun')")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = launched("--metrics-address", port, "begins.py", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"raftwal: cannot listen on 127.0.0.1:{port}: Address already in use\n"


# Wrong use.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the program to run"),
        (["-m"], "name the program to run"),
        (["--"], "name the program to run"),
        (["--keep-logs", "3", "x.py"], "unrecognized arguments: --keep-logs"),
        (["--segment-bytes", "0", "x.py"], "argument --segment-bytes: not a positive number: '0'"),
        (["--segment-bytes"], "argument --segment-bytes: expected one argument"),
        (["--metrics-address", "host", "x.py"], "not of the form [HOST:]PORT: 'host'"),
        (["--metrics-address", "65536", "x.py"], "not of the form [HOST:]PORT: '65536'"),
        (["--on-storage-failure", "panic", "x.py"], "not exit or stand-still: 'panic'"),
        (["RAFTWAL_KEEP_SEGMENTS=all"], "in the environment, RAFTWAL_KEEP_SEGMENTS: not a pos"),
    ],
)
def test_wrong_use_is_told_in_one_line_with_status_2(arguments, message, monkeypatch, capsys):
    if arguments and "=" in arguments[0]:
        monkeypatch.setenv(*arguments[0].split("="))
    monkeypatch.setattr(sys, "argv", ["raftwal.pysyncobj", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert message in errors.splitlines()[-1]


@pytest.mark.parametrize(
    ("find", "name", "message"),
    [
        (find_program, "nothing-of-this-name", "there is no file nothing-of-this-name here, and "),
        (find_program, "./nothing.py", "there is no file ./nothing.py"),
        (find_program, "./shell", "./shell is no Python program: it is run by /bin/sh -e"),
        (find_program, "./empty", "there is no __main__.py in ./empty"),
        (find_program, sys.executable, f"{sys.executable} is no Python program"),
        (find_module, "nothing.of.this", "there is no module nothing.of.this: No module named "),
        (find_module, "shell", "there is no module shell"),
    ],
)
def test_what_is_no_python_program_is_told(find, name, message, tmp_path, monkeypatch):
    (tmp_path / "shell").write_text("#!/bin/sh -e\necho\n")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [""])
    with pytest.raises(ProgramNotFoundError) as refused:
        find(name)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (["nothing.py"], "there is no file nothing.py here, and no such command on PATH"),
        (["-m", "sys"], "sys is no module that Python can run"),
    ],
)
def test_a_program_that_cannot_be_run_is_told_without_a_traceback(program, message, tmp_path):
    done = launched(*program, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"raftwal: {message}\n"


def test_an_unsupported_pysyncobj_is_told_without_a_traceback(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import pysyncobj\ndel pysyncobj.SyncObj.addOnTickCallback\n"
    )
    (tmp_path / "begins.py").write_text("print('begun')")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = launched("begins.py", cwd=tmp_path, PYTHONPATH=path)
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.startswith("raftwal: PySyncObj ")
    assert "addOnTickCallback" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_and_version(tmp_path):
    done = launched("--help", cwd=tmp_path, COLUMNS="90")
    assert done.returncode == 0
    assert "RAFTWAL_CLUSTER_NAME" in done.stdout
    assert launched("--version", cwd=tmp_path).stdout == f"raftwal {raftwal.__version__}\n"
