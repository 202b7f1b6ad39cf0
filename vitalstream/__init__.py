"""The command line and the demo, which connect the other packages."""
