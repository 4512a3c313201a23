#!/bin/sh
# The control node: Ansible with the collection, and the hosts NAME=ADDRESS... in its inventory.
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq install -y --no-install-recommends ansible-core openssh-client
install -o vagrant -g vagrant -m 0600 /tmp/control-key /home/vagrant/.ssh/id_ed25519
rm /tmp/control-key

install -d /etc/ansible
{
    echo '[fleet_hosts]'
    for host do
        echo "${host%%=*} ansible_host=${host#*=} ansible_user=root"
    done
} > /etc/ansible/hosts
cat > /etc/ansible/ansible.cfg <<'EOF'
[defaults]
inventory = /etc/ansible/hosts
host_key_checking = False
EOF

# Names for ssh, which the inventory of containers goes by.
for host do
    grep -q " ${host%%=*}\$" /etc/hosts || echo "${host#*=} ${host%%=*}" >> /etc/hosts
done
{
    printf 'plugin: lxcfleet.fleet.containers\nuser: root\nhosts:\n'
    for host do echo "  - ${host%%=*}"; done
} > /home/vagrant/lxcfleet.yml
# A host that is destroyed and comes up again has another key.
cat > /home/vagrant/.ssh/config <<'EOF'
Host *
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
    LogLevel ERROR
EOF
chown -R vagrant:vagrant /home/vagrant/lxcfleet.yml /home/vagrant/.ssh
su - vagrant -c 'ansible-galaxy collection install --force /lxcfleet/ansible && ansible all -m ansible.builtin.ping'
