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
