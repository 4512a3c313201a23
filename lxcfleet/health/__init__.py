"""How healthy containers are: who asks them, and the judgement on what they answer."""
