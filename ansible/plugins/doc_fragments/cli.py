"""Options that several modules share."""


class ModuleDocFragment:
    """C(executable) for all, C(selection) for those that act on containers which exist."""

    DOCUMENTATION = r"""
options:
  executable:
    description:
      - The program C(lxcfleet) on the host.
    type: path
    default: lxcfleet
"""

    ROLLOUT = r"""
options:
  max_unavailable:
    description:
      - How many of the containers to restart may be down at the same moment, such as C(5) or C(25%). This and what
        follows is, where it is not said, as the host's settings say.
    type: str
  canaries:
    description:
      - How many go first, on their own, such as C(1) or C(5%). C(0); none do.
    type: str
  min_healthy_time:
    description:
      - Seconds that each container of a wave must have been healthy before the next wave begins.
    type: float
  healthy_deadline:
    description:
      - Seconds after its start at which a container that is not healthy halts the rollout.
    type: float
  bake:
    description:
      - For how long canaries have to stay well before the next wave begins, such as C(10m). C(0); not at all.
    type: str
"""

    SELECTION = r"""
options:
  names:
    description:
      - Names of containers, or shell globs.
    type: list
    elements: str
    default: []
  labels:
    description:
      - Only containers that have all these labels.
    type: dict
    default: {}
  all:
    description:
      - All containers of the host. Nothing is done to all of them because the other options are missing.
    type: bool
    default: false
"""
