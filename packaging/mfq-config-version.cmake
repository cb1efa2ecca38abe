# The header says which version this is. Versions with the same first number share a soname, and are compatible.

file(STRINGS "${CMAKE_CURRENT_LIST_DIR}/../../../include/mfq.h" _mfq_macro REGEX "^#define MFQ_VERSION \"")
string(REGEX REPLACE "^.*\"(.*)\"$" "\\1" PACKAGE_VERSION "${_mfq_macro}")

if(PACKAGE_VERSION VERSION_EQUAL PACKAGE_FIND_VERSION)
  set(PACKAGE_VERSION_EXACT TRUE)
endif()
string(REGEX MATCH "^[0-9]+" _mfq_major "${PACKAGE_VERSION}")
if(PACKAGE_FIND_VERSION_MAJOR STREQUAL _mfq_major AND NOT PACKAGE_FIND_VERSION VERSION_GREATER PACKAGE_VERSION)
  set(PACKAGE_VERSION_COMPATIBLE TRUE)
endif()
