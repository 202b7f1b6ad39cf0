"""`vitalstream demo`: the whole system on one machine, with a simulated ward, a live view and a check."""
