"""The only code that speaks to other systems; their errors become ours here."""
