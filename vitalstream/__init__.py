"""The command line and the demo: they wire the rooms together."""
