"""Computes the partition that holds a key's records."""

from typing import Final

_M: Final = 0x5BD1E995
_SEED: Final = 0x9747B28C
_32: Final = 0xFFFFFFFF


def partition_of(key: bytes, partitions: int) -> int:
    """The partition in which Java clients and workers put records with this key."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """The 32-bit hash of Kafka's `org.apache.kafka.common.utils.Utils.murmur2`, unsigned."""
    code = (_SEED ^ len(data)) & _32
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        word = int.from_bytes(data[at : at + 4], "little") * _M & _32
        word = (word ^ word >> 24) * _M & _32
        code = (code * _M & _32) ^ word
    if tail := data[whole:]:
        code = (code ^ int.from_bytes(tail, "little")) * _M & _32
    code = (code ^ code >> 13) * _M & _32
    return code ^ code >> 15
