"""What goes along with the worker's partitions and transactions, beside scoring."""

from collections.abc import Collection, Mapping, Sequence

from consumer.sending import Records


class Lifecycle:
    """Is told of each step and does nothing; subclasses do what they need. The worker's thread calls it.

    `starts` are by partition the end of the state that is committed beside its offset, as `Positions.state_ends` has
    them.
    """

    def assigned(self, starts: Mapping[int, int | None]) -> None:
        """These partitions are the worker's; called out of a callback, it must be quick."""

    def restore(self) -> None:
        """Do some of what must be done before assigned partitions can be read; called until `outstanding` is empty."""

    @property
    def outstanding(self) -> Collection[int]:
        """The assigned partitions that can't be read yet."""
        return ()

    def closing(self) -> Sequence[Records]:
        """What the transaction that is about to be committed must hold, too."""
        return ()

    def ends(self) -> Mapping[int, int]:
        """The ends to commit beside the offsets; asked once everything is delivered."""
        return {}

    def committed(self) -> None:
        """The transaction is committed."""

    def settled(self, starts: Mapping[int, int | None]) -> None:
        """What was not committed is undone: these are the ends that the group has committed, after trouble."""

    def revoked(self, partitions: Collection[int]) -> None:
        """These partitions are no longer the worker's."""

    def close(self) -> None:
        """The worker ends."""
