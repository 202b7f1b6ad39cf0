"""The scoring worker: collects chunks, has them scored, commits them exactly once."""
