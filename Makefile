# nfreaim: everything a developer or a router's operator runs. `make help` lists it.
#
# On Debian 12 or newer, as root, `make demo` and `make test` install what is missing by themselves.

VENV       := .venv
BIN        := $(VENV)/bin
STAMP      := $(VENV)/.stamp
PREFIX     ?= /usr/local
SYSCONFDIR ?= /etc
UNITDIR    ?= $(SYSCONFDIR)/systemd/system
LIBDIR     := $(PREFIX)/lib/nfreaim
CONFDIR    := $(SYSCONFDIR)/nfreaim
UNITS      := nfreaim.service nfreaim-rules.service
SYSTEMD    := $(wildcard /run/systemd/system)
PIP        := -m pip -qq --disable-pip-version-check install --use-pep517
PYTEST     := $(BIN)/python -m pytest -q

SOAK_SECONDS ?= 600
SOAK_SEED    ?=

LAN    ?=
WAN    ?=
PROTOCOLS ?=
PORTS  ?=
WORKERS ?=
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

.PHONY: help venv demo test lint types unit coverage properties lab fuzz soak load bench run install uninstall install-rules remove-rules clean bootstrap

help:
	@echo 'Operating a router (as root):'
	@echo '  make install LAN=br-lan WAN=eth0        install daemon, rules and systemd units'
	@echo '  make uninstall                          remove them; an edited configuration stays'
	@echo '  make install-rules LAN=br-lan WAN=eth0  install the packet filter rules, until reboot'
	@echo '  make remove-rules                       remove the packet filter rules without a trace'
	@echo '  make run LAN=br-lan WAN=eth0            run the daemon in the foreground'
	@echo '                                          with any of these that name LAN and WAN:'
	@echo '      PROTOCOLS="oscar irc:6667,6697"     these protocols, on their usual ports or on those named'
	@echo '      WORKERS=N                           so many processes read'
	@echo '  make demo                               see it work, in network namespaces of its own'
	@echo 'Developing:'
	@echo '  make venv      build .venv with everything, .venv/bin/nfreaim included'
	@echo '  make test      lint, types, unit, lab'
	@echo '  make lint      ruff        make types   mypy --strict'
	@echo '  make unit      unit, property and replay tests; no root needed. Its halves:'
	@echo '  make coverage  unit, replay and playbook tests, and what they cover; make properties  property and fuzz tests'
	@echo '  make lab       tests in network namespaces; root'
	@echo '  make fuzz FUZZ_SECONDS=600 [FUZZ_TARGET=engine]      hostile input, made up by atheris'
	@echo '  make soak      faults for SOAK_SECONDS=600 seconds, under load; root'
	@echo '  make load      floods and crowds at full size; root, a minute'
	@echo '  make bench     speed beside everything else one could use, as ratios; 15 minutes'
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

demo: $(STAMP)
	@scripts/bootstrap demo
	@$(BIN)/python -m demo

test: lint types unit lab

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy --strict

unit: coverage properties

# What is written for a case of its own is measured, which doubles its time; what makes its cases up is not.
coverage: $(STAMP)
	@scripts/bootstrap test
	$(PYTEST) -n auto --cov --cov-report= --ignore=tests/lab --ignore=tests/property --ignore=tests/fuzz tests
	@$(BIN)/python scripts/branch_coverage.py

properties: $(STAMP)
	@scripts/bootstrap test
	$(PYTEST) -n auto tests/property tests/fuzz

# Two at a time: each test builds a network of its own and measures nothing.
lab: $(STAMP)
	@scripts/bootstrap test
	@if [ "$$(id -u)" = 0 ] || [ -n "$$NFREAIM_REQUIRE_LAB" ]; then \
	    echo '$(PYTEST) -n 2 tests/lab'; $(PYTEST) -n 2 tests/lab; \
	else \
	    echo 'The lab tests were NOT run: they need root (sudo make lab).'; \
	fi

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
	@$(BIN)/python -m stress.load

# mitmproxy needs a virtual environment of its own: it pins what others pin otherwise. Left out where it does not install.
bench: $(STAMP)
	@scripts/bootstrap test
	@[ -e .bench-mitmproxy ] || { $(BIN)/python -m venv .bench-mitmproxy && .bench-mitmproxy/bin/python $(PIP) mitmproxy; } || true
	@$(BIN)/python $(PIP) -e '.[dev,bench]'
	@$(BIN)/python -m bench --json bench.json --picture docs/performance.svg

run: $(STAMP)
	@$(BIN)/nfreaim run $(ARGS)

install-rules:
	@rules/nfreaim-rules install $(ARGS)

remove-rules:
	@rules/nfreaim-rules remove

install: bootstrap
	@umask 022; $$(scripts/bootstrap --python) -m venv --clear $(LIBDIR)
	@umask 022; $(LIBDIR)/bin/python $(PIP) .
	@install -d $(PREFIX)/sbin $(CONFDIR)
	@ln -sfn $(LIBDIR)/bin/nfreaim $(PREFIX)/sbin/nfreaim
	@install -m 755 rules/nfreaim-rules $(PREFIX)/sbin/nfreaim-rules
	@[ -e $(CONFDIR)/nfreaim.toml ] || install -m 644 rules/nfreaim.toml $(CONFDIR)/nfreaim.toml
ifneq ($(and $(LAN),$(WAN)),)
	@echo 'NFREAIM_ARGS="$(strip $(ARGS))"' >$(CONFDIR)/rules.env
endif
ifneq ($(SYSTEMD),)
	@install -d $(UNITDIR)
	@for unit in $(UNITS); do \
	    sed -e 's|@PREFIX@|$(PREFIX)|g' -e 's|@SYSCONFDIR@|$(SYSCONFDIR)|g' rules/$$unit >$(UNITDIR)/$$unit; \
	done
	@id -u nfreaim >/dev/null 2>&1 || systemd-sysusers --inline 'u nfreaim - "nfreaim daemon"'
	@systemctl daemon-reload
	@if [ -e $(CONFDIR)/rules.env ]; then \
	    echo 'Installed. Start it, now and at each boot: systemctl enable --now nfreaim-rules nfreaim'; \
	else \
	    echo 'Installed. Name the interfaces next: make install LAN=br-lan WAN=eth0'; \
	fi
else
	@echo 'Installed, without systemd. Start it by: $(PREFIX)/sbin/nfreaim run --lan IF --wan IF'
endif

uninstall:
ifneq ($(SYSTEMD),)
	@for unit in $(UNITS); do \
	    [ ! -e $(UNITDIR)/$$unit ] || systemctl disable --now $$unit || true; rm -f $(UNITDIR)/$$unit; \
	done
	@systemctl daemon-reload
	@rm -rf /run/nfreaim
	@if id -u nfreaim >/dev/null 2>&1; then userdel nfreaim; fi
endif
	@if [ "$$(readlink $(PREFIX)/sbin/nfreaim)" = $(LIBDIR)/bin/nfreaim ]; then rm -f $(PREFIX)/sbin/nfreaim; fi
	@rm -f $(PREFIX)/sbin/nfreaim-rules $(CONFDIR)/rules.env
	@if [ -e $(LIBDIR)/pyvenv.cfg ]; then rm -rf $(LIBDIR); fi
	@if cmp -s rules/nfreaim.toml $(CONFDIR)/nfreaim.toml; then rm -f $(CONFDIR)/nfreaim.toml; \
	elif [ -e $(CONFDIR)/nfreaim.toml ]; then echo 'Kept, because it was edited: $(CONFDIR)/nfreaim.toml'; fi
	@if [ -d $(CONFDIR) ]; then rmdir --ignore-fail-on-non-empty $(CONFDIR); fi

clean:
	rm -rf $(VENV) .bench-mitmproxy build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
