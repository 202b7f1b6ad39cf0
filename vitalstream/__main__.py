"""`python -m vitalstream`."""

from vitalstream.cli import main

if __name__ == "__main__":
    main()
