"""Whether the installed PySyncObj is one that the adapter knows, looked at when it is imported.

Two things are asked.  That everything the adapter reaches for, calls or overrides is
there and has the shape it had: names, signatures, and the order of the few steps that a
promise hangs on.  And that the version is one that the tests were run with, since no
look at names tells what else a release has changed.
"""

from __future__ import annotations

import dis
import importlib
import inspect
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

from raftwal.errors import UnsupportedPySyncObjError
from raftwal.events import log

OLDEST_TESTED = "0.3.17"
NEWEST_TESTED = "0.3.17"

UNTESTED_VARIABLE = "RAFTWAL_UNTESTED_PYSYNCOBJ"
"""The environment variable that names an untested version to go on with all the same."""

_PREFIX = "_SyncObj"
_TOLD = 4
"""So many differences are told one by one: those of an old version are many."""

# Module-level names that SyncObj.__init__ looks up when it is called, replaced by ours.
_REPLACED_NAMES = {
    "createJournal": ("journalFile",),
    "Serializer": (
        "fileName",
        "transmissionBatchSize",
        "tryUseFork",
        "serializer",
        "deserializer",
        "serializeChecker",
    ),
}

# What SyncObj has, and with which parameters after self.
_METHODS = {
    "__init__": (
        "selfNode",
        "otherNodes",
        "conf",
        "consumers",
        "nodeClass",
        "transport",
        "transportClass",
    ),
    "_onTick": ("timeToWait",),
    "_doDestroy": (),
    "destroy": (),
    "tick_thread_alive": (),
    "addOnTickCallback": ("callback",),
    "getStatus": (),
    "_isLeader": (),
    "_getLeader": (),
    "_checkCommandsToApply": (),
    "__applyLogEntries": (),
    "__doApplyCommand": ("command",),
    "__onMessageReceived": ("node", "message"),
    "__onSetCodeVersion": ("newVersion",),
    "__setCurrentTerm": ("term", "votedForNodeId"),
    "__setState": ("newState",),
    "__sendAppendEntries": (),
    "__generateRaftTimeout": (),
    "forceLogCompaction": (),
    "__sendNextNodeIdx": ("node", "reset", "nextNodeIdx", "success"),
    "__parseChangeClusterRequest": ("command",),
    "__doChangeCluster": ("request", "reverse"),
    "__tryLogCompaction": (),
    "__loadDumpFile": ("clearJournal",),
}

# Attributes that SyncObj.__init__ makes.
_ATTRIBUTES = (
    "__conf",
    "__transport",
    "__selfNode",
    "__otherNodes",
    "__connectedNodes",
    "__raftLog",
    "__raftState",
    "__raftLeader",
    "__raftElectionDeadline",
    "__raftCurrentTerm",
    "__raftCommitIndex",
    "__raftLastApplied",
    "__raftNextIndex",
    "__raftMatchIndex",
    "__recvTransmission",
    "__needLoadDumpFile",
    "__enabledCodeVersion",
    "_poller",
    "__commandsLocalCounter",
    "__commandsQueue",
    "__commandsWaitingCommit",
    "__commandsWaitingReply",
)

# The classes that raftwal's take the place of: all that PySyncObj may call on them, and
# with which parameters after self.  One method more would not be there.
_INTERFACES: dict[str, dict[str, tuple[str, ...]]] = {
    "journal.Journal": {
        "add": ("command", "idx", "term"),
        "clear": (),
        "deleteEntriesFrom": ("entryFrom",),
        "deleteEntriesTo": ("entryTo",),
        "__getitem__": ("item",),
        "__len__": (),
        "_destroy": (),
        "setRaftCommitIndex": ("raftCommitIndex",),
        "getRaftCommitIndex": (),
        "setCurrentTerm": ("term", "votedForNodeId"),
        "getCurrentTerm": (),
        "getVotedForNodeId": (),
        "onOneSecondTimer": (),
    },
    "serializer.Serializer": {
        "__init__": _REPLACED_NAMES["Serializer"],
        "checkSerializing": (),
        "serialize": ("data", "id"),
        "deserialize": (),
        "getTransmissionData": ("transmissionID",),
        "setTransmissionData": ("data",),
        "cancelTransmisstion": ("id",),  # PySyncObj's spelling
    },
}

# Of these, only what raftwal calls or stands around.
_PARTS: dict[str, dict[str, tuple[str, ...]]] = {
    "transport.Transport": {
        "__init__": ("syncObj", "selfNode", "otherNodes"),
        "send": ("node", "message"),
        "setOnMessageReceivedCallback": ("callback",),
        "destroy": (),
    },
    "poller.Poller": {
        "subscribe": ("descr", "callback", "eventMask"),
        "unsubscribe": ("descr",),
        "poll": ("timeout",),
    },
    "fast_queue.FastQueue": {"get_nowait": ()},
}

# The only methods that may set these: what the journal is told, and when, follows from it.
_SET_BY = {
    "__raftLog": ("__init__",),
    "__raftCurrentTerm": ("__init__", "__setCurrentTerm"),
    "__votedForNodeId": ("__init__", "__setCurrentTerm"),
    "__raftLastApplied": ("__init__", "__applyLogEntries", "__loadDumpFile"),
    "__raftCommitIndex": ("__init__", "_onTick", "__loadDumpFile", "__onMessageReceived"),
}

# Steps that must come in this order, with others between them.  "=x" sets x.
_ORDER = (
    # A term and a vote are in the journal before the message that depends on them.
    ("__setCurrentTerm", ("__raftLog", "setCurrentTerm")),
    ("_onTick", ("__setCurrentTerm", "request_vote")),
    ("__onMessageReceived", ("__setCurrentTerm", "__votedForNodeId", "response_vote")),
    # Commits are counted, then applied; what is appended is flushed before the poll.
    (
        "_onTick",
        (
            "onOneSecondTimer",
            "=__raftCommitIndex",
            "__applyLogEntries",
            "_checkCommandsToApply",
            "__tryLogCompaction",
            "__onTickCallbacks",
            "poll",
        ),
    ),
    # A follower appends, then acknowledges; and notes the commit index at the end.
    ("__onMessageReceived", ("__deleteEntriesFrom", "add", "__sendNextNodeIdx")),
    ("__onMessageReceived", ("setTransmissionData", "__loadDumpFile", "__sendNextNodeIdx")),
    ("__onMessageReceived", ("__sendNextNodeIdx", "=__raftCommitIndex", "setRaftCommitIndex")),
    # A snapshot replaces the log by its last two entries.
    ("__loadDumpFile", ("deserialize", "clear", "add", "add", "=__raftLastApplied")),
    ("__loadDumpFile", ("=__raftLastApplied", "__onSetCodeVersion")),
)

# As above, with nothing between them: the journal hears of a leader's commit at once.
_AT_ONCE = (("_onTick", ("=__raftCommitIndex", "__raftLog", "setRaftCommitIndex")),)

# The messages that the send barrier and the reception tell apart, and who makes them.
_MESSAGES = {
    "__sendAppendEntries": ("append_entries", "transmission", "finish", "prevLogIdx", "serialized"),
    "__sendNextNodeIdx": ("next_node_idx", "success", "reset"),
    "_checkCommandsToApply": ("apply_command", "apply_command_response"),
    "transferLeadership": ("timeout_now",),
}


def check_pysyncobj() -> None:
    """Whether the adapter can build on the installed PySyncObj.

    Raises `UnsupportedPySyncObjError`, which names what is not as it was, or the versions
    that were tested.
    """
    differences = list(_differences())
    version = _version()
    install = f"Install a tested one: pip install '{requirement()}'"
    if differences:
        told = differences[:_TOLD]
        if len(differences) > _TOLD:
            told.append(f"and {len(differences) - _TOLD} more")
        raise UnsupportedPySyncObjError(
            f"PySyncObj {version} is not as raftwal's adapter needs it: {'; '.join(told)}",
            advice=install,
        )
    if _is_tested(version):
        return
    if os.environ.get(UNTESTED_VARIABLE) == version:
        log.warning("pysyncobj_untested", version=version, tested=_tested())
        return
    raise UnsupportedPySyncObjError(
        f"raftwal's adapter was not tested with PySyncObj {version}, only with {_tested()}",
        advice=f"{install}. What the adapter builds on is there; to go on with this version "
        f"all the same, set {UNTESTED_VARIABLE}={version}",
    )


def requirement() -> str:
    """What to ask a package installer for."""
    if OLDEST_TESTED == NEWEST_TESTED:
        return f"pysyncobj=={NEWEST_TESTED}"
    return f"pysyncobj>={OLDEST_TESTED},<={NEWEST_TESTED}"


def _tested() -> str:
    if OLDEST_TESTED == NEWEST_TESTED:
        return NEWEST_TESTED
    return f"{OLDEST_TESTED} to {NEWEST_TESTED}"


def _version() -> str:
    """The version of the code that runs, which need not be what the installer knows."""
    try:
        return str(importlib.import_module("pysyncobj.version").VERSION)
    except (ImportError, AttributeError):
        return "(of an unknown version)"


def _is_tested(version: str) -> bool:
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)*", version):
        return False  # a pre-release or a patched build
    return _numbers(OLDEST_TESTED) <= _numbers(version) <= _numbers(NEWEST_TESTED)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _differences() -> Iterator[str]:
    try:
        module = importlib.import_module("pysyncobj.syncobj")
        sync_obj = module.SyncObj
    except (ImportError, AttributeError) as error:
        yield f"it has no SyncObj ({error})"
        return
    methods = _methods_of(sync_obj)
    yield from _replaced_names(module, methods)
    yield from _signatures("SyncObj", methods, _METHODS)
    yield from _interfaces()
    steps = {name: list(_steps(method)) for name, method in methods.items()}
    made = steps.get("__init__", [])
    for name in _ATTRIBUTES:
        if f"={name}" not in made:
            yield f"SyncObj.__init__ does not make {name}"
    for name, setters in _SET_BY.items():
        others = {method for method, its in steps.items() if f"={name}" in its}.difference(setters)
        if others:
            yield f"{name} is set by {', '.join(sorted(others))}, too"
    yield from _sequences(steps)
    for method, words in _MESSAGES.items():
        missing = sorted(set(words).difference(steps.get(method, [])))
        if missing:
            yield f"{method} makes no message with {', '.join(missing)}"


def _methods_of(cls: type) -> dict[str, Any]:
    """The functions of a class by the names that its source gives them."""
    # install() wraps some; what the adapter builds on is in the original.
    found = {name: inspect.unwrap(value) for name, value in vars(cls).items() if callable(value)}
    return {
        name.removeprefix(_PREFIX): value
        for name, value in found.items()
        if inspect.isfunction(value)
    }


def _replaced_names(module: Any, methods: dict[str, Any]) -> Iterator[str]:
    init = methods.get("__init__")
    looked_up = () if init is None else init.__code__.co_names
    for name, parameters in _REPLACED_NAMES.items():
        if name not in looked_up:
            yield f"SyncObj.__init__ does not call {name}"
        elif _parameters(getattr(module, name, None)) != parameters:
            yield f"{name} is not called with {', '.join(parameters)}"


def _interfaces() -> Iterator[str]:
    for path, expected in _INTERFACES.items():
        cls = _class_at(path)
        methods = {} if cls is None else _methods_of(cls)
        yield from _signatures(path, methods, expected)
        its_own = f"_{path.split('.')[-1]}__"
        for name in sorted(methods.keys() - expected.keys()):
            if name.startswith(its_own):
                continue
            yield f"{path} has {name}, which raftwal's does not"
    for path, expected in _PARTS.items():
        cls = _class_at(path)
        yield from _signatures(path, {} if cls is None else _methods_of(cls), expected)


def _class_at(path: str) -> Any:
    module_name, name = path.split(".")
    try:
        return getattr(importlib.import_module(f"pysyncobj.{module_name}"), name)
    except (ImportError, AttributeError):
        return None


def _signatures(
    owner: str, methods: dict[str, Any], expected: dict[str, tuple[str, ...]]
) -> Iterator[str]:
    for name, parameters in expected.items():
        method = methods.get(name)
        if method is None:
            yield f"there is no {owner}.{name}"
        elif _parameters(method)[1:] != parameters:
            yield f"{owner}.{name} does not take ({', '.join(parameters)})"


def _parameters(function: Any) -> tuple[str, ...]:
    """By what names it takes its arguments; nothing when it is no function."""
    try:
        return tuple(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return ()


def _steps(method: Any) -> Iterator[str]:
    """What a method reaches for, in order: attributes, ``=`` before one it sets, and texts."""
    for instruction in dis.get_instructions(method):
        value = instruction.argval
        if instruction.opname == "STORE_ATTR":
            yield f"={value.removeprefix(_PREFIX)}"
        elif instruction.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            yield value.removeprefix(_PREFIX)
        elif instruction.opname == "LOAD_CONST":
            # A dict's keys are one tuple.
            yield from filter(_is_text, value if isinstance(value, tuple) else (value,))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _sequences(steps: dict[str, list[str]]) -> Iterator[str]:
    for method, expected in _ORDER:
        if not _in_order(expected, steps.get(method, ())):
            yield f"{method} does not do in this order: {', '.join(expected)}"
    for method, expected in _AT_ONCE:
        its = steps.get(method, [])
        first, size = expected[0], len(expected)
        starts = [position for position, step in enumerate(its) if step == first]
        if not starts or any(tuple(its[at : at + size]) != expected for at in starts):
            yield f"{method} does not do at once: {', '.join(expected)}"


def _in_order(expected: Iterable[str], steps: Iterable[str]) -> bool:
    remaining = iter(steps)
    return all(step in remaining for step in expected)
