"""What became of every package, for a person (`report.html`), for machines (`report.json`) and for the terminal."""
