"""Fuzzing the readers: any bytes as a segment, a record or a snapshot file.

A target takes bytes and fails unless raftwal refuses them with an error of its own or reads
them correctly: `fuzzing.segments`, `fuzzing.messages`.  What is correct is said by
`fuzzing.log_model`, and inputs worth keeping are in ``corpus/``.
"""
