"""The reports of an import: `report.html` for people, and `report.json` in machine-readable form."""
