"""The packet filter's rules for the fleet's bridge, as nft reads them. Pure.

Everything is in a table of our own, so nobody else's rules are touched, and nobody's reload takes ours away.
nft(8): adding, flushing and filling it is one transaction, so there is no moment without rules.
"""

from __future__ import annotations

import re

from lxcfleet.net.addresses import Subnet


def table(bridge: str) -> str:
    """The name of the table of this bridge's fleet."""
    return "lxcfleet_" + re.sub(r"[^A-Za-z0-9_]", "_", bridge)


def render(subnet: Subnet, bridge: str, *, nat: bool) -> str:
    """The whole table: packets from the fleet leave under the host's address, strangers' do not come in."""
    own = table(bridge)
    lines = [
        f"table inet {own} {{}}",
        f"flush table inet {own}",
        f"table inet {own} {{",
        "  chain forwarding {",
        "    type filter hook forward priority filter; policy accept;",
        f'    oifname "{bridge}" iifname != "{bridge}" ct state new drop',
        "  }",
    ]
    if nat:
        lines += ["  chain translation {", "    type nat hook postrouting priority srcnat; policy accept;"]
        lines.append(f"    ip saddr {subnet.ipv4} ip daddr != {subnet.ipv4} masquerade")
        if subnet.ipv6 is not None:
            lines.append(f"    ip6 saddr {subnet.ipv6} ip6 daddr != {subnet.ipv6} masquerade")
        lines.append("  }")
    return "\n".join([*lines, "}", ""])


def removal(bridge: str) -> str:
    """Takes the table away, whether it is there or not."""
    return f"table inet {table(bridge)} {{}}\ndelete table inet {table(bridge)}\n"
