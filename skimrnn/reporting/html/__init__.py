"""The report as one HTML page: its tables, texts and the origin of each number."""
