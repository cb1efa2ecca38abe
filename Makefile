# Builds libmfq, and installs it the way C libraries are.
#
#   make             builds it with cargo, optimised
#   make install     the headers, both libraries, mfq.pc and the CMake package; builds first what is missing or old
#   make uninstall   removes them
#
#   PREFIX=DIR     where it will be used from: /usr/local
#   LIBDIR=DIR     where its libraries will be: PREFIX/lib
#   DESTDIR=DIR    goes before both, for what is packed here and unpacked elsewhere
#   MFQ_LIBRARIES=DIR     where a libmfq.so and a libmfq.a are already; without it cargo builds them
#   CARGO_TARGET_DIR=DIR  where cargo builds them

PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib

# Neither mfq.pc nor make itself can cope with anything else; nor can sed and the shell, as they are used here.
odd := & | \ ' " ` $$ % \#
has_odd = $(strip $(foreach character,$(odd),$(findstring $(character),$(1))))
plain = $(if $(word 2,x$(1)x)$(call has_odd,$(1)),,$(filter /%,$(1)))
check = $(if $(call plain,$($(1))),,$(error $(1)=$($(1)): it has to be an absolute path without blanks or $(odd)))
$(call check,PREFIX)$(call check,LIBDIR)

# Cargo.toml is where they are said.
said = $(shell sed -n 's/^$(1) = "\(.*\)"$$/\1/p' Cargo.toml)
VERSION := $(call said,version)
SOVERSION := $(firstword $(subst ., ,$(VERSION)))

HEADERS := $(wildcard include/*.h include/*.hpp)
INCLUDE := $(DESTDIR)$(PREFIX)/include
LIB := $(DESTDIR)$(LIBDIR)
# Not below LIBDIR: `cargo cinstall` can put files here, and not there.
CMAKE := $(DESTDIR)$(PREFIX)/share/cmake/mfq

.PHONY: all install uninstall

ifdef MFQ_LIBRARIES

all:

else

# Not where `cargo build` puts its libmfq.so, which is another one: beside the rlib that the tests link, cargo does not
# optimise across crates. (The static library was 38 MB so, and is 16 MB.)
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)/install
MFQ_LIBRARIES := $(TARGET_DIR)/release

all: $(MFQ_LIBRARIES)/libmfq.so $(MFQ_LIBRARIES)/libmfq.a

# As files, so that `sudo make install` behind `make` does not run cargo as root.
$(MFQ_LIBRARIES)/libmfq.so: Cargo.toml Cargo.lock build.rs cbindgen.toml $(shell find src -name '*.rs')
	cargo rustc --release --lib --crate-type cdylib,staticlib --target-dir $(TARGET_DIR)

$(MFQ_LIBRARIES)/libmfq.a: $(MFQ_LIBRARIES)/libmfq.so ;

endif

install: $(MFQ_LIBRARIES)/libmfq.so $(MFQ_LIBRARIES)/libmfq.a
	install -d "$(INCLUDE)" "$(LIB)/pkgconfig" "$(CMAKE)"
	install -m 644 $(HEADERS) "$(INCLUDE)"
	install -m 644 $(MFQ_LIBRARIES)/libmfq.a "$(LIB)"
	install -m 755 $(MFQ_LIBRARIES)/libmfq.so "$(LIB)/libmfq.so.$(VERSION)"
	ln -sf libmfq.so.$(VERSION) "$(LIB)/libmfq.so.$(SOVERSION)"
	ln -sf libmfq.so.$(VERSION) "$(LIB)/libmfq.so"
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(patsubst $(PREFIX)/%,$${prefix}/%,$(LIBDIR))|' \
	    -e 's|@VERSION@|$(VERSION)|' -e 's|@DESCRIPTION@|$(call said,description)|' \
	    packaging/mfq.pc.in >"$(LIB)/pkgconfig/mfq.pc"
	sed 's|@LIBDIR@|$(patsubst $(PREFIX)/%,%,$(LIBDIR))|' packaging/mfq-config.cmake >"$(CMAKE)/mfq-config.cmake"
	chmod 644 "$(LIB)/pkgconfig/mfq.pc" "$(CMAKE)/mfq-config.cmake"
	install -m 644 packaging/mfq-config-version.cmake "$(CMAKE)"

uninstall:
	rm -f $(addprefix "$(LIB)"/,libmfq.a libmfq.so libmfq.so.$(SOVERSION) libmfq.so.$(VERSION) pkgconfig/mfq.pc)
	rm -f $(addprefix "$(INCLUDE)"/,$(notdir $(HEADERS)))
	rm -rf "$(CMAKE)"
