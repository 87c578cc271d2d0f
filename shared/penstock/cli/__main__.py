"""`python -m penstock.cli`, for whoever must not rely on the script being on PATH."""

from . import main

main()
