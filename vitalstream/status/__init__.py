"""`vitalstream status`: a group and its topics at this moment."""
