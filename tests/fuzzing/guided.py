"""``python -m fuzzing.guided KIND [libFuzzer options]``: atheris looks for new paths in raftwal.

Mutations are those of `fuzzing.inputs`, and now and then libFuzzer's own.  What is found goes
into the first directory that is named, and a failing input where ``-artifact_prefix`` says.
"""

from __future__ import annotations

import random
import sys

import atheris

with atheris.instrument_imports(include=["raftwal"]):
    from fuzzing.inputs import CORPUS, MOST_BYTES, TARGETS, corpus, mutated
    from fuzzing.running import without_events


def main() -> None:
    kind = sys.argv.pop(1)
    others = [path.read_bytes() for path in corpus(kind)]

    def one_input(data: bytes) -> None:
        for target in TARGETS[kind]:
            target(data)

    def mutate(data: bytes, most_bytes: int, seed: int) -> bytes:
        source = random.Random(seed)
        if source.random() < 0.1:
            return atheris.Mutate(data, most_bytes)
        return mutated(kind, data, source, others, most_bytes)

    arguments = [*sys.argv, f"-max_len={MOST_BYTES}", str(CORPUS / kind)]
    atheris.Setup(arguments, one_input, custom_mutator=mutate)
    with without_events():
        atheris.Fuzz()


if __name__ == "__main__":
    main()
