"""Benchmarks: vitalstream next to the limit of its Kafka client and to its alternatives.

`make bench` runs them all on a real Kafka, `make bench-quick` a few. Neither is a test.
"""
