"""What an end-to-end test works with: its own topics, models, processes, and the group's progress."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from broker.settings import Settings
from broker.topics import create_topics
from consumer.observer import Step
from tests.conftest import MakeSettings
from tests.consumer import dying
from tests.consumer.accounts import Progress
from tests.consumer.processes import Process, flags
from tests.kafka import Row, produce
from vitalstream import cli


class Stage:
    """Starts processes for one test and ends whatever is left of them."""

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

    def settings(
        self,
        *,
        model: str = "boosting",
        partitions: int = 4,
        properties: Mapping[str, str] = {},
        **changes: Any,
    ) -> Settings:
        """New topics and a new group, with one of the models and librdkafka properties."""
        made = self._make_settings(partitions=partitions, model=self._models[model], **changes)
        if model == "history":
            create_topics(made, partitions=partitions, state=True)
        return made.model_copy(update={"kafka": dict(properties)})

    def worker(
        self, settings: Settings, *arguments: str, environment: Mapping[str, str] = {}, fork: bool = True
    ) -> Process:
        """`vitalstream consume`, with a session timeout so short that a dead worker is noticed quickly.

        Forked from a process that has imported everything; for several workers or without `fork`, started as
        a user would.
        """
        line = ["consume", *flags(settings, properties=self._properties), *arguments]
        if fork and settings.workers == 1:
            return self.start(cli.main, line, environment=environment)
        return self.command("-m", "vitalstream", *line, environment=environment)

    def dying(self, settings: Settings, step: Step, *, times: int = 3) -> Process:
        """A worker that kills itself with SIGKILL the `times`-th time it reaches `step`."""
        kafka = {**self._properties, **settings.kafka}
        whole = settings.model_copy(update={"kafka": kafka}).model_dump_json()
        line = [step, str(times), whole]
        return self.start(dying.main, line)

    def replay(self, settings: Settings, files: Sequence[str], *arguments: str) -> Process:
        """`vitalstream replay` of files to the input topic."""
        where = ["--bootstrap-servers", settings.bootstrap_servers, "--input-topic", settings.input_topic]
        return self.start(cli.main, ["replay", *files, *where, *arguments])

    def start(
        self, main: Callable[[], None], arguments: Sequence[str], *, environment: Mapping[str, str] = {}
    ) -> Process:
        """`main` with `arguments` as its command line."""
        return self._add(Process.fork(main, arguments, files=self._files(), environment=environment))

    def command(self, *arguments: str, environment: Mapping[str, str] = {}) -> Process:
        """`python` with any arguments."""
        return self._add(Process.command(arguments, files=self._files(), environment=environment))

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
        """End every process and close everything."""
        for process in self._processes:
            process.end()
        for watch in self._watches.values():
            watch.close()

    def _files(self) -> Path:
        return self.folder / f"process-{len(self._processes)}"

    def _add(self, process: Process) -> Process:
        self._processes.append(process)
        return process

    def _watch(self, settings: Settings) -> Progress:
        if settings.group not in self._watches:
            self._watches[settings.group] = Progress(settings)
        return self._watches[settings.group]
