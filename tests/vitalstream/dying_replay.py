"""`vitalstream`, but a signal comes just before a replay's `begin_transaction` or `commit_transaction`."""

import os
import signal
import sys
from typing import Any

import confluent_kafka


class Dying(confluent_kafka.Producer):
    ending = signal.Signals[sys.argv.pop(1)]
    step = sys.argv.pop(1)

    def begin_transaction(self) -> None:
        if self.step == "begin":
            os.kill(os.getpid(), self.ending)
        super().begin_transaction()

    def commit_transaction(self, *args: Any) -> None:
        if self.step == "commit":
            self.flush()
            os.kill(os.getpid(), self.ending)
        super().commit_transaction(*args)


if __name__ == "__main__":
    confluent_kafka.Producer = Dying  # type: ignore[misc]
    from vitalstream.cli import main

    main()
