"""`python -m fairlead_console` is `fairlead`: how `up` starts the daemons, wherever the script lies."""

import sys

from fairlead_console.main import main

if __name__ == "__main__":
    sys.exit(main())
