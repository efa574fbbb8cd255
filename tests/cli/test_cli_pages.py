"""docs/cli.md is the commands' own help."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAKE = ["typer", "cadiff.cli", "utils", "docs", "--name", "cadiff", "--title", "The command line"]


def test_the_page_of_commands_is_what_the_commands_say() -> None:
    done = subprocess.run([sys.executable, "-m", *MAKE], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (ROOT / "docs" / "cli.md").read_text().strip() == done.stdout.strip(), (
        f"docs/cli.md is not what the commands say: python -m {' '.join(MAKE[:-1])} 'The command line' > docs/cli.md"
    )
