"""The work of the launcher's children: one operation each."""
