"""`vitalstream sweep`: measures what each chunk size costs with your model and rows, and recommends one."""
