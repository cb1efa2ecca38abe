# find_package(mfq) gives mfq::mfq, the shared library, and mfq::mfq_static where the static one is installed.

foreach(_mfq_component ${mfq_FIND_COMPONENTS})
  if(mfq_FIND_REQUIRED_${_mfq_component})
    set(mfq_FOUND FALSE)
    set(mfq_NOT_FOUND_MESSAGE "it has no components, so no ${_mfq_component}")
    return()
  endif()
endforeach()

if(TARGET mfq::mfq)
  return()
endif()

get_filename_component(_mfq_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)

# Where `make install` was told to put them, which it writes here, from the prefix on if they lie in it; or, once the tree
# was moved, where else they lie in it.
foreach(_mfq_candidate "@LIBDIR@" lib/${CMAKE_LIBRARY_ARCHITECTURE} lib64 lib)
  get_filename_component(_mfq_libdir "${_mfq_candidate}" ABSOLUTE BASE_DIR "${_mfq_prefix}")
  if(EXISTS "${_mfq_libdir}/libmfq.so")
    break()
  endif()
endforeach()

if(NOT EXISTS "${_mfq_libdir}/libmfq.so")
  set(mfq_FOUND FALSE)
  set(mfq_NOT_FOUND_MESSAGE "there is no libmfq.so in lib64 or lib of ${_mfq_prefix}, nor where it was installed")
  return()
endif()

add_library(mfq::mfq SHARED IMPORTED)
set_target_properties(mfq::mfq PROPERTIES
  IMPORTED_LOCATION "${_mfq_libdir}/libmfq.so"
  INTERFACE_INCLUDE_DIRECTORIES "${_mfq_prefix}/include")

if(EXISTS "${_mfq_libdir}/libmfq.a")
  add_library(mfq::mfq_static STATIC IMPORTED)
  set_target_properties(mfq::mfq_static PROPERTIES
    IMPORTED_LOCATION "${_mfq_libdir}/libmfq.a"
    INTERFACE_INCLUDE_DIRECTORIES "${_mfq_prefix}/include"
    INTERFACE_LINK_LIBRARIES "pthread;dl;m")
endif()
