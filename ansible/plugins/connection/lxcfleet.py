"""Run tasks in containers: through lxcfleet on their host, without ssh or an address of theirs."""

DOCUMENTATION = r"""
name: lxcfleet
short_description: Run tasks in containers of lxcfleet
version_added: 1.0.0
description:
  - Runs commands in a container by C(lxcfleet exec) on its host, and copies files the same way. The container needs
    neither ssh nor an address. Python is the host's own, which every container has.
  - The inventory plugin C(lxcfleet.fleet.containers) sets what this needs.
author:
  - The lxcfleet developers (@lxcfleet)
options:
  container:
    description:
      - The container's name.
    type: str
    default: inventory_hostname
    vars:
      - name: inventory_hostname
      - name: ansible_host
      - name: ansible_lxcfleet_container
  executable:
    description:
      - The program C(lxcfleet) on the container's host.
    type: str
    default: lxcfleet
    vars:
      - name: ansible_lxcfleet_executable
  host:
    description:
      - The container's host, for ssh. Without it the containers of this machine are meant.
    type: str
    vars:
      - name: ansible_lxcfleet_host
  host_user:
    description:
      - Whom ssh logs in as on the host.
    type: str
    vars:
      - name: ansible_lxcfleet_host_user
  host_port:
    description:
      - The port of the host's ssh.
    type: int
    vars:
      - name: ansible_lxcfleet_host_port
  host_key_file:
    description:
      - The private key for the host.
    type: path
    vars:
      - name: ansible_lxcfleet_host_key_file
  host_sudo:
    description:
      - Whether C(sudo) is needed on the host. It must not ask for a password.
    type: bool
    default: false
    vars:
      - name: ansible_lxcfleet_host_sudo
  ssh_executable:
    description:
      - The program C(ssh).
    type: str
    default: ssh
    vars:
      - name: ansible_ssh_executable
  ssh_args:
    description:
      - Options of C(ssh). The default shares one connection among all containers of a host.
    type: str
    default: -o ControlMaster=auto -o ControlPersist=60s -o ControlPath=~/.ansible/cp/lxcfleet-%C
    vars:
      - name: ansible_lxcfleet_ssh_args
"""

import shlex
import subprocess

from ansible.errors import AnsibleConnectionFailure, AnsibleError, AnsibleFileNotFound
from ansible.module_utils.common.text.converters import to_bytes, to_text
from ansible.utils.display import Display
from ansible_collections.lxcfleet.fleet.plugins.module_utils.way import make_socket_directory, to_host

from ansible.plugins.connection import ConnectionBase

display = Display()

LXCFLEET_FAILED = 125
SSH_FAILED = 255


class Connection(ConnectionBase):
    """One container."""

    transport = "lxcfleet.fleet.lxcfleet"
    has_pipelining = True
    has_tty = False
    default_user = "root"

    def _connect(self):
        """Nothing is held open: each command is a call of its own."""
        if self.get_option("host"):
            make_socket_directory()
        self._connected = True
        return self

    def _run(self, words, data=None, stdin=None, stdout=subprocess.PIPE):
        """Exit status, stdout and stderr of a command in the container."""
        container = self.get_option("container")
        call = [self.get_option("executable"), "exec", "--no-tty", container, "--", *words]
        command = to_host(
            call,
            host=self.get_option("host"),
            user=self.get_option("host_user"),
            port=self.get_option("host_port"),
            key=self.get_option("host_key_file"),
            ssh=self.get_option("ssh_executable"),
            ssh_args=self.get_option("ssh_args"),
            sudo=self.get_option("host_sudo"),
        )
        display.vvv(f"EXEC {shlex.join(command)}", host=container)
        if data is None and stdin is None:
            stdin = subprocess.DEVNULL
        try:
            done = subprocess.run(
                [to_bytes(word) for word in command],
                input=data,
                stdout=stdout,
                stderr=subprocess.PIPE,
                check=False,
                **({} if data is not None else {"stdin": stdin}),
            )
        except OSError as error:
            raise AnsibleConnectionFailure(f"{command[0]} can't be run: {error.strerror}") from error
        said = to_text(done.stderr).strip()
        lost = done.returncode == LXCFLEET_FAILED and said.startswith("lxcfleet: ")
        if lost or (done.returncode == SSH_FAILED and self.get_option("host")):
            raise AnsibleConnectionFailure(f"{container}: {said or 'ssh failed'}")
        return done.returncode, done.stdout, done.stderr

    def exec_command(self, cmd, in_data=None, sudoable=True):
        """Run a command line for a shell."""
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        return self._run(["/bin/sh", "-c", cmd], data=in_data)

    def put_file(self, in_path, out_path):
        """Copy a file of ours into the container."""
        super().put_file(in_path, out_path)
        try:
            with open(to_bytes(in_path), "rb") as file:
                status, _out, said = self._run(["/bin/sh", "-c", f"cat > {shlex.quote(out_path)}"], stdin=file)
        except FileNotFoundError as error:
            raise AnsibleFileNotFound(f"there is no file {in_path}") from error
        if status != 0:
            raise AnsibleError(f"{in_path} can't be copied to {out_path}: {to_text(said).strip()}")

    def fetch_file(self, in_path, out_path):
        """Copy a file of the container to us."""
        super().fetch_file(in_path, out_path)
        with open(to_bytes(out_path), "wb") as file:
            status, _out, said = self._run(["/bin/sh", "-c", f"cat < {shlex.quote(in_path)}"], stdout=file)
        if status != 0:
            raise AnsibleError(f"{in_path} can't be fetched: {to_text(said).strip()}")

    def close(self):
        """Nothing is held open."""
        self._connected = False
