"""`python -m skimrnn`."""

from skimrnn.cli import main

main()
