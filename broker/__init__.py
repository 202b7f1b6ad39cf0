"""Kafka connection settings, topics, and the embedded and local brokers."""
