"""What became of every package: `report.html` for a person and `report.json` for programs."""
