import sys

from cadiff.stages.command import main

if __name__ == "__main__":
    sys.exit(main())
