"""Which PySyncObj the adapter builds on: changed copies of the installed one are refused."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pysyncobj
import pytest
from clusters import free_addresses

from raftwal.errors import UnsupportedPySyncObjError
from raftwal.pysyncobj import barrier, compatibility
from raftwal.pysyncobj.journal import DurableJournal
from raftwal.pysyncobj.serializer import SnapshotSerializer

ADAPTER = Path(compatibility.__file__).parent

Change = Callable[[str, str, str], None]


class Copy:
    """A copy of the installed PySyncObj, to be changed, on a search path of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.package = directory / "pysyncobj"
        # With what Python has compiled of it: the times of the files stay.
        shutil.copytree(Path(pysyncobj.__file__).parent, self.package)

    def change(self, file: str, before: str, after: str) -> None:
        path = self.package / file
        text = path.read_text()
        assert before in text, f"PySyncObj's {file} is not what this test takes it for"
        path.write_text(text.replace(before, after))

    def set_version(self, version: str) -> None:
        self.change("version.py", compatibility.NEWEST_TESTED, version)

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(self.directory), *sys.path])
        return subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, "PYTHONPATH": path, **environment},
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


@pytest.fixture
def check(copy, monkeypatch):
    """The check, made on the copy."""

    def check_copy() -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == "pysyncobj"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.syspath_prepend(copy.directory)
        importlib.invalidate_caches()
        compatibility.check_pysyncobj()

    return check_copy


def test_an_unchanged_copy_of_a_tested_version_is_built_on(check):
    check()


MOVED_COMMIT = """\
                self.__raftCommitIndex = nextCommitIdx
                self.__raftLog.setRaftCommitIndex(self.__raftCommitIndex)
"""
EARLY_VOTE = """\
                for node in self.__otherNodes:
                    self.__transport.send(node, {'type': 'request_vote'})
                self.__setCurrentTerm(self.__raftCurrentTerm + 1, self.__selfNode.id)
                for node in []:
                    self.__transport.send(node, {"""
VOTE = """\
                self.__setCurrentTerm(self.__raftCurrentTerm + 1, self.__selfNode.id)
                self.__votesCount = 1
                for node in self.__otherNodes:
                    self.__transport.send(node, {
                        'type': 'request_vote',"""


@pytest.mark.parametrize(
    ("file", "before", "after", "told"),
    [
        pytest.param(
            "syncobj.py",
            "__loadDumpFile",
            "__loadDump",
            "there is no SyncObj.__loadDumpFile",
            id="a method that is called has another name",
        ),
        pytest.param(
            "syncobj.py",
            "def __setState(self, newState):",
            "def __setState(self, newState, reason):",
            r"SyncObj.__setState does not take \(newState\)",
            id="a method that is called takes more",
        ),
        pytest.param(
            "syncobj.py",
            "transport = None, transportClass = TCPTransport):",
            "transportClass = TCPTransport, transport = None):",
            "SyncObj.__init__ does not take",
            id="the constructor's arguments have another order",
        ),
        pytest.param(
            "syncobj.py",
            "__commandsWaitingReply",
            "__commandsInFlight",
            "SyncObj.__init__ does not make __commandsWaitingReply",
            id="an attribute that is used has another name",
        ),
        pytest.param(
            "syncobj.py",
            "createJournal(self.__conf.journalFile)",
            "self.__conf.journalFactory(self.__conf.journalFile)",
            "SyncObj.__init__ does not call createJournal",
            id="the journal is made in another way",
        ),
        pytest.param(
            "serializer.py",
            "tryUseFork,",
            "tryUseFork, compression,",
            "Serializer is not called with fileName",
            id="the serializer is made with more",
        ),
        pytest.param(
            "journal.py",
            "    def onOneSecondTimer(self):\n        pass\n",
            "    def onOneSecondTimer(self):\n        pass\n\n    def sync(self):\n        pass\n",
            "journal.Journal has sync, which raftwal's does not",
            id="a journal has to do more",
        ),
        pytest.param(
            "syncobj.py",
            "self.__setCurrentTerm(self.__raftCurrentTerm + 1, self.__selfNode.id)",
            "self.__raftCurrentTerm += 1",
            "__raftCurrentTerm is set by _onTick, too",
            id="a term that the journal does not hear of",
        ),
        pytest.param(
            "syncobj.py",
            VOTE,
            EARLY_VOTE,
            "_onTick does not do in this order: __setCurrentTerm, request_vote",
            id="a vote is asked for before the journal hears of its term",
        ),
        pytest.param(
            "syncobj.py",
            MOVED_COMMIT,
            "                self.__raftCommitIndex = nextCommitIdx\n",
            "_onTick does not do at once: =__raftCommitIndex, __raftLog, setRaftCommitIndex",
            id="a leader's commit that the journal does not hear of",
        ),
        pytest.param(
            "syncobj.py",
            MOVED_COMMIT,
            MOVED_COMMIT.replace("        self.__raftLog", "        self.__applyLogEntries()\n"
                                 "                self.__raftLog", 1),
            "_onTick does not do at once: =__raftCommitIndex, __raftLog, setRaftCommitIndex",
            id="a leader's commit that is applied before the journal hears of it",
        ),
        pytest.param(
            "syncobj.py",
            "        with self.__onTickCallbacksLock:\n"
            "            for callback in self.__onTickCallbacks:\n"
            "                callback()\n\n"
            "        self._poller.poll(timeToWait)\n",
            "        self._poller.poll(timeToWait)\n\n"
            "        with self.__onTickCallbacksLock:\n"
            "            for callback in self.__onTickCallbacks:\n"
            "                callback()\n",
            "_onTick does not do in this order: onOneSecondTimer",
            id="the poll comes before the callbacks in which raftwal flushes",
        ),
        pytest.param(
            "syncobj.py",
            "'type': 'timeout_now'",
            "'type': 'lead_now'",
            "transferLeadership makes no message with timeout_now",
            id="a message has another name",
        ),
        pytest.param(
            "transport.py",
            "def send(self, node, message):",
            "def send(self, node, message, priority):",
            r"transport.Transport.send does not take \(node, message\)",
            id="a transport sends with more",
        ),
    ],
)  # fmt: skip
def test_what_the_adapter_builds_on_is_looked_for(copy, check, file, before, after, told):
    copy.change(file, before, after)
    with pytest.raises(UnsupportedPySyncObjError, match=told):
        check()


def test_no_override_helps_where_something_is_missing(copy, check, monkeypatch):
    copy.change("syncobj.py", "__loadDumpFile", "__loadDump")
    copy.set_version("0.3.99")
    monkeypatch.setenv(compatibility.UNTESTED_VARIABLE, "0.3.99")
    with pytest.raises(UnsupportedPySyncObjError, match=r"0\.3\.99 is not as raftwal's adapter"):
        check()


def test_of_many_differences_a_few_are_told(copy, check):
    copy.change("syncobj.py", "class SyncObj(object):", "class Old(object):")
    copy.change("syncobj.py", "def __copy_func", "class SyncObj(Old):\n    pass\n\ndef __copy_func")
    with pytest.raises(UnsupportedPySyncObjError, match=r"; and [0-9]+ more") as caught:
        check()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("version", ["0.3.16", "0.3.18", "0.4.0", "1.0", "0.3.17a"])
def test_an_untested_version_is_refused_with_what_was_tested_and_the_way_on(copy, check, version):
    copy.set_version(version)
    with pytest.raises(UnsupportedPySyncObjError) as caught:
        check()
    message = str(caught.value)
    assert f"not tested with PySyncObj {version}, only with 0.3.17" in message
    assert compatibility.requirement() in message
    assert f"set RAFTWAL_UNTESTED_PYSYNCOBJ={version}" in message


def test_a_pysyncobj_that_does_not_say_its_version_is_refused(copy, check):
    copy.change("version.py", "VERSION", "NUMBER")
    copy.change("syncobj.py", "from .version import VERSION", "VERSION = None")
    copy.change("journal.py", "from .version import VERSION", "VERSION = '0.3.17'")
    with pytest.raises(UnsupportedPySyncObjError, match="of an unknown version"):
        check()


def test_the_override_is_of_one_version_and_leaves_a_warning(copy, check, monkeypatch, caplog):
    copy.set_version("0.3.18")
    monkeypatch.setenv(compatibility.UNTESTED_VARIABLE, "0.3.19")
    with pytest.raises(UnsupportedPySyncObjError):
        check()
    monkeypatch.setenv(compatibility.UNTESTED_VARIABLE, "0.3.18")
    check()
    assert "pysyncobj_untested" in caplog.text


def test_importing_the_adapter_fails_at_once_on_a_version_that_it_does_not_know(copy):
    copy.set_version("0.4.0")
    done = copy.run("-c", "import raftwal; print('the rest works'); import raftwal.pysyncobj")
    assert done.stdout == "the rest works\n"
    assert done.returncode == 1
    assert "UnsupportedPySyncObjError: raftwal's adapter was not tested" in done.stderr


def test_on_the_command_line_the_refusal_is_one_line(copy):
    copy.set_version("0.4.0")
    done = copy.run("-m", "raftwal.pysyncobj", "program")
    assert done.returncode == 1
    assert done.stderr.startswith("raftwal: raftwal's adapter was not tested with PySyncObj 0.4.0")
    assert done.stderr.count("\n") == 1


def test_with_the_override_a_node_runs(copy):
    copy.set_version("0.3.18")
    program = """
        import sys
        import pysyncobj.version
        from pysyncobj import SyncObjConf
        from pysyncobj.batteries import ReplCounter
        from raftwal.pysyncobj import DurableSyncObj

        counter = ReplCounter()
        conf = SyncObjConf(autoTickPeriod=0.005, raftMinTimeout=0.31, raftMaxTimeout=0.4)
        node = DurableSyncObj(sys.argv[1], [], conf, consumers=[counter], data_dir="node")
        print(pysyncobj.version.VERSION, counter.inc(sync=True, timeout=30))
        node.destroy_synchronous()
    """
    (address,) = free_addresses(1)
    done = copy.run("-c", textwrap.dedent(program), address, RAFTWAL_UNTESTED_PYSYNCOBJ="0.3.18")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "0.3.18 1\n"
    assert "pysyncobj_untested" in done.stderr


def test_every_private_name_that_the_adapter_uses_is_looked_for():
    used = {
        name
        for path in ADAPTER.glob("*.py")
        for name in re.findall(r"\b_SyncObj(__\w+)", path.read_text())
    }
    assert used
    looked_for = {*compatibility._METHODS, *compatibility._ATTRIBUTES}
    assert used - looked_for == set()


def test_every_kind_of_message_that_the_adapter_tells_apart_is_looked_for():
    told = {word for words in compatibility._MESSAGES.values() for word in words}
    assert set(barrier._FLOWING) - told == set()
    for module in ("barrier", "reception"):
        compared = {
            constant.value
            for node in ast.walk(ast.parse((ADAPTER / f"{module}.py").read_text()))
            if isinstance(node, ast.Compare)
            for constant in ast.walk(node)
            if isinstance(constant, ast.Constant) and isinstance(constant.value, str)
        }
        assert compared - told - {"type", "term"} == set()


@pytest.mark.parametrize(
    ("path", "implementation"),
    [("journal.Journal", DurableJournal), ("serializer.Serializer", SnapshotSerializer)],
)
def test_the_adapters_own_classes_can_be_called_as_pysyncobjs(path, implementation):
    for name, parameters in compatibility._INTERFACES[path].items():
        if name != "__init__":
            own = tuple(inspect.signature(getattr(implementation, name)).parameters)
            assert own == ("self", *parameters), name
