"""The way to lxcfleet on a host: here, or by ssh. The connection and the inventory go the same."""

import os
import pwd
import shlex


def make_socket_directory():
    """Have the directory of the default C(ControlPath). Its C(~) is for ssh the account's, whatever C(HOME) says."""
    os.makedirs(os.path.join(pwd.getpwuid(os.getuid()).pw_dir, ".ansible/cp"), mode=0o700, exist_ok=True)


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
