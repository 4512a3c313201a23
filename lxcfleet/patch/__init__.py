"""Patches of the host: who hears of them, what runs old code, what hides them, the proof, and rollouts."""
