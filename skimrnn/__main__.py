"""`python -m skimrnn`."""

import sys

if __name__ == "__main__":
    try:
        from skimrnn.cli import main
    except ModuleNotFoundError as error:  # Installed for the layers alone.
        sys.exit(f"error: {error.name} is not installed: the commands need pip install '.[pipeline]'")
    main()
