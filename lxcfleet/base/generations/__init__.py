"""Generations: frozen bases on disk, which later changes of the host do not touch. They are made, checked and removed here.

A generation is a list of sheets, directories of hard links, each with what differs from the sheets below it;
docs/generations.md says why. What mounts them, and who uses which, is not known here.
"""
