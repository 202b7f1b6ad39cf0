"""`vitalstream status`: the current state of a group and its topics."""
