"""Arguments of operators and the notifier: validation, and templates whose values cannot act as syntax."""
