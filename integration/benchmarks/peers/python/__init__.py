"""The program of the peers that are used from Python: ``python -m`` this package."""
