"""The formats of input messages: each reader makes documents, or the columns of a chunk, from bytes."""
