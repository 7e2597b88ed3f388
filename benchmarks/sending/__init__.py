"""What sending mail costs here and with what people use instead, measured side by side; `make bench` runs it."""
