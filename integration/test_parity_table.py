"""docs/etcd-parity.md has a row for each name that etcd's packages export, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import program
from etcd_packages import EtcdPackages, run_go
from test_damage_beside_etcd import DIFFERENCES

PAGE = Path(__file__).parents[1] / "docs" / "etcd-parity.md"
GENERATED = re.compile(r"Descriptor|Get[A-Z]\w*|ProtoMessage|ProtoReflect|Reset|String")
ETCD = "go.etcd.io/etcd"
# Package, and of which files the names count; of all for None.
PACKAGES = {
    "wal": (f"{ETCD}/server/v3/storage/wal", None),
    "walpb": (f"{ETCD}/server/v3/storage/wal/walpb", None),
    "snap": (f"{ETCD}/server/v3/etcdserver/api/snap", None),
    "snappb": (f"{ETCD}/server/v3/etcdserver/api/snap/snappb", None),
    "fileutil": (f"{ETCD}/client/pkg/v3/fileutil", r"(purge|lock|preallocate)(_linux)?\.go"),
    "raft": ("go.etcd.io/raft/v3", r"storage\.go"),
}
BESIDE_THOSE_FILES = {
    "fileutil": {"fileutil.PrivateFileMode", "fileutil.PrivateDirMode"},
    "raft": {"raft.MustSync", "raft.IsEmptyHardState", "raft.IsEmptySnap"},
}


def go(*words: str) -> str:
    EtcdPackages()  # builds the program, and says what is missing
    done = run_go(program("go"), *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def exported(package: str, text: str) -> set[str]:
    """``package.Name`` and ``Type.Method`` of what ``go doc -all`` lists."""
    names: set[str] = set()
    block, within = "", ""
    for line in text.splitlines():
        if line in ("const (", "var ("):
            block = "names"
        elif opened := re.match(r"type ([A-Z]\w*) (struct|interface) \{$", line):
            names.add(f"{package}.{opened[1]}")
            block, within = opened[2], opened[1]
        elif line in (")", "}"):
            block = ""
        elif method := re.match(r"func \((?:\w+ )?\*?([A-Z]\w*)\) ([A-Z]\w*)\(", line):
            if not GENERATED.fullmatch(method[2]):
                names.add(f"{method[1]}.{method[2]}")
        elif top := re.match(r"(?:func|type|var|const) ([A-Z]\w*)", line):
            names.add(f"{package}.{top[1]}")
        elif block == "names" and (listed := re.match(r"\t([A-Z]\w*)", line)):
            names.add(f"{package}.{listed[1]}")
        elif block == "interface" and (listed := re.match(r"\t([A-Z]\w*)\(", line)):
            names.add(f"{within}.{listed[1]}")
    return names


def names_of(package: str) -> set[str]:
    path, files = PACKAGES[package]
    names = exported(package, go("doc", "-all", path))
    if files is None:
        return names
    directory = Path(go("list", "-f", "{{.Dir}}", path).strip())
    source = "".join(
        file.read_text() for file in sorted(directory.iterdir()) if re.fullmatch(files, file.name)
    )
    declared = set(re.findall(r"^(?:func|type|var|const) ([A-Z]\w*)", source, re.M))
    types = set(re.findall(r"^type ([A-Z]\w*)", source, re.M))
    kept = {name for name in names if name.partition(".")[0] in types}
    kept |= {f"{package}.{name}" for name in declared}
    assert names >= BESIDE_THOSE_FILES[package]
    return kept | BESIDE_THOSE_FILES[package]


def rows_of(package: str) -> set[str]:
    """The names in the first column of the tables under the package's heading."""
    text = PAGE.read_text()
    headings = {
        "walpb": "## `walpb`",
        "wal": "## `wal`\n",
        "snap": "## `snap` and `snappb`",
        "snappb": "## `snap` and `snappb`",
        "fileutil": "## `fileutil`",
        "raft": "## `raft`",
    }
    section = text.partition(headings[package])[2].partition("\n## ")[0]
    assert section, package
    rows = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([\w.]+)`", row)}


@pytest.mark.parametrize(
    "packages", [["wal"], ["walpb"], ["snap", "snappb"], ["fileutil"], ["raft"]]
)
def test_every_exported_name_has_its_row(packages):
    names = set().union(*map(names_of, packages))
    assert len(names) > 3, names
    assert rows_of(packages[0]) == names


def test_the_differences_are_those_of_the_test():
    section = PAGE.read_text().partition("## Differences on purpose")[2]
    rows = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("| ")]
    assert rows[1:] == [difference.name for difference in DIFFERENCES]
