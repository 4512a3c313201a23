#!/bin/sh
# A host: lxcfleet from the checkout, and the control node may log in as root.
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq install -y --no-install-recommends make
make -C /lxcfleet install
install -d -m 0700 /root/.ssh
grep -qxFf /tmp/control-key.pub /root/.ssh/authorized_keys 2>/dev/null ||
    cat /tmp/control-key.pub >> /root/.ssh/authorized_keys
chmod 0600 /root/.ssh/authorized_keys
lxcfleet doctor -n 10 --init app
