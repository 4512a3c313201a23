"""The one way in which containers change: the plan between what is wanted and what there is, its steps, and what they need of
the launcher and of the disk. Whoever wants anything of a container notes it (desired) and calls the reconciler."""
