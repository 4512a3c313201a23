# needrestart(1): what runs in lxcfleet's containers is left to `lxcfleet stale` and its rollouts.
#
# On hosts with cgroup v2 their cgroups are in a slice, where needrestart's own module for LXC does not look for them:
# it would take the services of a container's systemd for the host's.

package NeedRestart::CONT::lxcfleet;

use strict;
use warnings;

use parent qw(NeedRestart::CONT);
use NeedRestart qw(:cont);

needrestart_cont_register(__PACKAGE__) unless ($<);

sub check {
    my ($self, $pid) = @_;
    open(my $file, '<', "/proc/$pid/cgroup") or return 0;
    my $found = grep { m{^\d+:[^:]*:/lxcfleet\.slice/lxc\.payload\.} } <$file>;
    close($file);
    return $found ? 1 : 0;
}

sub get {
    return ();
}

1;
