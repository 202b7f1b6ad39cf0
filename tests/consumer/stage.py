"""What an end-to-end test plays on: topics of its own, models, processes, and a look at the group's progress."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from broker.settings import Settings
from tests.conftest import MakeSettings
from tests.consumer.accounts import Progress
from tests.consumer.processes import Process, flags
from tests.kafka import Row, produce

CONSUME = ("-m", "vitalstream", "consume")


class Stage:
    """Starts processes for one test, and ends what is left of them."""

    def __init__(
        self,
        folder: Path,
        *,
        make_settings: MakeSettings,
        models: Mapping[str, Path],
        properties: Mapping[str, str],
    ) -> None:
        self.folder = folder
        self._make_settings = make_settings
        self._models = models
        self._properties = properties
        self._processes: list[Process] = []
        self._watches: dict[str, Progress] = {}

    def settings(self, *, model: str = "boosting", partitions: int = 4, **changes: Any) -> Settings:
        """Fresh topics and a fresh group, with one of the models."""
        return self._make_settings(partitions=partitions, **({"model": self._models[model]} | changes))

    def worker(
        self,
        settings: Settings,
        *arguments: str,
        entry: Sequence[str] = CONSUME,
        environment: Mapping[str, str] = {},
    ) -> Process:
        """`vitalstream consume`, in a session so short that a dead worker is soon missed."""
        options = flags(settings, properties=self._properties)
        return self.run(*entry, *options, *arguments, environment=environment)

    def replay(self, settings: Settings, files: Sequence[str], *arguments: str) -> Process:
        """`vitalstream replay` of files to the input topic."""
        where = ("--bootstrap-servers", settings.bootstrap_servers, "--input-topic", settings.input_topic)
        return self.run("-m", "vitalstream", "replay", *files, *where, *arguments)

    def run(self, *arguments: str, environment: Mapping[str, str] = {}) -> Process:
        """Any Python process."""
        name = f"process-{len(self._processes)}"
        process = Process(arguments, folder=self.folder, name=name, environment=environment)
        self._processes.append(process)
        return process

    def send(self, settings: Settings, rows: Iterable[Row]) -> None:
        """Publish (key, value) or (key, value, partition) rows to the input topic."""
        produce(settings.bootstrap_servers, settings.input_topic, rows)

    def send_patients(self, settings: Settings, rows: Iterable[Mapping[str, Any]]) -> None:
        """Publish patients' rows, keyed by patient."""
        self.send(settings, ((row["patient_id"], orjson.dumps(row)) for row in rows))

    def committed(self, settings: Settings) -> int:
        """How many messages the group has committed."""
        return self._watch(settings).rows()

    def wait_committed(self, settings: Settings, rows: int, *, timeout: float = 60) -> None:
        """Wait until the group has committed that many messages."""
        try:
            self._watch(settings).reached(rows, timeout=timeout)
        except AssertionError as error:
            logs = "\n".join(f"--- process {one.pid}, code {one.code}\n{one.log}" for one in self._processes)
            raise AssertionError(f"{error}\n{logs}") from None

    def end(self) -> None:
        """End every process and close what was opened."""
        for process in self._processes:
            process.end()
        for watch in self._watches.values():
            watch.close()

    def _watch(self, settings: Settings) -> Progress:
        if settings.group not in self._watches:
            self._watches[settings.group] = Progress(settings)
        return self._watches[settings.group]
