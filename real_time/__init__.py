"""The documented core: chunked scoring of a DataFrame, and nothing that knows of Kafka."""
