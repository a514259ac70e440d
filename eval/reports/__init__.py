"""What came out: numbers and their intervals, tables, films and pages. Knows nothing of who acts."""
