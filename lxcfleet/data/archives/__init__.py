"""Archives of containers: the head that says what one is, the strict reading of its entries, how they are put into a new
directory, and how a directory is held against them. Everything in an archive is hostile. It knows no daemon."""
