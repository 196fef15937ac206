"""A node of a replicated list of words, to be administered; it knows nothing of raftwal.

``python administered_words.py ADDRESS PARTNERS NAME [PASSWORD]``: the partners' addresses
with commas between them, and the name of its journal.  Each line of its input is a word to
append; it answers ``appended N``, or with the failure's reason.  Run with raftwal installed,
or, with RAFTWAL_DERIVES=1, as a class that derives from `DurableSyncObj`.
"""

from __future__ import annotations

import os
import sys

from pysyncobj import SyncObj, SyncObjConf, SyncObjException, replicated


class Words:
    def begin(self):
        self.words = []

    @replicated
    def append(self, word):
        self.words.append(word)
        return len(self.words)

    @replicated(ver=1)
    def append(self, word):  # noqa: F811  # how PySyncObj has a method's next version
        self.words.append(word.upper())
        return len(self.words)

    def getStatus(self):
        return {**super().getStatus(), "words": " ".join(getattr(self, "words", []))}


def node_of(address, partners, name, conf):
    if os.environ.get("RAFTWAL_DERIVES"):
        from raftwal.pysyncobj import DurableSyncObj  # noqa: PLC0415  # the other way is without

        class DurableWords(Words, DurableSyncObj):
            pass

        return DurableWords(address, partners, conf, data_dir=f"{name}.raftwal")

    class PlainWords(Words, SyncObj):
        pass

    conf.journalFile = name
    return PlainWords(address, partners, conf)


def main() -> None:
    address, partners, name, *password = sys.argv[1:]
    conf = SyncObjConf(
        autoTickPeriod=0.01,
        connectionRetryTime=0.1,
        raftMinTimeout=1.0,
        raftMaxTimeout=1.6,
        dynamicMembershipChange=True,
        password=password[0] if password else None,
    )
    node = node_of(address, [each for each in partners.split(",") if each], name, conf)
    node.begin()
    for line in sys.stdin:
        try:
            print("appended", node.append(line.strip(), sync=True, timeout=60), flush=True)
        except SyncObjException as error:
            print(error.errorCode, flush=True)
    node.destroy_synchronous()


if __name__ == "__main__":
    main()
