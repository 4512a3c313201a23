"""Which CVEs are closed, and where: what changelogs and debsecan's data tell, and the judgement on each container."""
