"""The work of the children of the launcher and of the attacher: one operation each."""
