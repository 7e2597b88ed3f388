"""Arguments of the operators and the notifier: checked values, and templates that keep data from acting as syntax."""
