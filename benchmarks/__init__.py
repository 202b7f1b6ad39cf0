"""Benchmarks: vitalstream beside the limit of its Kafka client and beside what one would use instead.

`make bench` runs them all on a real Kafka, `make bench-quick` a few, and neither is a test.
"""
