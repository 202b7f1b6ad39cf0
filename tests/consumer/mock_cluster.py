"""librdkafka's mock cluster with injected errors, called through the wheel's own library.

It shows one thing: how the client handles an error response. It neither isolates transactions nor stores
offsets, so it proves nothing about exactly-once.
"""

import ctypes
import re
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import confluent_kafka

PRODUCE: Final = 0
ADD_PARTITIONS: Final = 24
ADD_OFFSETS: Final = 25
END_TXN: Final = 26
TXN_OFFSET_COMMIT: Final = 28

_BROKER: Final = 1
_PRODUCER: Final = 0
_pointer, _text, _int, _void = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, None
_PROTOTYPES: Final[dict[str, tuple[Any, list[Any]]]] = {
    "rd_kafka_conf_new": (_pointer, []),
    "rd_kafka_new": (_pointer, [_int, _pointer, _text, ctypes.c_size_t]),
    "rd_kafka_destroy": (_void, [_pointer]),
    "rd_kafka_mock_cluster_new": (_pointer, [_pointer, _int]),
    "rd_kafka_mock_cluster_destroy": (_void, [_pointer]),
    "rd_kafka_mock_cluster_bootstraps": (_text, [_pointer]),
    "rd_kafka_mock_topic_create": (_int, [_pointer, _text, _int, _int]),
    "rd_kafka_mock_broker_set_down": (_int, [_pointer, ctypes.c_int32]),
    "rd_kafka_mock_broker_set_up": (_int, [_pointer, ctypes.c_int32]),
    "rd_kafka_mock_clear_request_errors": (_void, [_pointer, ctypes.c_int16]),
    "rd_kafka_mock_push_request_errors_array": (
        _void,
        [_pointer, ctypes.c_int16, ctypes.c_size_t, ctypes.POINTER(_int)],
    ),
}


def loaded_library() -> Path:
    """The librdkafka that confluent_kafka has loaded into this process."""
    assert confluent_kafka.libversion()
    (path,) = set(re.findall(r"/\S*librdkafka\S*\.so\S*", Path("/proc/self/maps").read_text()))
    return Path(path)


class MockCluster:
    """One mock broker with the given topics, one partition each."""

    def __init__(self, topics: tuple[str, ...]) -> None:
        self._lib = ctypes.CDLL(str(loaded_library()))
        for name, (result, arguments) in _PROTOTYPES.items():
            function = getattr(self._lib, name)
            function.restype, function.argtypes = result, arguments
        self._client = self._lib.rd_kafka_new(_PRODUCER, self._lib.rd_kafka_conf_new(), None, 0)
        self._cluster = self._lib.rd_kafka_mock_cluster_new(self._client, 1)
        for topic in topics:
            assert not self._lib.rd_kafka_mock_topic_create(self._cluster, topic.encode(), 1, 1)
        self.bootstrap_servers: str = self._lib.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lib.rd_kafka_mock_cluster_destroy(self._cluster)
        self._lib.rd_kafka_destroy(self._client)

    def answer(self, api: int, *errors: int) -> None:
        """Answer the next requests of this API with these errors, one each."""
        self._lib.rd_kafka_mock_push_request_errors_array(
            self._cluster, api, len(errors), (_int * len(errors))(*errors)
        )

    def forget(self) -> None:
        """Drop the injected errors that no request has used up."""
        for api in (PRODUCE, ADD_PARTITIONS, ADD_OFFSETS, END_TXN, TXN_OFFSET_COMMIT):
            self._lib.rd_kafka_mock_clear_request_errors(self._cluster, api)

    def down(self) -> None:
        """Close the broker's connections and refuse new ones."""
        assert not self._lib.rd_kafka_mock_broker_set_down(self._cluster, _BROKER)

    def up(self) -> None:
        """Accept connections again."""
        assert not self._lib.rd_kafka_mock_broker_set_up(self._cluster, _BROKER)
