"""The way to lxcfleet on a host: here, or by ssh. The connection and the inventory go the same."""

import shlex


def to_host(words, host=None, user=None, port=None, key=None, ssh="ssh", ssh_args="", sudo=False):
    """The command line that runs C(words) as root on C(host); here, without a host. ssh hands one text to a shell."""
    words = (["sudo", "-n", "--"] if sudo else []) + list(words)
    if not host:
        return words
    options = ["-o", "BatchMode=yes", *shlex.split(ssh_args or "")]
    for option, value in (("-l", user), ("-p", port), ("-i", key)):
        if value:
            options += [option, str(value)]
    return [ssh, *options, "--", host, shlex.join(words)]
