# nfreaim: everything a developer or a router's operator runs. `make help` lists it.
#
# On Debian 12 or newer, as root, `make demo` and `make test` install what is missing by themselves.

VENV       := .venv
BIN        := $(VENV)/bin
STAMP      := $(VENV)/.stamp
PREFIX     ?= /usr/local
SYSCONFDIR ?= /etc
UNITDIR    ?= $(SYSCONFDIR)/systemd/system
DESTDIR    ?=
UNITS      := nfreaim.service nfreaim-rules.service nfreaim-close.service nfreaim-sets.service \
              nfreaim-metrics.service nfreaim-textfile.service nfreaim-textfile.timer
PIP        := -m pip -qq --disable-pip-version-check install --use-pep517
PYTEST     := $(BIN)/python -m pytest -q

SOAK_SECONDS ?= 600
SOAK_SEED    ?=

LAN    ?=
WAN    ?=
PROTOCOLS ?=
PORTS  ?=
WORKERS ?=
PYTHON ?=
ABSENT ?=
RESTART ?=
FORCE  ?=
FIREWALL ?=
# Optional libraries: EXTRAS=top,metrics for `nfreaim top` and `nfreaim metrics`. Without it those of before stay;
# EXTRAS=none is without any.
EXTRAS ?=
# "LAN=br0 br1" and "LAN=br0,br1" both name two, and so do "PROTOCOLS=oscar irc" and "PROTOCOLS=oscar,irc". A number in
# PROTOCOLS is one more port of the protocol before it: "oscar,irc:6667,6697". PORTS is the older spelling: those of the
# default protocol.
comma  := ,
space  := $(subst ,, )
each    = $(subst $(comma), ,$(1))
letters = $(subst 9,,$(subst 8,,$(subst 7,,$(subst 6,,$(subst 5,,$(subst 4,,$(subst 3,,$(subst 2,,$(subst 1,,$(subst 0,,$(1)))))))))))
NAMED  := $(strip $(foreach p,$(call each,$(PROTOCOLS)),$(if $(call letters,$(p)),--protocol $(p),$(comma)$(p))))
ifneq ($(filter $(comma)%,$(firstword $(NAMED))),)
$(error PROTOCOLS begins with a port; write NAME or NAME:PORT[,PORT...])
endif
ARGS   := $(foreach i,$(call each,$(LAN)),--lan $(i)) $(foreach i,$(call each,$(WAN)),--wan $(i)) \
          $(subst $(space)$(comma),$(comma),$(NAMED)) \
          $(foreach p,$(call each,$(PORTS)),--port $(p)) $(if $(WORKERS),--workers $(WORKERS))

.PHONY: help venv demo test lint types unit coverage lab lab-nft attacks fuzz soak load bench vm-test vm-lab docs pictures html man deb run install install-units uninstall install-rules remove-rules clean bootstrap

help:
	@echo 'Operating a router (as root):'
	@echo '  make install LAN=br-lan WAN=eth0        install daemon, rules and systemd units'
	@echo '      ABSENT=yes                          though an interface is not there yet'
	@echo '      RESTART=1                           and restart the daemon that runs'
	@echo '      FIREWALL=nft                        rules by nftables, not iptables-legacy (also install-rules)'
	@echo '  make uninstall                          remove them; an edited configuration stays'
	@echo '  make install-rules LAN=br-lan WAN=eth0  install the packet filter rules, until reboot'
	@echo '  make remove-rules                       remove the packet filter rules without a trace'
	@echo '  make run LAN=br-lan WAN=eth0            run the daemon in the foreground'
	@echo '                                          with any of these that name LAN and WAN:'
	@echo '      PROTOCOLS="oscar irc:6667,6697"     these protocols, on their usual ports or on those named'
	@echo '      WORKERS=N                           so many processes read'
	@echo '      EXTRAS=top,metrics,upstream         install: with the libraries of nfreaim top, metrics, and UPnP'
	@echo '  make demo                               see it work, in network namespaces of its own'
	@echo '  make demo MESSENGERS=all                the same, and a second table of further messengers'
	@echo 'Developing:'
	@echo '  make venv      build .venv with everything, .venv/bin/nfreaim included'
	@echo '  make test      lint, types, unit, lab'
	@echo '  make lint      ruff        make types   mypy --strict'
	@echo '  make unit      unit, replay, property and fuzz tests; no root needed'
	@echo '  make coverage  how much of each package the unit and replay tests cover'
	@echo '  make lab       tests in network namespaces; root (NFREAIM_FIREWALL=nft: with the rules in nftables)'
	@echo '  make lab-nft   a part of them with the rules in nftables, as make test runs it'
	@echo '  make attacks   every attack of tests/attacks, one after another; root, a quarter of an hour'
	@echo '  make fuzz FUZZ_SECONDS=600 [FUZZ_TARGET=engine]      hostile input, made up by atheris'
	@echo '  make soak      faults for SOAK_SECONDS=600 seconds, under load; root'
	@echo '  make load      floods and crowds at full size, and the attacks that are floods; root, three minutes'
	@echo '  make bench     speed beside everything else one could use, as ratios; 15 minutes'
	@echo '  make vm-test   Debian 12 and 13 in virtual machines: install, upgrade, reboot; root, 40 minutes'
	@echo '  make vm-lab LAB="tests/lab/test_irc.py -k chat"      the lab, or these tests, on the newest of their kernels'
	@echo '      VM_CACHE=DIR VM_WHEELS=DIR VM_JOBS=1             images are kept here; wheels, machines at a time'
	@echo '  make docs      all of the next three'
	@echo '  make html      the documents as pages for a browser: build/html/index.html'
	@echo '  make man       the manual pages nfreaim(8) and nfreaim.toml(5): build/man'
	@echo '  make deb       the Debian package for this release of Debian: build/nfreaim_*.deb'
	@echo '      REVISION=N                          the end of its version, in place of the time of the commit'
	@echo '  make pictures  draw the pictures of docs/pictures anew; root, needs a browser'
	@echo '  make clean     remove what was built'

bootstrap:
	@scripts/bootstrap

venv: $(STAMP)

# Rebuilt when the dependencies change; the code itself is installed editable.
$(STAMP): pyproject.toml | bootstrap
	@echo 'Building $(VENV)'
	@rm -rf $(VENV)
	@$$(scripts/bootstrap --python) -m venv $(VENV)
	@$(BIN)/python $(PIP) -e '.[dev]'
	@touch $@

# MESSENGERS=all shows the second table, too; MESSENGERS=NAME,NAME that alone, and of it these.
MESSENGERS ?=
demo: $(STAMP)
	@scripts/bootstrap demo
	@$(BIN)/python -m demo $(foreach m,$(call each,$(MESSENGERS)),--messenger $(m))

test: lint types unit lab lab-nft

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy --strict

unit: $(STAMP)
	@scripts/bootstrap test
	$(PYTEST) -n auto --ignore=tests/lab tests

# Measuring doubles the time, so it is no part of `make test`. What makes its cases up is left out.
coverage: $(STAMP)
	@scripts/bootstrap test
	$(PYTEST) -n auto --cov --cov-report= --ignore=tests/lab --ignore=tests/property --ignore=tests/fuzz tests
	@$(BIN)/python scripts/branch_coverage.py

# Five at a time: each test builds a network of its own, measures nothing, and waits most of the time.
in_lab = if [ "$$(id -u)" = 0 ] || [ -n "$$NFREAIM_REQUIRE_LAB" ]; then \
	    echo '$(1)'; $(1); \
	else \
	    echo 'The lab tests were NOT run: they need root (sudo make lab).'; \
	fi

lab: $(STAMP)
	@scripts/bootstrap test
	@$(call in_lab,$(PYTEST) -n 5 tests/lab)

# The part of the lab that runs with the rules in a table of nftables as well, whatever the machine has. All of it does so
# by `NFREAIM_FIREWALL=nft make lab`.
NFT_LAB := traffic pinholes restart skew_kernel cut peer_gate workers local_clients isolated_lans two_queues self_test \
           lifecycle
lab-nft: export NFREAIM_FIREWALL = nft
lab-nft: $(STAMP)
	@scripts/bootstrap test
	@$(call in_lab,$(PYTEST) -n 5 $(NFT_LAB:%=tests/lab/test_%.py))

# One at a time: they measure what other hosts feel of them. The short ones are lab tests, too.
attacks: $(STAMP)
	@scripts/bootstrap test
	@$(BIN)/python -m tests.attacks.run

# Unattended; what it finds is left in tests/fuzz/findings. atheris has no part in any other target.
FUZZ_SECONDS ?= 600
FUZZ_TARGET  ?=
fuzz: $(STAMP)
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python $(PIP) -e '.[fuzz]'
	@$(BIN)/python -m tests.fuzz.run --seconds $(FUZZ_SECONDS) $(foreach t,$(FUZZ_TARGET),--target $(t))

# One fault after another under load. SOAK_SEED repeats the order of an earlier campaign, not its timing.
soak: $(STAMP)
	@scripts/bootstrap test
	$(BIN)/python -m stress.soak $(SOAK_SECONDS) $(SOAK_SEED)

# Floods, 20,000 sessions and 1,000 rendezvous, each beside a client that must not notice.
load: $(STAMP)
	@$(BIN)/python -m stress.memory
	@$(BIN)/python -m stress.load
	@$(BIN)/python -m tests.attacks.run flood

# Debian's own kernels and systemd. The images are built once; each run leaves them as they are.
LAB      ?=
VM_CACHE ?=
VM_WHEELS ?=
VM_JOBS  ?=
export VM_CACHE VM_WHEELS VM_JOBS
vm-test vm-lab: $(STAMP)
	@scripts/bootstrap vm
	@$(BIN)/python -m tests.vm.run $(if $(filter vm-lab,$@),--lab -- $(LAB))

# mitmproxy needs a virtual environment of its own: it pins what others pin otherwise. Left out where it does not install.
bench: $(STAMP)
	@scripts/bootstrap test
	@[ -e .bench-mitmproxy ] || { $(BIN)/python -m venv .bench-mitmproxy && .bench-mitmproxy/bin/python $(PIP) mitmproxy; } || true
	@$(BIN)/python $(PIP) -e '.[dev,bench]'
	@$(BIN)/python -m bench --json bench.json --picture docs/performance.svg

# The pictures of the documents, each drawn of what really happens. A browser shows the page of `nfreaim report`.
pictures: $(STAMP)
	@scripts/bootstrap docs
	@$(BIN)/python -m scripts.pictures

docs: pictures html man

# Sphinx reads the documents where they are (docs/conf.py); a warning, such as of a link to nowhere, is an error.
SPHINX = $(BIN)/python -m sphinx -q -W --keep-going -c docs -d build/doctrees
html man: $(STAMP)
	@$(BIN)/python -c 'import myst_parser' 2>/dev/null || $(BIN)/python $(PIP) -e '.[docs]'
	@$(SPHINX) -b $@ . build/$@
	@echo 'Written: build/$@'

# For the release of Debian that this machine has, with its tools. REVISION tells builds of one version apart; empty: the
# time of the commit.
REVISION ?=
deb:
	@scripts/bootstrap deb
	@/usr/bin/python3 -m scripts.debian_package$(if $(REVISION), $(REVISION))

run: $(STAMP)
	@$(BIN)/nfreaim run $(ARGS) $(if $(FIREWALL),--firewall $(FIREWALL))

install-rules:
	@rules/nfreaim-rules install $(ARGS) $(if $(FIREWALL),--firewall $(FIREWALL))

remove-rules:
	@rules/nfreaim-rules remove

# scripts/install says what each of these means.
quoted  = '$(subst ','\'',$(1))'
INSTALL = $(foreach name,PREFIX SYSCONFDIR UNITDIR DESTDIR UNITS LAN WAN PYTHON EXTRAS FIREWALL ABSENT RESTART FORCE,\
          $(name)=$(call quoted,$($(name)))) ARGS=$(call quoted,$(strip $(ARGS)))

install:
	@$(INSTALL) scripts/install

install-units:
	@$(INSTALL) scripts/install units

uninstall:
	@$(INSTALL) scripts/uninstall

clean:
	rm -rf $(VENV) .bench-mitmproxy build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
