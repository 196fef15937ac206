"""``make demo``: a three-node kvstore that is killed while it is written to."""
