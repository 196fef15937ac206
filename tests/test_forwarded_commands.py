"""Commands that a follower forwards to its leader, across a restart of the follower."""

from __future__ import annotations

from pathlib import Path

from clusters import cluster
from pysyncobj import FAIL_REASON


def test_an_answer_to_the_process_before_does_not_answer_this_one(tmp_path: Path, monkeypatch):
    """A leader with a backlog answers, after the restart, what was asked before it."""
    with cluster(tmp_path) as three:
        three.start_all()
        leader = three.wait_for_leader()
        before = next(node for node in three.nodes.values() if node is not leader)
        address = before.selfNode.id
        work_off = leader._checkCommandsToApply
        monkeypatch.setattr(leader, "_checkCommandsToApply", lambda: None)
        before.put("old", 1, callback=lambda *_: None)
        queue = leader._SyncObj__commandsQueue._FastQueue__queue
        three.tick_until(lambda: len(queue) > 0, "the command to reach the leader")

        three.stop(address)
        after = three.start(address)
        three.tick_until(lambda: after._getLeader() == leader.selfNode, "the new process to follow")
        answers: list[tuple[int, bool]] = []
        after.put(
            "new", 2, callback=lambda _, reason: answers.append((reason, "new" in after.values))
        )
        after.doTick(0.002)
        work_off()
        three.tick_until(lambda: after.values.get("old") == 1, "the old command to be applied")
        assert not answers, "nothing is known yet of the new one"

        monkeypatch.setattr(leader, "_checkCommandsToApply", work_off)
        three.tick_until(lambda: bool(answers), "the answer")
        assert answers == [(FAIL_REASON.SUCCESS, True)]
