"""Why an audit is impossible."""

from broker.errors import VitalstreamError


class NotAuditableError(VitalstreamError):
    """There is nothing to judge, or it can't be read."""
