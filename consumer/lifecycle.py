"""Hooks into the life of the worker's partitions and transactions."""

from collections.abc import Collection, Mapping, Sequence

from consumer.sending import Records


class Lifecycle:
    """Receives each step and does nothing; subclasses override the ones they need. Called from the worker's thread.

    `starts` has, by partition, the end of the state that was committed with its offset, as in `Positions.state_ends`.
    """

    def assigned(self, starts: Mapping[int, int | None]) -> None:
        """These partitions are assigned to the worker. Called in a callback, so it must be quick."""

    def restore(self) -> None:
        """Do part of the work needed before assigned partitions can be read; called until `outstanding` is empty."""

    @property
    def outstanding(self) -> Collection[int]:
        """The assigned partitions that can't be read yet."""
        return ()

    def closing(self) -> Sequence[Records]:
        """Further records for the transaction that is about to be committed."""
        return ()

    def ends(self) -> Mapping[int, int]:
        """The ends to commit with the offsets; called once everything is delivered."""
        return {}

    def committed(self) -> None:
        """The transaction is committed."""

    def settled(self, starts: Mapping[int, int | None]) -> None:
        """After trouble: uncommitted changes are undone; `starts` are the ends that the group has committed."""

    def revoked(self, partitions: Collection[int]) -> None:
        """These partitions are no longer assigned to the worker."""

    def close(self) -> None:
        """The worker ends."""
