"""The only code that opens weights."""
