"""A PySyncObj cluster on raftwal in one thread, from a seed: time, network and disks simulated.

``python -m integration.simulation --help`` runs seeds; ``world.World`` is one run.
"""
