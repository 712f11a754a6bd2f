"""Settings files that the package ships; ``config/`` at the top of a clone is a link to here."""

from pathlib import Path

CONFIG = Path(__file__).resolve().parent
