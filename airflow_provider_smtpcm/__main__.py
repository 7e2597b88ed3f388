"""`python -m airflow_provider_smtpcm`: the command line where `airflow smtpcm` is not available."""

from __future__ import annotations

import sys

from airflow_provider_smtpcm.cli import main

if __name__ == "__main__":
    sys.exit(main())
