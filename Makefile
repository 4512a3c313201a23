# make demo: see it work. make test: all tests. make install: put it on this machine. `make help` has the rest.

PREFIX ?= /usr/local
DESTDIR ?=
PYTHON := /usr/bin/python3

# What lxcfleet needs to run, and what its tests need besides: all from Debian 12 and 13.
RUN_PACKAGES := dnsmasq-base e2fsprogs lxc mount nftables passwd python3 python3-aiohttp python3-click python3-dnspython python3-lxc
RUN_PACKAGES += python3-prometheus-client python3-psutil python3-pyroute2 python3-yaml tini zstd
# liblxc runs its parser where the kernel has it on.
RUN_PACKAGES += $(if $(filter Y,$(shell cat /sys/module/apparmor/parameters/enabled 2>/dev/null)),apparmor)
CHECK_PACKAGES := $(filter python3%,$(RUN_PACKAGES)) mypy python3-hypothesis python3-jsonschema python3-pytest python3-pytest-timeout
CHECK_PACKAGES += python3-pytest-xdist
TEST_PACKAGES := $(CHECK_PACKAGES) gcc haproxy iproute2 libc6-dev openssh-client udhcpc
# Programs of tests whose packages would start a service: unpacked, not installed.
UNPACKED := libwrap0 openssh-server prometheus rsyslog libestr0 libfastjson4 ufw iptables libip4tc2 libip6tc2 libxtables12 \
    libnfnetlink0 libnetfilter-conntrack3
ANSIBLE_PACKAGES := ansible-core ansible-lint openssh-client python3-venv vagrant
DEB_PACKAGES := build-essential debhelper dh-python dpkg-dev fakeroot lintian pybuild-plugin-pyproject python3-all
DEB_PACKAGES += python3-click python3-setuptools python3-yaml
VM_PACKAGES = $(shell $(PYTHON) -m tests.vm.image --requirements)

CLI := $(PREFIX)/bin/lxcfleet
lib := $(DESTDIR)$(PREFIX)/lib/lxcfleet
# Where the modules are; empty: where Python looks anyhow.
MODULES ?= $(PREFIX)/lib/lxcfleet
UNITS ?= $(PREFIX)/lib/systemd/system
units := $(DESTDIR)$(UNITS)
share := $(DESTDIR)$(PREFIX)/share
etc := $(DESTDIR)/etc/lxcfleet
cache := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/lxcfleet
version = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' lxcfleet/__init__.py)
RUFF_VERSION := 0.17.5
RUFF := $(cache)/ruff-$(RUFF_VERSION)/bin/ruff

.SILENT:
.NOTPARALLEL:
.PHONY: help demo clean-demo check test test-one clean-tests lint test-ansible test-vm bench bench-curves bench-endurance install uninstall docs root packages test-packages
.PHONY: ansible-packages vm-packages test-room test-faults endurance check-packages deb files modules programs manual documentation host

help:
	echo 'make demo        install it here, clone this host ten times, change the host, restart, look'
	echo 'make clean-demo  remove what the demo made'
	echo 'make check       types, style, and the tests that need neither root nor containers: a minute'
	echo 'make test        check types and run all tests (as root: the system tests use real LXC)'
	echo 'make test-one T=...  a module (test_exec), a file, or tests by a word of their names ("signals and not shell")'
	echo 'make clean-tests remove what runs of the tests that were broken off left'
	echo 'make test-faults every call of the C library that can fail, fails: hours (ARGS="--some 50 create stop" for some)'
	echo 'make endurance   thousands of kills and ends, with each answer held against what is (ARGS="--kills 500")'
	echo 'make test-vm     the tests on throwaway Debian 12 and 13 machines in qemu (half an hour)'
	echo 'make test-ansible  the Ansible collection: on real containers, and by ansible-lint and ansible-test'
	echo 'make lint        check types and style'
	echo 'make bench       measure it beside bare LXC'
	echo 'make bench-curves  measure 10 to 1,000 containers, and write docs/performance.md'
	echo 'make bench-endurance  create and destroy 10,000 containers, restart a group 2,000 times, and see what grows'
	echo 'make docs        write docs/reference.md, docs/api.md, docs/schema, the catalogue of events and the fields for Ansible, from the code'
	echo 'make deb         a Debian package, in build/'
	echo 'make install     install on this machine (PREFIX=$(PREFIX); DESTDIR for a package)'
	echo 'make uninstall   remove it again; containers stay'

demo: install
	demo/demo $(CLI)

clean-demo: root
	demo/clean $(CLI)

# -- checks -------------------------------------------------------------------------------------------------

# What can run side by side does. Nothing is installed: as any user, with Debian's packages, and ruff if it is there.
# The tests in contract/ wait for most of their time, so four processes share them.
check: check-packages ruff
	tools/side-by-side \
	    'types: $(PYTHON) -m mypy' \
	    'style: $(RUFF) check .' \
	    'unit: $(PYTHON) -m pytest -q tests/unit' \
	    'contract: $(PYTHON) -m pytest -q -n 4 tests/contract'

# Whatever starts containers here needs ids and limits first, which no other target has given to a fresh host.
test-room: root test-packages
	PYTHONPATH=$(CURDIR) $(PYTHON) -P -m lxcfleet.daemon.prepare 40

test: test-room
	PYTHON=$(PYTHON) tools/test-all $(ARGS)

# What runs that were broken off left on this machine, which the next run would remove as well.
clean-tests:
	$(PYTHON) -m tests.leftovers

# As any user: tests that start containers need root, who makes room for them.
test-one:
	[ "$$(id -u)" -ne 0 ] || $(MAKE) --no-print-directory test-room
	PYTHON=$(PYTHON) tools/test-one "$(T)" $(ARGS)

# For a night, on a machine that has nothing else to do.
test-faults: test-room
	PYTHONPATH=$(CURDIR):$(CURDIR)/tests $(PYTHON) -m tests.system.faults $(ARGS)

endurance: test-room
	PYTHONPATH=$(CURDIR):$(CURDIR)/tests $(PYTHON) -m tests.system.history $(ARGS)

lint: check-packages ruff
	tools/side-by-side 'types: $(PYTHON) -m mypy' 'style: $(RUFF) check .'

# Debian has no ruff: it comes from the package index that pip knows, once, unless there is one on the PATH.
ruff:
	[ -x "$(RUFF)" ] || { tools/debian-packages python3-venv && rm -rf $(cache)/ruff-$(RUFF_VERSION) && \
	    $(PYTHON) -m venv $(cache)/ruff-$(RUFF_VERSION) && \
	    $(RUFF:ruff=pip) install --quiet --disable-pip-version-check ruff==$(RUFF_VERSION); }

test-vm: root vm-packages
	$(PYTHON) -m pytest tests/vm $(ARGS)

# ansible-test makes virtual environments of its own, from the package index that pip knows.
test-ansible: ansible-packages test-room
	$(PYTHON) -m pytest tests/ansible $(ARGS)

bench: root packages
	$(PYTHON) -m bench.run $(ARGS)

bench-endurance: root packages
	$(PYTHON) bench/endurance.py $(ARGS)

bench-curves: root packages
	$(PYTHON) bench/curves.py --page $(ARGS)

docs:
	$(PYTHON) docs/reference.py > docs/reference.md
	$(PYTHON) docs/api.py > docs/api.md
	$(PYTHON) docs/schema.py
	$(PYTHON) docs/catalog.py
	$(PYTHON) docs/ansible_fields.py
	$(PYTHON) bench/curves.py --draw

# -- installing ---------------------------------------------------------------------------------------------

packages:
	tools/debian-packages $(RUN_PACKAGES)

check-packages:
	tools/debian-packages $(CHECK_PACKAGES)

test-packages: packages
	tools/debian-packages $(TEST_PACKAGES)
	tools/debian-unpacked $(cache)/packages $(UNPACKED)

ansible-packages: test-packages
	tools/debian-packages $(ANSIBLE_PACKAGES)

vm-packages: test-packages
	tools/debian-packages $(VM_PACKAGES) ansible-core dpkg-dev

root:
	[ "$$(id -u)" -eq 0 ] || { echo 'this must be run as root: sudo make $(MAKECMDGOALS)' >&2; exit 1; }

ifeq ($(DESTDIR),)
install: root packages files host
	echo 'installed: $(CLI) (`lxcfleet -h` explains it)'
else
install: files
endif

files: modules programs manual documentation

# The new code takes the old one's place in one step, compiled.
modules:
	rm -rf $(lib)/new $(lib)/old
	install -d -m 0755 $(lib)/new
	tar -c --exclude=__pycache__ lxcfleet | tar -x --no-same-owner -C $(lib)/new
	chmod -R u=rwX,go=rX $(lib)/new
	$(PYTHON) -m compileall -q -s $(lib)/new -p $(PREFIX)/lib/lxcfleet $(lib)/new/lxcfleet
	[ ! -e $(lib)/lxcfleet ] || mv $(lib)/lxcfleet $(lib)/old
	mv $(lib)/new/lxcfleet $(lib)/lxcfleet
	rm -rf $(lib)/new $(lib)/old

programs:
	install -d -m 0755 $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/sbin $(units) $(etc)/mask.d $(etc)/run
	$(call wrapper,bin/lxcfleet,$(PREFIX)/bin/lxcfleet)
	$(call wrapper,bin/lxcfleetd,$(PREFIX)/sbin/lxcfleetd)
	install -m 0644 systemd/lxcfleet.socket systemd/lxcfleet.slice systemd/lxcfleet-export.timer $(units)/
	for unit in lxcfleet lxcfleet-containers lxcfleet-export lxcfleet-run@; do \
	    sed 's|@PREFIX@|$(PREFIX)|' systemd/$$unit.service.in > $(units)/$$unit.service || exit; \
	    chmod 0644 $(units)/$$unit.service; \
	done
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/lib/systemd/catalog etc/lxcfleet.catalog
	[ ! -d /etc/apt/apt.conf.d ] || install -D -m 0644 etc/apt/80lxcfleet $(DESTDIR)/etc/apt/apt.conf.d/80lxcfleet
	[ -e $(etc)/lxcfleet.yaml ] || { sed 's|/usr/share/|$(PREFIX)/share/|' etc/lxcfleet.yaml > $(etc)/lxcfleet.yaml \
	    && chmod 0644 $(etc)/lxcfleet.yaml; }

# Man pages and completions, made from the code.
manual:
	rm -rf build/manual
	$(PYTHON) docs/manual.py build/manual
	install -D -m 0644 -t $(share)/man/man1 build/manual/lxcfleet.1
	install -D -m 0644 -t $(share)/man/man5 build/manual/lxcfleet.yaml.5
	install -D -m 0644 -t $(share)/man/man8 build/manual/lxcfleetd.8
	install -D -m 0644 -t $(share)/lxcfleet/schema docs/schema/*.json
	install -D -m 0644 build/manual/completion.bash $(share)/bash-completion/completions/lxcfleet
	install -D -m 0644 build/manual/completion.zsh $(share)/zsh/$(if $(MODULES),site-functions,vendor-completions)/_lxcfleet
	install -D -m 0644 build/manual/completion.fish $(share)/fish/vendor_completions.d/lxcfleet.fish

documentation:
	rm -rf $(share)/doc/lxcfleet
	install -d -m 0755 $(share)/doc/lxcfleet
	install -m 0644 -t $(share)/doc/lxcfleet README.md docs/*.md
	cp -r --no-preserve=mode,ownership docs/monitoring $(share)/doc/lxcfleet/

# The programs of the checkout, made to find the installed modules.
wrapper = sed -e '/^\# /d' -e '/^import os$$/d' \
	$(if $(MODULES),-e 's|^sys.path.insert.*|sys.path.insert(0, "$(MODULES)")|',-e '/^import sys$$/d' -e '/^sys\./d') \
	$(1) | cat -s > $(DESTDIR)$(2) && chmod 0755 $(DESTDIR)$(2)

# Built in a copy, as dpkg-buildpackage writes beside its source.
deb:
	tools/debian-packages $(DEB_PACKAGES)
	rm -rf build/deb
	mkdir -p build/deb/source
	tar -c --exclude=./.git --exclude=./build --exclude='*cache*' --exclude=.hypothesis . | tar -x --no-same-owner -C build/deb/source
	cd build/deb/source && PATH=/usr/sbin:/usr/bin:/sbin:/bin dpkg-buildpackage --build=binary --unsigned-changes --unsigned-buildinfo >../log 2>&1 \
	    || { tail -n 50 ../log >&2; exit 1; }
	lintian --allow-root --fail-on error,warning build/deb/*.changes
	cp build/deb/lxcfleet_$(version)_all.deb build/
	echo 'built: build/lxcfleet_$(version)_all.deb (apt install ./build/lxcfleet_$(version)_all.deb)'

# What must be done on the host itself: the group, ids and limits, and the daemon.
host:
	for group in lxcfleet lxcfleet-ro; do getent group $$group >/dev/null || groupadd --system $$group; done
	PYTHONPATH=$(PREFIX)/lib/lxcfleet $(PYTHON) -P -m lxcfleet.daemon.prepare 100 || [ $$? -eq 4 ]
	[ ! -d /run/systemd/system ] || journalctl --update-catalog
	tools/daemon restart $(CLI)

uninstall: root
	tools/daemon stop
	rm -rf $(lib) $(DESTDIR)$(PREFIX)/bin/lxcfleet $(DESTDIR)$(PREFIX)/sbin/lxcfleetd
	rm -f $(units)/lxcfleet.socket $(units)/lxcfleet.service $(units)/lxcfleet-containers.service \
	    $(units)/lxcfleet-run@.service $(units)/lxcfleet.slice $(units)/lxcfleet-export.service $(units)/lxcfleet-export.timer
	rm -f $(share)/man/man1/lxcfleet.1 $(share)/man/man5/lxcfleet.yaml.5 $(share)/man/man8/lxcfleetd.8
	rm -rf $(share)/doc/lxcfleet $(share)/lxcfleet
	rm -f $(share)/bash-completion/completions/lxcfleet $(share)/zsh/site-functions/_lxcfleet
	rm -f $(share)/fish/vendor_completions.d/lxcfleet.fish
	rm -f $(DESTDIR)/etc/apt/apt.conf.d/80lxcfleet $(DESTDIR)$(PREFIX)/lib/systemd/catalog/lxcfleet.catalog
	[ ! -d /run/systemd/system ] || journalctl --update-catalog
	[ ! -d /run/systemd/system ] || systemctl daemon-reload
	echo 'removed; what stays: the containers in /var/lib/lxc (they run on until they are stopped, see lxc-ls -f,'
	echo '  and start again only with lxcfleet), /var/lib/lxcfleet (volumes, apps, fleets, generations, events), /etc/lxcfleet,'
	echo '  .lxcfleet-generations at the top of a /usr, /opt or /var that is a file system of its own,'
	echo "  /etc/sysctl.d/60-lxcfleet.conf, the groups lxcfleet*, root's lines in /etc/subuid and /etc/subgid, and Debian's packages"
