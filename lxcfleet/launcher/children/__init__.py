"""What the launcher's children do: one operation each."""
