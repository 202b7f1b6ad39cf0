"""`vitalstream sweep`: what each chunk size costs with a model and rows of one's own, and which to take."""
